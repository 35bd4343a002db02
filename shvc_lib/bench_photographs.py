"""`python -m shvc_lib.bench photographs`, and `shvc bench`: bytes and seconds of whole photographs by our lossless codecs and the classical ones.

Everything is decoded and compared. Ours and JPEG XL are timed one after the other on the same cores, image by image, so that the ratios of their seconds mean
something. Chapter 7 shows the results, data/results/kodak_shvc.json.
"""

import importlib.util
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from . import anchors, codec, coders, data, zoo
from .bench_shvc import THREADS, ideal_bits, keep, kept_draw
from .errors import InvalidInput, MissingData

PHOTO, LEARNED, LINEAR, AUTO, FITTED, FAST = coders.PHOTO, coders.LEARNED, "linear", "auto", coders.FITTED, coders.FAST
NETWORKS = (PHOTO, FITTED, FAST, LEARNED)
LARGE, JPEG_XL = ("PNG", "WebP slowest", "JPEG-LS", "JPEG 2000"), "JPEG XL effort 9"
KEYS, WEBP = ("bytes", "bits_per_dim", "seconds_encode", "seconds_decode"), 16383  # WebP: pixels a side
PROVEN = 2  # photographs for which "auto" is called; for the others the smallest of the files that it tries is put down


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


def linear(image):
    """A row of `photographs` by `LINEAR`, one tile, which is encoded on one core."""
    return _row(LINEAR, image, lambda: codec.encode(image, LINEAR), lambda file: codec.decode(file, workers=THREADS))


def others(image):
    """Rows of the codecs of `LARGE`, which run on one core."""
    return [{"codec": own.name, **{key: round(getattr(own, key), 6) for key in KEYS}} for own in anchors.lossless(image, LARGE)]


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
    for name in (*NETWORKS, LINEAR):  # the first file of a process also waits for the network and for compiled code
        codec.decode(codec.encode(pictures[0][1], name))
    timed, rows = [(*(ours(image, name) for name in NETWORKS), linear(image), jpeg_xl(image)) for _, image in pictures], []
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
    for name in (LINEAR, FAST, FITTED, LEARNED, PHOTO):
        ratio[name] = {way: mean[f"seconds_{way}"][name] / mean[f"seconds_{way}"][JPEG_XL] for way in ("encode", "decode")}
        print(f"{name} takes {ratio[name]['encode']:.2f} times as long as {JPEG_XL} to encode and {ratio[name]['decode']:.1f} times to decode, "
              f"{THREADS} threads each" + (", of which it encodes with one" if name == LINEAR else ""))
    for name in NETWORKS:
        facts[name] = {key: zoo.card(name)[key] for key in ("name", "parameters", "sha256")}
        beyond = [(8 * row["bytes"] - row["ideal_bits"], row["ideal_bits"], row["tiles"]) for row in rows if row["codec"] == name]
        print(f"overhead of {name}: at most {max(100 * bits / ideal for bits, ideal, _ in beyond):.4f} % of a file, "
              f"{max(bits / n for bits, _, n in beyond):.0f} bits a tile")
    keep(args.json, circumstances, f"Actual bits per sub-pixel of whole files, lossless, decoded and compared; images: {args.images}; seconds of {PHOTO}, "
          f"{FITTED}, {FAST}, {LEARNED}, {LINEAR} (which encodes with one) and {JPEG_XL} with {THREADS} threads each, of the others with one, two photographs at a time; "
          f"ideal_bits: -log2 of the masses that the coder used; {AUTO}: the smallest file that it tries",
          threads=THREADS, model=facts[PHOTO], linear={"ratio": ratio[LINEAR]},
          **{key: {**facts[name], "ratio": ratio[name]} for key, name in (("fitted", FITTED), ("fast", FAST), ("learned", LEARNED))}, mean_bits_per_dim=mean["bits_per_dim"],
          mean_seconds={way: mean[f"seconds_{way}"] for way in ("encode", "decode")}, ratio=ratio[PHOTO], rows=rows)
