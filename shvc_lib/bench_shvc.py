"""`python -m shvc_lib.bench shvc`: what the trained SHVCs reach on CIFAR-10, beside the classical codecs.

Every network that is here codes the first test images: an SHVC in chains, where an image costs what the stack grows by; an SHVC-ArIB and those without
learned latents in single files; all of them in albums. The classical codecs get the same images, each alone and all as one mosaic. Table 2 of the paper is run,
too: 10 000 images through the networks in batches of 100, and the test images through the coder. Everything is decoded and compared. Chapter 7 shows the
results, data/results/shvc_cifar10.json.
"""

import json
import math
import time
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
from .errors import InvalidInput
from .images import write_bytes
from .models import shvc_codec

NETWORKS = ("shvc-cifar10", "shvc-pixels-cifar10", "shvc-lite-cifar10", "shvc-arib-cifar10", "shvc-short", "shvc-short-arib", "shvc-short-deterministic")
TIMED, FILES = "shvc-lite-cifar10", "shvc-arib-cifar10"
SINGLE = (FILES, "shvc-pixels-cifar10", "shvc-cifar10")  # networks whose single images become files of their own
SMALL = ("PNG", "WebP slowest", "JPEG-LS", "JPEG XL effort 9")
INITIAL_BITS, BATCH, CHAIN, THREADS, DRAWS = 1 << 14, 100, 50, 2, 2


@contextmanager
def ideal_bits():
    """While it is open: a list of numbers whose sum is -log2 of the mass, in the integers of the coder, of every symbol that this process pushed, less that
    of those popped. What a file needs beyond it is overhead."""
    found, encode, decode, search = [], BitStack._encode, BitStack._decode, BitStack._search

    def pushed(self, start, freq, size):
        found.append(float((PRECISION - np.log2(freq)).sum()))
        encode(self, start, freq, size)

    def popped(self, cdf, first, last):
        offsets, masses = decode(self, cdf, first, last), cdf.masses(first, last)
        found.append(-float((PRECISION - np.log2(masses[np.zeros_like(offsets) if cdf.shape is None else np.arange(last - first), offsets])).sum()))
        return offsets

    def searched(self, cdf, number):
        offsets = search(self, cdf, number)
        found.extend([] if offsets is None else [-float(cdf.bits(offsets + np.reshape(cdf.lower, -1)).sum())])
        return offsets

    BitStack._encode, BitStack._decode, BitStack._search = pushed, popped, searched
    try:
        yield found
    finally:
        BitStack._encode, BitStack._decode, BitStack._search = encode, decode, search


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
    with ThreadPoolExecutor(THREADS) as pool, coders.in_threads():
        written, coder = list(pool.map(lambda image: codec.encode(image, name, workers=1), images)), coders.get(name)
        back = list(pool.map(lambda file: codec.decode(file, workers=1), written))
    if not all(np.array_equal(*pair) for pair in zip(back, images)):
        raise InvalidInput("an image did not come back")
    symbols = sum(kept_draw(file, coder, image) for file, image in zip(written, images))
    return {"bits": [8 * len(file) for file in written], "symbols": symbols / images.size}


def kept_draw(file, coder, image):
    """Ideal bits of what a small image's file holds: the encoder tries several draws of z, or mirrors the image."""
    parts = container_small.unpack(file)
    with ideal_bits() as ideal:
        coders.small_stream(parts.header, coder, image, parts.draw)
    return sum(ideal) if parts.model else 8 * image.size


def in_album(model, images, chain=0):
    """The images as one album: {bytes, bits_per_dim, symbols, chain}; see `album.encode` for the arguments. Decoded and compared."""
    file = album.encode(images, model, chain=chain)
    with ideal_bits() as ideal:  # of decoding, because the encoder tries several ways to mirror an image
        back = album.Album(file).images()
    if not np.array_equal(back, images):
        raise InvalidInput(f"an image of the album by {model} did not come back")
    return {"bytes": len(file), "bits_per_dim": 8 * len(file) / images.size, "symbols": -sum(ideal) / images.size, "chain": chain}


