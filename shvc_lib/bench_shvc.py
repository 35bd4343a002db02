"""`python -m shvc_lib.bench shvc` and `... bench photographs`: what the trained SHVCs reach, on CIFAR-10 and on photographs, beside the classical codecs.

`shvc` codes the first test images of CIFAR-10 with every network that is here: an SHVC in chains, where an image costs what the stack grows by; an SHVC-ArIB
in single files; all of them in albums. The classical codecs get the same images, each alone and all as one mosaic. Table 2 of the paper is run, too: 10 000
images through the networks in batches of 100, and the test images through the coder. `photographs` does the same for whole pictures: bytes and seconds.
Everything is decoded and compared. Chapter 7 shows the results, data/results/shvc_cifar10.json and kodak_shvc.json.
"""

import importlib.util
import json
import math
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import album, anchors, codec, coders, container_small, data, zoo
from .bench_chains import negative_elbo
from .coding import BitStack
from .coding.bits_back import push_chain
from .coding.lanes import Lanes
from .coding.rans import PRECISION
from .errors import InvalidInput, MissingData
from .images import write_bytes
from .models import shvc_codec

NETWORKS = ("shvc-cifar10", "shvc-pixels-cifar10", "shvc-lite-cifar10", "shvc-arib-cifar10", "shvc-short", "shvc-short-arib", "shvc-short-deterministic")
TIMED, FILES, PHOTO, LINEAR, AUTO = "shvc-lite-cifar10", "shvc-arib-cifar10", "shvc-photo", "linear", "auto"
FITTED, SINGLE = coders.FITTED, (FILES, coders.SMALL)  # SINGLE: networks whose single images become files of their own
SMALL, LARGE, JPEG_XL = ("PNG", "WebP slowest", "JPEG-LS", "JPEG XL effort 9"), ("PNG", "WebP slowest", "JPEG-LS", "JPEG 2000"), "JPEG XL effort 9"
KEYS, WEBP = ("bytes", "bits_per_dim", "seconds_encode", "seconds_decode"), 16383  # WebP: pixels a side
INITIAL_BITS, BATCH, CHAIN, THREADS, DRAWS = 1 << 14, 100, 50, 2, 2
PROVEN = 2  # photographs for which "auto" is called; for the others the smallest of the files that it tries is put down


@contextmanager
def ideal_bits():
    """While it is open: a list of numbers whose sum is -log2 of the mass, in the integers of the coder, of every symbol that this process pushed, less that
    of those popped. What a file needs beyond it is overhead."""
    found, encode, decode = [], BitStack._encode, BitStack._decode

    def pushed(self, start, freq, size):
        found.append(float((PRECISION - np.log2(freq)).sum()))
        encode(self, start, freq, size)

    def popped(self, cdf, first, last):
        offsets, masses = decode(self, cdf, first, last), cdf.masses(first, last)
        found.append(-float((PRECISION - np.log2(masses[np.zeros_like(offsets) if cdf.shape is None else np.arange(last - first), offsets])).sum()))
        return offsets

    BitStack._encode, BitStack._decode = pushed, popped
    try:
        yield found
    finally:
        BitStack._encode, BitStack._decode = encode, decode


