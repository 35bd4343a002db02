"""`python -m shvc_lib.bench bits-back`: images per second of bits-back coding, the networks and the coder apart.

One process, one thread, one core, and one run for all rows. Every chain is coded and decoded; the images and the initial bits must come back.
The time is the processor's, not the wall clock's, and of every image the best of several repeats, for what else runs on a machine also empties its caches; what
passes inside the networks is measured within the same repeat, everything else is the coder: integer CDFs, the stack, and Python in between.
The smallest model has the size of the VAE that bits-back coding with ANS was published with, and its row is compared with the times that were measured
of that code; the row below has the same networks and the same integers but codes symbol by symbol in Python, with the book's teaching coder.
"""

import os
import time
from bisect import bisect_right
from contextlib import contextmanager

import numpy as np
import torch

from . import data, zoo
from .coding import RANS, BitStack
from .coding.bits_back import bb_ans, bit_swap
from .coding.lanes import Lanes
from .errors import InvalidInput
from .models import binary_vae, vae_codec
from .recipes import Recipe
from .train import Run

BINARY = Recipe("binary", "BinaryVAE", data="binary patches of the photographs", batch=32, steps=2000, learning_rate=3e-3, warmup=50)
PUBLISHED = {"encode": 30e-3, "decode": 48e-3}  # seconds per image, Townsend et al.'s code: 784 binary pixels, 40 latents, batch 1; measured elsewhere
DEEPER = ("vae-stochastic-1", "vae-stochastic-2", "vae-stochastic-4")  # one, two and four levels of latents on 32 x 32 x 3
INITIAL_BITS = 1 << 16


class PythonStack:
    """What codecs ask of a BitStack, done by `coding.RANS`: the same words, one symbol at a time. `words`: of the stack to begin with."""

    def __init__(self, words):
        self._rans = RANS(words)

    def words(self):
        return self._rans.words()

    def copy(self):
        return PythonStack(self.words())

    def restore(self, other):
        self._rans = RANS(other.words())

    def push(self, symbols, cdf):
        for start, freq in zip(*(values[::-1].tolist() for values in cdf.intervals(symbols))):
            self._rans.push(start, freq)

    def pop(self, cdf, count=None):
        symbols = []
        for masses in cdf.masses(0, int(np.prod(cdf.shape))):
            ends = np.cumsum(masses).tolist()
            symbols.append(bisect_right(ends, self._rans.peek()))
            self._rans.pop(ends[symbols[-1]] - int(masses[symbols[-1]]), int(masses[symbols[-1]]))
        return (np.array(symbols).reshape(cdf.shape) + cdf.lower).astype(np.int32)


@contextmanager
def _one_core():
    """One thread on one core, where the system lets a process choose; as before afterwards."""
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        torch.set_num_threads(1)
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


class _Clock:
    """Tells how long something took and how much of it passed inside a twin's networks, while this is its context."""

    def __init__(self, twin):
        self.twin, self.names = twin, [name for name in ("posterior", "prior", "likelihood") if hasattr(twin, name)]

    def run(self, function, *arguments):
        """((seconds, seconds inside the networks), what the function returned)."""
        self.seconds, started = 0.0, time.process_time()
        result = function(*arguments)
        return (time.process_time() - started, self.seconds), result

    def __enter__(self):
        for name in self.names:
            setattr(self.twin, name, self._timed(getattr(self.twin, name)))
        return self

    def __exit__(self, *_):
        for name in self.names:
            delattr(self.twin, name)  # what the class defines is visible again

    def _timed(self, method):
        def call(*arguments):
            started = time.process_time()
            result = method(*arguments)
            self.seconds += time.process_time() - started
            return result
        return call


def measure(name, twin, codec, values, stack, repeats=3):
    """One row: a dict with seconds per image of encoding and decoding `values`, one after the other, on a copy of `stack`, and of the networks' share.

    values: images, or batches of images when `stack` is `Lanes`. Raises AssertionError if an image or an initial bit does not come back.
    """
    row, times = {"name": name, "lanes": len(stack.stacks) if isinstance(stack, Lanes) else 1}, {"encode": [], "decode": []}
    with _Clock(twin) as clock:
        for _ in range(repeats):
            message = stack.copy()
            times["encode"].append([clock.run(codec.push, message, value)[0] for value in values])
            coded = message.copy()
            popped = [clock.run(codec.pop, message) for _ in values][::-1]
            times["decode"].append([seconds for seconds, _ in popped])
            if not np.array_equal([value for _, value in popped], values) or not np.array_equal(_words(message), _words(stack)):
                raise AssertionError(f"{name}: an image or the initial bits did not come back")
    images = row["images"] = len(values) * row["lanes"]
    for way, seconds in times.items():  # (repeats, values, 2)
        seconds = np.array(seconds)
        best = seconds[seconds[..., 0].argmin(0), np.arange(len(values))]
        row[way], row[way + "_network"] = (best.sum(0) / images).tolist()
    return row | {"bits_per_dim": 32 * (len(_words(coded)) - len(_words(stack))) / np.size(values), "words": _words(coded)}


