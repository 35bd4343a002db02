"""`python -m shvc_lib.bench sampling`: every coded sampler on the same Gaussian targets, then the lossy image codec's seconds by part.

The targets have scale s = 2^-KL in units of their proposal and means at distance sqrt(1 - s^2), as far as targets are that average to the proposal; their
divergence is KL bits exactly. Two tables: KL bits for every dimension, and KL bits for every block of eight. Every index goes into a file
and comes back. The bias is the Kolmogorov-Smirnov distance of (sample - mean) / scale from N(0, 1), all dimensions together.

What the indices cost is said in `bench_samplers`. The codec's seconds are the wall clock's, on all cores, of the fastest of some repeats: networks,
sampler (agreeing on bits, search, candidates), and the rest, which is the coder.
"""

import math
import os
import platform
import time
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from scipy import stats

from . import codec as files
from . import data, lossy, metrics, zoo
from .bench_samplers import SEED, WIDTH, in_blocks, one_by_one
from .coding import BitStack
from .coding.checks import integer
from .errors import InvalidInput, MissingData
from .sampling import Gaussian, dither, tree

DIVERGENCES = (0.5, 1, 2, 4, 8)
BLOCK = 8
MOST_RATIO = 12  # log2 of the largest q / p of a block, above which the exact sampler of blocks is left out: it takes as many candidates


def gaussians(kl, shape):
    """(target, proposal) of that shape, `kl` bits for each dimension."""
    scale = 2.0**-kl
    return Gaussian(np.full(shape, math.sqrt(1 - scale**2)), scale), Gaussian(np.zeros(shape), 1)


def measure(sampler, target, proposal):
    """One row: a dict of bits (ideal, actual) by sample, bias, candidates by sample, and seconds for 1000 samples. A sample is a dimension, or a block.

    Raises AssertionError if an index does not come back from its file.
    """
    samples = target.shape[0]
    seconds, index = _timed(sampler.encode, target, proposal, SEED)
    code, stack = sampler.codec(index, target, proposal), BitStack()
    code.push(stack, index)
    popped = code.pop(BitStack.from_bytes(stack.to_bytes()))
    if not all(np.array_equal(a, b) for a, b in (zip(index, popped) if isinstance(index, tuple) else [(np.reshape(popped, np.shape(index)), index)])):
        raise AssertionError(f"{sampler.name}: the indices did not come back")
    back, x = _timed(sampler.decode, index, target, proposal, SEED)
    return {"name": sampler.name, "ideal": code.bits(index) / samples, "actual": 8 * len(stack.to_bytes()) / samples,
            "bias": float(stats.kstest(((x - target.mean) / target.scale).reshape(-1), "norm").statistic),
            "looked_at": float(sampler.looked_at(target, proposal, SEED)), "encode": 1000 * seconds / samples, "decode": 1000 * back / samples}