@contextmanager
def network_seconds(twin):
    """While it is open: a list of one number, the seconds that passed inside the twin's networks."""
    spent, places = [0.0], [(twin, "posterior")] + [(net, name) for net in twin.conditionals for name in ("seen", "forward", "step")]

    def timed(method, *arguments):
        started = time.perf_counter()
        result = method(*arguments)
        spent[0] += time.perf_counter() - started
        return result

    for owner, name in places:
        setattr(owner, name, partial(timed, getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name in places:
            delattr(owner, name)  # the class's own is visible again


def chains(twin, images):
    """Images (N, 32, 32, 3) in `BATCH` chains side by side, on random bits: {bits, initial: net and initial bits of each image; symbols: ideal bits per
    dimension; seconds: {push, push_network, pop, pop_network}}. Raises InvalidInput when anything does not come back."""
    if len(images) % (count := min(BATCH, len(images))):
        raise InvalidInput(f"{len(images)} images cannot be shared out evenly to {count} chains")
    batches, lanes = images.reshape(-1, count, *images.shape[1:]), Lanes([BitStack.random(INITIAL_BITS, seed) for seed in range(count)])
    before, both, started = lanes.copy(), shvc_codec.codec(twin, batches[0].shape), time.perf_counter()
    with network_seconds(twin) as spent:
        with ideal_bits() as ideal:
            ledgers = push_chain(both, batches, lanes)
        inside, middle = spent[0], time.perf_counter()
        back, ended = [both.pop(lanes) for _ in batches][::-1], time.perf_counter()
    if not np.array_equal(back, batches) or lanes != before:
        raise InvalidInput("the images or the initial bits did not come back")
    seconds = {"push": middle - started, "push_network": inside, "pop": ended - middle, "pop_network": spent[0] - inside}
    return {"bits": [int(bits) for own in ledgers for bits in own.net], "initial": [int(bits) for own in ledgers for bits in own.initial],
            "symbols": sum(ideal) / images.size, "seconds": {key: round(value, 3) for key, value in seconds.items()}}


def files(name, images):
    """Each image a .shvc file of its own: {bits: of each whole file; symbols: ideal bits per dimension of the draw that was kept}. Decoded one by one and
    compared."""
    written, coder = [codec.encode(image, name, workers=1) for image in images], coders.get(name)
    if not all(np.array_equal(codec.decode(file, workers=1), image) for file, image in zip(written, images)):
        raise InvalidInput("an image did not come back")
    symbols = sum(kept_draw(file, coder, image) for file, image in zip(written, images))
    return {"bits": [8 * len(file) for file in written], "symbols": symbols / images.size}


def kept_draw(file, coder, image):
    """Ideal bits of what a small image's file holds: the encoder tries several draws of z."""
    parts = container_small.unpack(file)
    with ideal_bits() as ideal:
        coders.stream(coder, image, codec.small_start(parts.header, coder, image)[0])
    return sum(ideal) if parts.model else 8 * image.size


def in_album(model, images, chain=0):
    """The images as one album: {bytes, bits_per_dim, symbols, chain}; see `album.encode` for the arguments. Decoded and compared."""
    with ideal_bits() as ideal:
        file = album.encode(images, model, chain=chain)
    if not np.array_equal(album.Album(file).images(), images):
        raise InvalidInput(f"an image of the album by {model} did not come back")
    return {"bytes": len(file), "bits_per_dim": 8 * len(file) / images.size, "symbols": sum(ideal) / images.size, "chain": chain}


def network(name, images):
    """One network's entry in the results. `actual`: net in chains, in whole files for `SINGLE`, in an album for the other two kinds."""
    card, twin = zoo.card(name), zoo.load(name)
    ideal, chained = negative_elbo(twin, images, DRAWS), twin.split == twin.ks[0]**2 and not twin.deterministic
    row = {"kind": "deterministic" if twin.deterministic else "SHVC" if chained else "SHVC-ArIB", "parameters": card["parameters"], "sha256": card["sha256"],
           "float": card["bits_per_dim"]["float"], "integer": ideal.pop("total"), "parts": ideal}
    if chained or name in SINGLE:
        row |= chains(twin, images) if chained else files(name, images)
        row["actual"] = sum(row["bits"]) / images.size
    if name in (TIMED, FILES) or not chained:
        row["album"] = in_album((FILES, name), images, CHAIN) if chained else in_album(name, images)
    return row if "actual" in row else {**row, "actual": row["album"]["bits_per_dim"], "symbols": row["album"]["symbols"]}


def describe(images):
    """What images (N, H, W, 3) are like, a list each: `roughness`, mean step to the right neighbour in levels; `flat`, share of such steps that are 0;
    `grey`, share of pixels without colour; `colours`, how many different ones."""
    steps, colours = np.abs(np.diff(images.astype(np.int16), axis=2)), [len(np.unique(image.reshape(-1, 3), axis=0)) for image in images]
    values = {"roughness": steps.mean((1, 2, 3)), "flat": (steps == 0).mean((1, 2, 3)), "grey": (images.max(-1) == images.min(-1)).mean((1, 2))}
    return {**{key: value.round(4).tolist() for key, value in values.items()}, "colours": colours}


def mosaic(images):
    """All images as one picture, with at most 40 columns: (H, W, 3)."""
    columns = max(number for number in range(1, 41) if len(images) % number == 0)
    return np.ascontiguousarray(images.reshape(-1, columns, *images.shape[1:]).swapaxes(1, 2).reshape(-1, columns * images.shape[1], 3))


def classical(images):
    """{codec: {alone, mosaic: bits per dimension; bits: of each image's file}}, headers included."""
    files, whole = [anchors.lossless(image, SMALL) for image in images], anchors.lossless(mosaic(images), SMALL)
    bits = [[8 * own.bytes for own in column] for column in zip(*files)]
    return {own.name: {"alone": sum(column) / images.size, "mosaic": own.bits_per_dim, "bits": column} for own, column in zip(whole, bits)}


def evaluation(images, test, coded):
    """Table 2 with `TIMED`: seconds of the ELBO of all `images` in batches, and of coding the `test` images, with one thread (there `coded`, what `chains`
    measured, is used) and with two: a dict."""
    twin, threads, batches = zoo.load(TIMED), {}, torch.from_numpy(images).permute(0, 3, 1, 2).split(BATCH)
    for number in (1, THREADS):
        torch.set_num_threads(number)
        with torch.no_grad(), network_seconds(twin) as spent:
            started = time.perf_counter()
            for batch in batches:
                twin.loss(batch, twin.noise(len(batch), torch.Generator().manual_seed(0)))
            row = {"evaluate": round(time.perf_counter() - started, 3), "evaluate_network": round(spent[0], 3)}
        threads[str(number)] = row | (coded if number == 1 else chains(twin, test)["seconds"])
    torch.set_num_threads(1)
    return {"network": TIMED, "batch": BATCH, "images": len(images), "of": "the first training images of CIFAR-10", "coded": len(test), "seconds": threads}


def main(args, circumstances):
    """Tables 1 and 2: print them; keep them in `args.json`."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    torch.set_num_threads(1)
    images, models = data.cifar10("test", args.count), {}
    print(f"Bits per dimension, {args.count} test images\n{'network':26} {'parameters':>10} {'float':>8} {'integer':>8} {'symbols':>8} {'actual':>8} "
          f"{'overhead %':>10} {'album':>8}")
    for name in NETWORKS:
        if name in zoo.names():
            row = models[name] = network(name, images)
            print(f"{name:26} {row['parameters']:10d} {row['float']:8.4f} {row['integer']:8.4f} {row['symbols']:8.4f} {row['actual']:8.4f} "
                  f"{100 * (row['actual'] / row['symbols'] - 1):10.3f} {row['album']['bits_per_dim'] if 'album' in row else math.nan:8.4f}", flush=True)
    others = classical(images)
    for name, row in others.items():
        print(f"{name:26} each alone {row['alone']:.3f}, one mosaic {row['mosaic']:.3f}", flush=True)
    timed = evaluation(data.cifar10("train", 10 * args.count), images, models[TIMED]["seconds"])
    for number, row in timed["seconds"].items():
        print(f"{number} thread(s), seconds of everything (of the networks alone): {timed['images']} images evaluated {row['evaluate']:.1f} "
              f"({row['evaluate_network']:.1f}); {args.count} pushed {row['push']:.1f} ({row['push_network']:.1f}), "
              f"popped {row['pop']:.1f} ({row['pop_network']:.1f})")
    _keep(args.json, circumstances, f"The first {len(images)} test images of CIFAR-10; bits per dimension. float, integer: ELBO of the float network "
          f"(its card's) and of its exact twin; symbols: -log2 of the masses that the coder used; actual: what was written and decoded: net in chains "
          f"(SHVC), whole .shvc files ({', '.join(SINGLE)}), else albums. bits: of each image; initial: what an SHVC borrows; described: see `describe`",
          images=len(images), models=models, classical=others, described=describe(images), evaluation=timed)


def jpeg_xl(image):
    """A row of `photographs`: lossless, effort 9, on as many threads as ours."""
    import imagecodecs  # an extra

    return _row(JPEG_XL, image, lambda: imagecodecs.jpegxl_encode(image, lossless=True, effort=9, usecontainer=False, numthreads=THREADS),
                lambda file: imagecodecs.jpegxl_decode(file, numthreads=THREADS))


def ours(image, name=PHOTO):
    """A row of `photographs` by a network, in a whole .shvc file; with the ideal bits of what was coded, and the number of tiles."""
    found = {}

    def encode():
        with ideal_bits() as ideal:
            file = codec.encode(image, name, workers=THREADS)
        bits = kept_draw(file, coders.get(name), image) if codec.info(file)["version"] == 0 else sum(ideal)
        found.update(ideal_bits=round(bits, 1), tiles=codec.info(file)["tiles"])
        return file

    return _row(name, image, encode, lambda file: codec.decode(file, workers=THREADS)) | found


def others(image):
    """Rows of what runs on one core: `LINEAR` and the codecs of `LARGE`."""
    linear = _row(LINEAR, image, lambda: codec.encode(image, LINEAR, workers=1), lambda file: codec.decode(file, workers=1))
    return [linear] + [{"codec": own.name, **{key: round(getattr(own, key), 6) for key in KEYS}} for own in anchors.lossless(image, LARGE)]


def _row(name, image, encode, decode):
    started = time.perf_counter()
    file, middle = encode(), time.perf_counter()
    back, ended = decode(file), time.perf_counter()
    if not np.array_equal(back, image):
        raise InvalidInput(f"{name} decoded another image")
    # The seconds as they are: rounded to milliseconds, those of a tiny image would be zero, and ratios are taken of them.
    return {"codec": name, "bytes": len(file), "bits_per_dim": 8 * len(file) / image.size, "seconds_encode": middle - started, "seconds_decode": ended - middle}


def _unfit(image):
    """Why one of the codecs does not take an image, or ""."""
    if max(image.shape) > WEBP:
        return f"a side of more than {WEBP} pixels, which WebP does not take"
    return "16 bits per sample" if image.dtype != np.uint8 else "grey" if image.ndim == 2 else ""


def photographs(args, circumstances):
    """Whole photographs: print every file's size and seconds; keep them in `args.json`. Images of a folder that not all codecs take are left out, in a line
    on standard error."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    if not importlib.util.find_spec("imagecodecs"):
        raise MissingData("the codecs to compare with are not installed: pip install 'shvc_lib[anchors]'")
    torch.set_num_threads(THREADS)
    pictures, note = data.pictures(args.images, _unfit)
    sys.stderr.write(note)
    for name in (PHOTO, FITTED):  # the first file of a process also waits for the network
        codec.decode(codec.encode(pictures[0][1][:64, :64], name))
    timed, rows = [(ours(image), ours(image, FITTED), jpeg_xl(image)) for _, image in pictures], []
    with ThreadPoolExecutor(THREADS) as pool:
        rest = list(pool.map(others, [image for _, image in pictures]))
    for number, ((name, image), found) in enumerate(zip(pictures, ([*a, *b] for a, b in zip(timed, rest)))):
        tried = [coder.name for coder in codec.candidates(image)]
        found += [ours(image, other) for other in tried if other not in {row["codec"] for row in found}]  # what is for small images only
        best = min((row for row in found if row["codec"] in tried), key=lambda row: row["bytes"])
        if number < PROVEN and len(codec.encode(image, AUTO, workers=THREADS)) != best["bytes"]:
            raise InvalidInput(f"{name}: auto wrote another file than the smallest of {', '.join(tried)}")
        found.append({"codec": AUTO, "bytes": best["bytes"], "bits_per_dim": best["bits_per_dim"]})
        rows += [{"image": name, "shape": list(image.shape), **row} for row in found]
        print(f"{name:12} " + ", ".join(f"{row['codec']} {row['bits_per_dim']:.3f}" for row in found), flush=True)
    of_all = [name for name, count in Counter(row["codec"] for row in rows).items() if count == len(pictures)]
    mean = {key: {name: float(np.mean(own)) for name in of_all if (own := [row[key] for row in rows if row["codec"] == name and key in row])} for key in KEYS}
    for name, rate in mean["bits_per_dim"].items():
        times = "".join(f", {way} {mean[f'seconds_{way}'][name]:6.2f} s" for way in ("encode", "decode") if name in mean[f"seconds_{way}"])
        print(f"mean of {len(pictures)}: {name:18} {rate:7.4f} bits per sub-pixel{times}")
    ratio, facts = {}, {}
    for name in (PHOTO, FITTED):
        facts[name] = {key: zoo.card(name)[key] for key in ("name", "parameters", "sha256")}
        ratio[name] = {way: mean[f"seconds_{way}"][name] / mean[f"seconds_{way}"][JPEG_XL] for way in ("encode", "decode")}
        print(f"{name} takes {ratio[name]['encode']:.2f} times as long as {JPEG_XL} to encode and {ratio[name]['decode']:.1f} times to decode, "
              f"{THREADS} threads each")
        beyond = [(8 * row["bytes"] - row["ideal_bits"], row["ideal_bits"], row["tiles"]) for row in rows if row["codec"] == name]
        print(f"overhead of {name}: at most {max(100 * bits / ideal for bits, ideal, _ in beyond):.4f} % of a file, "
              f"{max(bits / n for bits, _, n in beyond):.0f} bits a tile")
    _keep(args.json, circumstances, f"Actual bits per sub-pixel of whole files, lossless, decoded and compared; images: {args.images}; seconds of {PHOTO}, "
          f"{FITTED} and {JPEG_XL} with {THREADS} threads each, of the others with one, two photographs at a time; "
          f"ideal_bits: -log2 of the masses that the coder used; {AUTO}: the smallest file that it tries",
          threads=THREADS, model=facts[PHOTO], fitted={**facts[FITTED], "ratio": ratio[FITTED]}, mean_bits_per_dim=mean["bits_per_dim"],
          mean_seconds={way: mean[f"seconds_{way}"] for way in ("encode", "decode")}, ratio=ratio[PHOTO], rows=rows)


def _keep(path, circumstances, description, **result):
    if path:
        write_bytes(path, (json.dumps({"description": description, **circumstances, **result}) + "\n").encode())
