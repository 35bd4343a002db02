"""`python -m shvc_lib.bench arib`: what a single image costs under SHVC, SHVC-ArIB and a deterministic posterior (Figure 4 of the paper).

The first test images of CIFAR-10, each coded by itself. SHVC is measured on random initial bits: its net cost, and how far it had to dip below them, which
a file of one image would have to carry. The other two start from an empty stack, and what is counted is the stream that they leave, all of its bytes. Every
stream is decoded alone, in shuffled order, and compared. Then: images that lend too little, albums written by several processes, and network evaluations
and images per second both ways. Chapter 6 shows the result, data/results/arib_cifar10.json.
"""

import hashlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from . import album, anchors, data, zoo
from .bench_chains import negative_elbo
from .coding import BitStack
from .coding.arib import lend
from .coding.bits_back import push_chain
from .coding.lanes import Lanes
from .errors import InvalidInput
from .images import write_bytes
from .models import shvc_codec

SHVC, ARIB, DETERMINISTIC = "shvc-short", "shvc-short-arib", "shvc-short-deterministic"
INITIAL_BITS, BATCH = 1 << 14, 50


def edge_images(side=32):
    """Images that are no photographs, uint8 (side, side, 3) each: {name: image}."""
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    flat = {name: np.full((side, side, 3), value, np.uint8) for name, value in (("black", 0), ("white", 255), ("grey", 128))}
    return {**flat, "ramp": np.repeat(np.broadcast_to(ramp, (side, side))[..., None], 3, 2).copy(),
            "checkerboard": np.repeat((255 * (np.indices((side, side)).sum(0) % 2)).astype(np.uint8)[..., None], 3, 2),
            "noise": np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)}


def decoded_alone(twin, images, streams, seed=0):
    """Decode every stream by itself, in shuffled order; raise InvalidInput unless the images come back and nothing is left."""
    one = shvc_codec.codec(twin, images[0].shape)
    for i in np.random.default_rng(seed).permutation(len(images)):
        stack = BitStack.from_bytes(streams[i])
        if not np.array_equal(one.pop(stack), images[i]) or stack.bits:
            raise InvalidInput(f"image {i} did not come back")


def with_initial_bits(twin, images):
    """{net, initial: bits for each image}: what each image of a batch costs on random bits, every one by itself; decoded and compared."""
    lanes = Lanes([BitStack.random(INITIAL_BITS, seed) for seed in range(len(images))])
    before, both = lanes.copy(), shvc_codec.codec(twin, images.shape)
    ledger, = push_chain(both, [images], lanes)
    if not np.array_equal(both.pop(lanes), images) or lanes != before:
        raise InvalidInput("the images or the initial bits did not come back")
    return {"net": ledger.net, "initial": ledger.initial}


def alone(twin, images):
    """(streams, {bits: of each stream; rest, lent, overdrawn: see `coding.arib.Loan`, with ArIB}) of a batch, from empty stacks."""
    lanes, coder, found = Lanes([BitStack() for _ in images]), shvc_codec.Images(twin, images.shape), {}
    if twin.deterministic:
        coder.codec().push(lanes, images)
    else:
        found = lend(coder.split(), lanes, coder.parts(images))._asdict()
    streams = [stack.to_bytes() for stack in lanes.stacks]
    return streams, {"bits": np.array([8 * len(stream) for stream in streams]), **found}


def evaluations(twin, side, levels=("x", "z1", "z2", "z3", "z4")):
    """How often each variable's network is called to decode one image of side x side: {variable: calls}, and "posterior": calls to push its latents back."""
    image = edge_images(side)["ramp"]
    counts, one, stack = {}, shvc_codec.codec(twin, image.shape), BitStack()
    one.push(stack, image)

    def counting(name):
        def hook(*_):
            counts[name] = counts.get(name, 0) + 1
        return hook

    hooks = [conditional.last.register_forward_hook(counting(name)) for name, conditional in zip(levels, twin.conditionals)]
    hooks += [posterior.last.register_forward_hook(counting("posterior")) for posterior in twin.posteriors]
    one.pop(stack)
    for hook in hooks:
        hook.remove()
    return counts


def speed(twin, images, repeats=3):
    """Images per second both ways, alone and in 64 lanes, the best of several runs: a dict."""
    found = {}
    for label, count in (("alone", 1), ("64 lanes", 64)):
        batch = images[:count]
        both = shvc_codec.codec(twin, batch.shape if count > 1 else batch[0].shape)
        value = batch if count > 1 else batch[0]
        encode, decode = [], []
        for _ in range(repeats):
            stack = Lanes([BitStack() for _ in batch]) if count > 1 else BitStack()
            times = [time.perf_counter()]
            for action in (lambda: both.push(stack, value), lambda: both.pop(stack)):
                action()
                times.append(time.perf_counter())
            encode.append(times[1] - times[0])
            decode.append(times[2] - times[1])
        found[f"encode {label}"], found[f"decode {label}"] = count / min(encode), count / min(decode)
    return found