def network(name, images):
    """One network's entry in the results. `actual`: net in chains, in whole files for `SINGLE`, in an album for the other two kinds."""
    card, twin = zoo.card(name), zoo.load(name)
    ideal, chained = negative_elbo(twin, images, DRAWS), twin.split == twin.ks[0]**2 and not twin.deterministic
    row = {"kind": "deterministic" if twin.deterministic else "SHVC" if chained else "SHVC-ArIB", "parameters": card["parameters"], "sha256": card["sha256"],
           "float": card["bits_per_dim"]["float"], "integer": ideal.pop("total"), "parts": ideal}
    if chained or name in SINGLE:
        row |= chains(twin, images) if chained else files(name, images)
        row["actual"] = sum(row["bits"]) / images.size
    if name in SINGLE and twin.deterministic:
        row["groups"] = in_album(name, images, CHAIN)
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


def earlier(path, count):
    """What can be taken over from the result in a file, when there is one: its rows of networks whose weights are those that are here, and the rest of it.
    Albums under `SubsampledSHVC` count only if they are of groups, too: before, images were not mirrored there. Raises InvalidInput for other images."""
    if not path:
        return {"models": {}, "classical": None, "evaluation": None}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if found["images"] != count:
            raise InvalidInput(f"{path} is of {found['images']} images, not of {count}")
        same = {name: row for name, row in found["models"].items() if name in zoo.names() and row["sha256"] == zoo.card(name)["sha256"]
                and ("groups" in row or not (row["kind"] == "deterministic" and name in SINGLE))}
        return {**found, "models": same}
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path}: no earlier result of this benchmark ({type(error).__name__})") from None


def main(args, circumstances):
    """Tables 1 and 2: print them; keep them in `args.json`."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    torch.set_num_threads(1)
    images, models, before = data.cifar10("test", args.count), {}, earlier(args.before, args.count)
    print(f"Bits per dimension, {args.count} test images\n{'network':26} {'parameters':>10} {'float':>8} {'integer':>8} {'symbols':>8} {'actual':>8} "
          f"{'overhead %':>10} {'album':>8}")
    for name in NETWORKS:
        if name in zoo.names():
            row = models[name] = before["models"].get(name) or network(name, images)
            print(f"{name:26} {row['parameters']:10d} {row['float']:8.4f} {row['integer']:8.4f} {row['symbols']:8.4f} {row['actual']:8.4f} "
                  f"{100 * (row['actual'] / row['symbols'] - 1):10.3f} {row['album']['bits_per_dim'] if 'album' in row else math.nan:8.4f}"
                  + (f"   in groups {row['groups']['bits_per_dim']:.4f}" if "groups" in row else ""), flush=True)
    others = before["classical"] or classical(images)
    for name, row in others.items():
        print(f"{name:26} each alone {row['alone']:.3f}, one mosaic {row['mosaic']:.3f}", flush=True)
    timed = before["evaluation"] or evaluation(data.cifar10("train", 10 * args.count), images, models[TIMED]["seconds"])
    for number, row in timed["seconds"].items():
        print(f"{number} thread(s), seconds of everything (of the networks alone): {timed['images']} images evaluated {row['evaluate']:.1f} "
              f"({row['evaluate_network']:.1f}); {args.count} pushed {row['push']:.1f} ({row['push_network']:.1f}), "
              f"popped {row['pop']:.1f} ({row['pop_network']:.1f})")
    keep(args.json, circumstances, f"The first {len(images)} test images of CIFAR-10; bits per dimension. float, integer: ELBO of the float network "
          f"(its card's) and of its exact twin; symbols: -log2 of the masses that the coder used; actual: what was written and decoded: net in chains "
          f"(SHVC), whole .shvc files ({', '.join(SINGLE)}), else albums. groups: an album, {CHAIN} images on each stack; bits: of each image; "
          "initial: what an SHVC borrows; described: see `describe`",
          images=len(images), models=models, classical=others, described=describe(images), evaluation=timed,
          **({"taken_over": {"commit": before["commit"], "date": before["date"], "models": list(before["models"]), "also": ["classical", "evaluation"]}}
             if args.before else {}))


def keep(path, circumstances, description, **result):
    """Write a result as JSON, if there is a path to write it to."""
    if path:
        write_bytes(path, (json.dumps({"description": description, **circumstances, **result}) + "\n").encode())
