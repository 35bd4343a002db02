"""`python -m shvc_lib.bench discretized`: rate and distortion of the codecs of chapter 4 on Kodak.

For each network, operating point and photograph: the file that `shvc encode --model NAME` writes, decoded again (`bits`, actual, header and all); the
ideal bits of its integers; what the network in floats promised for rounded latents, which is what it was trained to lower (`training`); and the same with
uniform noise in the place of rounding (`noise`), the free energy's own rate. Beside them JPEG (with Huffman tables of the image's own, and
with the standard's), WebP, HEVC intra and JPEG XL on the same photographs, and curves that others published,
named as published. Chapter 4 shows the result, data/results/kodak_discretized.json.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch

from . import anchors, codec, data, metrics, results, zoo
from .errors import InvalidInput
from .images import write_bytes
from .models import discretized_codec

NETWORKS = ("dvae-1", "dvae-3", "dvae-12")
CLASSICAL = ("JPEG", "JPEG standard tables", "JPEG 4:4:4", "WebP", "HEVC", "JPEG XL")
PIXELS = 768 * 512
PUBLISHED = {  # names here: in data/results/published_kodak.json
    "Balle 2018 factorised": "factorized", "Balle 2018 hyperprior": "hyperprior", "QRes-VAE 34M": "qres34m", "VTM": "vtm18"}


def measure(name, image, point):
    """{bits, ideal, training, noise, psnr, ms_ssim, layers, seconds} of one photograph, uint8 (H, W, 3)."""
    network = zoo.load(name)
    coded = discretized_codec.encode(network, image, point)
    started = time.perf_counter()
    file = codec.encode(image, model=name, quality=point + 1)
    encoded = time.perf_counter()
    picture = codec.decode(file)
    decoded = time.perf_counter()
    pixels, generator = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], torch.Generator().manual_seed(0)

    def uniform(shape):
        return torch.rand(shape, generator=generator) - 0.5

    with torch.no_grad():
        estimates = [network.everything(pixels, torch.tensor([point]), uniform, through) for through in ("price", "noise")]
    training, noise = (sum(float(bits.sum()) for bits in estimate.bits) for estimate in estimates)
    layers = [float(bits.sum()) for bits in coded.bits]
    return {"bits": 8 * len(file), "ideal": round(sum(layers), 1), "training": round(training, 1), "noise": round(noise, 1),
            "psnr": round(metrics.psnr(image, picture), 4), "ms_ssim": round(float(metrics.ms_ssim(image, picture)), 6),
            "layers": [round(bits, 1) for bits in layers],
            "seconds": [round(encoded - started, 2), round(decoded - encoded, 2)]}


def curve(entry):
    """Means over the photographs of one network's entry: {rate, psnr, ms_ssim, ideal, training, noise: a list each}; rates in bits per pixel, MS-SSIM in
    decibels."""
    points = [entry["points"][point].values() for point in sorted(entry["points"], key=int)]
    rates = {"rate": "bits", "ideal": "ideal", "training": "training", "noise": "noise"}
    return {"psnr": [float(np.mean([row["psnr"] for row in rows])) for rows in points],
            "ms_ssim": [float(np.mean([metrics.decibels(row["ms_ssim"]) for row in rows])) for rows in points],
            **{key: [float(np.mean([row[kept] / PIXELS for row in rows])) for rows in points] for key, kept in rates.items()}}


def bd_rates(networks, classical):
    """{network: {"psnr": {codec: percent}, "ms_ssim": {codec: percent}}}, against every classical codec measured. MS-SSIM of a classical curve is a mean,
    then in decibels."""
    found = {}
    for name, entry in networks.items():
        rate, psnr, decibels = curve(entry)["rate"], curve(entry)["psnr"], _mean_decibels(entry)
        found[name] = {"psnr": {}, "ms_ssim": {}}
        for key, other in classical.items():
            other = other["all"]
            found[name]["psnr"][key] = round(metrics.bd_rate(rate, psnr, other["rate"], other["psnr"]), 2)
            found[name]["ms_ssim"][key] = round(metrics.bd_rate(rate, decibels, other["rate"], metrics.decibels(other["ms_ssim"])), 2)
    return found


def _mean_decibels(entry):
    """MS-SSIM, averaged first and in decibels then, as the classical curves have it."""
    points = [entry["points"][point].values() for point in sorted(entry["points"], key=int)]
    return [metrics.decibels(float(np.mean([row["ms_ssim"] for row in rows]))) for rows in points]


def main(args, circumstances):
    """Print a row per network and operating point; with `args.json`, keep every photograph's rows there, beside those that the file holds already."""
    out, kept = Path(args.json) if args.json else None, {}
    if out and out.exists():
        kept = json.loads(out.read_text(encoding="utf-8"))
        if "networks" not in kept:
            raise InvalidInput(f"{out}: this file exists and is not one of this benchmark's; name another")
    networks, photographs, classical = kept.get("networks", {}), data.kodak(args.count), kept.get("classical", {})
    print(f"{'network':10} {'quality':>7} {'images':>6} {'bits/pixel':>10} {'over ideal':>10} {'training':>9} {'noise':>9} {'PSNR':>7} {'MS-SSIM dB':>10}")
    for name in args.models or [name for name in NETWORKS if name in zoo.names()]:
        sha256, entry = zoo.card(name)["sha256"], networks.get(name, {})
        if entry.get("sha256") != sha256:
            entry = {"sha256": sha256, "lambdas": list(zoo.load(name).lambdas), "points": {}}
        for point in range(len(entry["lambdas"])):
            rows = entry["points"].setdefault(str(point), {})
            for number, image in enumerate(photographs, 1):
                if f"kodim{number:02d}" not in rows:
                    rows[f"kodim{number:02d}"] = measure(name, image, point)
            mean = {key: values[0] for key, values in curve({"points": {"0": rows}}).items()}
            print(f"{name:10} {point + 1:7d} {len(rows):6d} {mean['rate']:10.4f} " + " ".join(_percent(mean, key) for key in ("ideal", "training", "noise"))
                  + f" {mean['psnr']:7.2f} {mean['ms_ssim']:10.2f}", flush=True)
        networks[name] = entry | {key: circumstances[key] for key in ("date", "commit")}
        _write(out, networks, classical, circumstances)
    if not args.models:
        for name in CLASSICAL:
            if name not in classical:
                classical[name] = {"all": anchors.curve(photographs, name)}
        _write(out, networks, classical, circumstances)
    for name, found in bd_rates(networks, classical).items():
        print(f"{name:10} BD-rate, PSNR: " + ", ".join(f"{key} {value:+.1f} %" for key, value in found["psnr"].items()))
        print(f"{name:10} BD-rate, MS-SSIM: " + ", ".join(f"{key} {value:+.1f} %" for key, value in found["ms_ssim"].items()))