def _words(stack):
    return np.concatenate([lane.words() for lane in stack.stacks]) if isinstance(stack, Lanes) else np.array(stack.words())


def train_binary(steps=BINARY.steps):
    """The exact twin of a BinaryVAE, trained for some seconds on four of the embedded photographs."""
    run = Run(BINARY)
    images = binary_vae.binary_patches([data.photograph(name) for name in data.PHOTOGRAPHS if name != "coffee"], 8192)
    for _ in range(steps):
        run.advance(torch.from_numpy(images))
    return binary_vae.exact_twin(run.model.eval(), images[:64])


def binary_rows(twin, count=200, lanes=50, repeats=8):
    """Rows of the BinaryVAE on `count` held-out images: one chain, the same with the teaching coder, and a batch in lanes."""
    images, shape = binary_vae.binary_patches([data.photograph("coffee")], count, seed=1), (binary_vae.SIDE, binary_vae.SIDE, 1)
    stack = BitStack.random(INITIAL_BITS)
    chain = measure("BinaryVAE", twin, binary_vae.codec(twin), images, stack, repeats)
    plain = measure("BinaryVAE, plain Python coder", twin, binary_vae.codec(twin), images, PythonStack(stack.words()), repeats)
    if not np.array_equal(chain["words"], plain["words"]):
        raise AssertionError("the two coders wrote other words")
    batches = images[:count // lanes * lanes].reshape(-1, lanes, *shape)
    return [chain, plain, measure("BinaryVAE", twin, binary_vae.codec(twin, (lanes, *shape)), batches, _lanes(lanes), repeats)]


def _lanes(number):
    return Lanes([BitStack.random(INITIAL_BITS, seed) for seed in range(number)])


def photograph_rows(name, count=64, lanes=64, repeats=3):
    """Rows of a trained network (`zoo`) on `count` tiles of 32 x 32 x 3: every schedule, one chain and a batch in lanes."""
    if count % lanes:
        raise InvalidInput(f"{count} images cannot be shared out evenly to {lanes} lanes")
    twin, images = zoo.load(name), data.patches([data.photograph("coffee")[::2, ::2]], 32, count, seed=1)
    for label, schedule in {"no latents back": bit_swap}.items() if twin.deterministic else {"Bit-Swap": bit_swap, "BB-ANS": bb_ans}.items():
        codec = vae_codec.codec(twin, images[0].shape, schedule)
        yield measure(f"{name}, {label}", twin, codec, images, BitStack.random(INITIAL_BITS), repeats)
        codec = vae_codec.codec(twin, (lanes, *images[0].shape), schedule)
        yield measure(f"{name}, {label}", twin, codec, images.reshape(-1, lanes, *images[0].shape), _lanes(lanes), repeats)


def main(names):
    """Print the table for the BinaryVAE and the networks of these names, by default `DEEPER`. Raises UnknownModel before anything is measured."""
    for name in names or DEEPER:
        zoo.card(name)
    with _one_core():
        binary = binary_rows(train_binary())
        print("Processor time of one thread on one core, each image's best repeat. ms: per image; net: in the networks; coder: the rest, integer CDFs too.")
        print(f"{'':36} {'':>5} {'':>9} {'':>9} | {'encode':^36} | {'decode':^36}")
        columns = f"{'images/s':>9} {'ms':>8} {'net':>8} {'coder':>8}"
        print(f"{'model, schedule':36} {'lanes':>5} {'images':>9} {'bits/dim':>9} | {columns} | {columns}")
        for row in binary:
            _print(row)
        for name in names or DEEPER:
            for row in photograph_rows(name):
                _print(row)
        chain, plain, _ = binary
        print("\nBinaryVAE, batch 1, times as fast as                          encode   decode")
        print(f"the published code's {1e3 * PUBLISHED['encode']:.0f} / {1e3 * PUBLISHED['decode']:.0f} ms an image (measured elsewhere) "
              f"{PUBLISHED['encode'] / chain['encode']:8.0f} {PUBLISHED['decode'] / chain['decode']:8.0f}")
        print(f"the plain Python coder, everything else the same (this run)  {plain['encode'] / chain['encode']:8.1f} {plain['decode'] / chain['decode']:8.1f}")


def _print(row):
    def way(key):
        seconds, network = row[key], row[key + "_network"]
        return f"{1 / seconds:9.0f} {1e3 * seconds:8.3f} {1e3 * network:8.3f} {1e3 * (seconds - network):8.3f}"

    print(f"{row['name']:36} {row['lanes']:5d} {row['images']:9d} {row['bits_per_dim']:9.3f} | {way('encode')} | {way('decode')}", flush=True)