def sampler_rows(samples=4096, divergences=DIVERGENCES):
    """(KL, dimensions of a sample, row) of every sampler: `samples` dimensions, one by one and in blocks of eight."""
    for kl in divergences:
        for sampler in one_by_one():
            yield kl, 1, measure(sampler, *gaussians(kl, (samples,)))
    for kl in divergences:
        target, proposal = gaussians(kl / BLOCK, (samples // BLOCK, BLOCK))
        for sampler in in_blocks():
            if sampler.name != "Poisson functional" or target.max_log_ratio(proposal)[0].sum() < MOST_RATIO * math.log(2):
                yield kl, BLOCK, measure(sampler, target, proposal)


def _timed(function, *arguments):
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def photograph():
    """(what it is, uint8 (512, 768, 3)): Kodak's first image, or an embedded photograph mirrored to its size."""
    try:
        return "Kodak image 1", data.kodak(1)[0]
    except MissingData:
        coffee = data.photograph("coffee")
        return "the embedded photograph coffee, 600 x 400, mirrored to 768 x 512", np.pad(coffee, ((0, 112), (0, 168), (0, 0)), "symmetric")


@contextmanager
def _parts():
    """A dict of the seconds that pass in the codec's networks and in its sampler while this is the context."""
    from .models import ladder_codec  # needs torch

    seconds = {"network": 0.0, "sampler": 0.0}
    networks = [(ladder_codec.Latents, name) for name in ("evidence", "upper", "lower", "picture")]
    samplers = [(tree, name) for name in ("plan", "encode", "standard")] + [(dither, name) for name in ("encode", "decode")]

    def timed(part, function):
        def call(*arguments, **options):
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] += time.perf_counter() - started
        return call

    with ExitStack() as stack:
        for part, places in (("network", networks), ("sampler", samplers)):
            for owner, name in places:
                stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield seconds


def _by_part(function, repeats):
    """((seconds of networks, sampler, coder), result) of the fastest of some repeats."""
    best = None
    for _ in range(repeats):
        with _parts() as parts:
            seconds, result = _timed(function)
        row = parts["network"], parts["sampler"], seconds - sum(parts.values())
        best = row if best is None or sum(row) < sum(best) else best
    return best, result


def codec_rows(image, names, qualities=None, repeats=3):
    """A row of every network at every quality: a dict with bytes, bits per pixel, PSNR, and seconds of encoding and decoding (networks, sampler, coder)."""
    for name in names:
        for quality in qualities or range(1, lossy.get(name).qualities + 1):
            encode, coded = _by_part(lambda: files.encode(image, name, quality), repeats)
            decode, picture = _by_part(lambda: files.decode(coded), repeats)
            bits_per_pixel = 8 * len(coded) / math.prod(image.shape[:2])
            yield {"name": name, "quality": quality, "bytes": len(coded), "bpp": bits_per_pixel, "psnr": metrics.psnr(image, picture),
                   "encode": encode, "decode": decode}


def main(samples, repeats=3):
    """Print the tables, with `samples` dimensions in each row: a multiple of 32. Networks that are not there are left out. Raises InvalidInput."""
    if integer("samples", samples, WIDTH, 1 << 20) % WIDTH:
        raise InvalidInput(f"samples must be a multiple of {WIDTH}, got {samples}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}.")
    print("A sample is as many dimensions as `dims` says; bits and candidates are those of one, seconds those of 1000 samples.")
    print(f"{samples} dimensions in each row; the distance of as many exact samples from their law is {0.87 / math.sqrt(samples):.3f} on average.")
    print(f"\n{'KL':>4} {'dims':>4} {'sampler':24} {'ideal bits':>10} {'actual bits':>11} {'over KL':>8} {'bias':>6} {'candidates':>10} "
          f"{'encode s':>9} {'decode s':>9}")
    for kl, dims, row in sampler_rows(samples):
        print(f"{kl:4g} {dims:4d} {row['name']:24} {row['ideal']:10.3f} {row['actual']:11.3f} {row['actual'] - kl:8.3f} {row['bias']:6.3f} "
              f"{row['looked_at']:10.1f} {row['encode']:9.4f} {row['decode']:9.4f}", flush=True)
    what, image = photograph()
    print(f"\n{image.shape[1]} x {image.shape[0]}: {what}. Seconds, all cores, best of {repeats}; target: 10 s to encode, 3 s to decode.")
    print(f"{'':31} {'':>6} {'':>6} | {'encode':^35} | {'decode':^35}")
    columns = f"{'network':>8} {'sampler':>8} {'coder':>8} {'all':>8}"
    print(f"{'network':12} {'quality':>7} {'bytes':>10} {'bpp':>6} {'PSNR':>6} | {columns} | {columns}")
    for row in codec_rows(image, [name for name in lossy.ABOUT if name in zoo.names()], repeats=repeats):
        times = " | ".join(" ".join(f"{x:8.3f}" for x in (*row[way], sum(row[way]))) for way in ("encode", "decode"))
        print(f"{row['name']:12} {row['quality']:7d} {row['bytes']:10d} {row['bpp']:6.3f} {row['psnr']:6.2f} | {times}", flush=True)