def _percent(mean, key):
    """How much more the files are than `key`."""
    return f"{100 * (mean['rate'] / mean[key] - 1):+9.2f}%"


def published():
    """{name: {source, rate in bits per pixel, psnr in dB}}: what others measured on the same photographs, quoted."""
    curves = results.load("published_kodak")["curves"]
    return {name: {"source": curves[key]["source"], "rate": curves[key]["bpp"], "psnr": curves[key]["psnr"]} for name, key in PUBLISHED.items()}


def _write(out, networks, classical, circumstances):
    if not out:
        return
    result = {"description": "The Kodak photographs (768 x 512 or turned), coded by discretised VAEs at their operating points. bits: actual, of the "
                             "whole file; ideal: of its integers; training: the float network's bits for rounded latents; noise: for latents with uniform "
                             "noise; layers: ideal bits of each layer, the top one first; psnr in dB; ms_ssim from 0 to 1; seconds: to encode and to decode, "
                             "on a machine that had other work. classical: means over all photographs, rate in bits per pixel, actual. published: others' "
                             "numbers, not measured here",
              **circumstances, "networks": networks, "classical": classical, "published": published(), "bd_rate": bd_rates(networks, classical)}
    write_bytes(out, (json.dumps(result) + "\n").encode(), force=True)