class _Counting:
    """A binary file that counts the bytes read."""

    def __init__(self, file):
        self._file, self.count = file, 0

    def seek(self, *arguments):
        return self._file.seek(*arguments)

    def read(self, size):
        data = self._file.read(size)
        self.count += len(data)
        return data

    def close(self):
        self._file.close()


def parallel(images, chosen):
    """The same album by 1, 2 and 4 processes, and one image of it: a dict with the SHA-256 of each and the bytes that were read."""
    sums = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2, 4):
            path = album.write(Path(folder) / f"{workers}.shva", images, ARIB, workers)
            sums[str(workers)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        size = Path(path).stat().st_size
        with album.Album(counting := _Counting(open(path, "rb"))) as pictures:
            if not np.array_equal(pictures[chosen], images[chosen]):
                raise InvalidInput(f"image {chosen} did not come back")
            read, stream = counting.count, len(pictures._stream(chosen))
    return {"images": len(images), "bytes": size, "sha256": sums,
            "random_access": {"image": chosen, "bytes_read": read, "stream_bytes": stream, "file_bytes": size}}


def classical(images, codecs=("PNG", "WebP slowest", "JPEG XL effort 9")):
    """{codec: mean bits per image}, actual: every image a file of its own, header included, decoded and compared."""
    files = [anchors.lossless(image, codecs) for image in images]
    return {name: float(np.mean([8 * anchor.bytes for row in files for anchor in row if anchor.name == name])) for name in codecs}


def main(args, circumstances):
    """Print what was measured; keep it in `args.json`."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    torch.set_num_threads(1)
    images = data.cifar10("test", args.count)
    batches = [images[i:i + BATCH] for i in range(0, len(images), BATCH)]
    networks, rows = {name: zoo.load(name) for name in (SHVC, ARIB, DETERMINISTIC)}, {}
    for name, twin in networks.items():
        streams, parts = [], []
        for batch in batches:
            if name == SHVC:
                parts.append(with_initial_bits(twin, batch))
            else:
                own, row = alone(twin, batch)
                streams += own
                parts.append(row)
        if streams:
            decoded_alone(twin, images, streams)
        ideal = negative_elbo(twin, images)["total"] * images[0].size
        rows[name] = {"ideal": ideal, **{key: [int(v) for part in parts for v in part[key]] for key in parts[0]}}
        means = ", ".join(f"{key} {np.mean(values):9.1f}" for key, values in rows[name].items())
        print(f"{name:28} {means} bits per image", flush=True)
    net, initial = np.array(rows[SHVC]["net"]), np.array(rows[SHVC]["initial"])
    for name in (ARIB, DETERMINISTIC):
        extra = np.array(rows[name]["bits"]) - net
        print(f"{name:28} {extra.mean():+8.1f} +- {extra.std() / len(extra)**0.5:.1f} bits beyond SHVC's net, which borrows {initial.mean():.1f} initial bits")
    arib = rows[ARIB]
    print(f"H_p(rest) >= H_q(z) for {len(images) - sum(arib['overdrawn'])} of {len(images)} images; the others were overdrawn")
    others = classical(images)
    print(", ".join(f"{name} {bits:.1f}" for name, bits in others.items()) + " bits per image, each a file of its own")
    edges = {}
    for name, image in edge_images().items():
        streams, row = alone(networks[ARIB], image[None])
        decoded_alone(networks[ARIB], image[None], streams)
        edges[name] = {key: int(value[0]) for key, value in row.items()}
        print(f"{name:14} " + ", ".join(f"{k} {v}" for k, v in edges[name].items()))
    together = parallel(images, len(images) * 7 // 10)
    print(f"album of {together['images']} images, {together['bytes']} bytes, by 1, 2, 4 processes: {len(set(together['sha256'].values()))} different file(s); "
          f"{together['random_access']}")
    rates = {"evaluations": {str(side): evaluations(networks[ARIB], side) for side in (32, 64, 128)}, "images_per_second": speed(networks[ARIB], images)}
    print(rates["evaluations"], {k: round(v, 1) for k, v in rates["images_per_second"].items()})
    if args.json:
        result = {"description": f"The first {len(images)} test images of CIFAR-10, each coded by itself; bits per image, actual (ideal: mean negative ELBO); "
                                 "edge: images of 32 x 32 that are no photographs; every stream decoded alone and compared",
                  **circumstances, "images": len(images), "models": rows, "classical": others, "edge": edges, "parallel": together, "speed": rates}
        write_bytes(args.json, (json.dumps(result) + "\n").encode())
