"""Benchmarks with a table: `python -m shvc_lib.bench coding` and `python -m shvc_lib.bench images`.

`coding` times mixture-of-5-logistics symbols over 256 levels, every symbol with parameters of its own, from integer parameters to words
and back, integer CDFs included, on one thread; beside it constriction's own `CustomModel`, which calls Python for every CDF
value. `images` codes the embedded photographs (or a folder) with the models and the classical codecs. Times are the best of
several runs, all in one process: compare columns, not machines.
"""

import argparse
import math
import os
import platform
import sys
import time

import constriction
import numpy as np

from . import anchors, codec, data, models
from .coding import BitStack, logistic_mixture, mean_index, scale_index, weight_index
from .errors import ShvcError


def _best(function, repeats):
    """(best seconds, last result) of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def _symbols(count, seed=0):
    """Random mixtures of 5 logistics (integer parameters) and symbols drawn near their means."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(20, 235, (count, 1))
    means = centres + rng.normal(0, 10, (count, 5))
    scales = np.exp(rng.uniform(-0.5, 3, (count, 5)))
    weights = rng.dirichlet(np.ones(5), count)
    symbols = np.clip(np.rint(means[:, 0] + rng.logistic(0, 1, count) * scales[:, 0]), 0, 255).astype(np.int32)
    return mean_index(means), scale_index(scales), weight_index(weights), symbols


def _custom_model(means, scales, weights, symbols):
    """The same symbols through constriction's CustomModel: (encode seconds, decode seconds)."""
    def cdf(x, *parameters):
        m, s, w = parameters[:5], parameters[5:10], parameters[10:]
        return sum(w[k] / (1 + math.exp(-max(-700.0, min(700.0, (x - m[k]) / s[k])))) for k in range(5))

    def quantile(q, *parameters):  # bisection over the 256 levels
        low, high = 0, 255
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if cdf(middle + 0.5, *parameters) >= q else (middle + 1, high)
        return low

    model = constriction.stream.model.CustomModel(cdf, quantile, 0, 255)
    columns = [np.ascontiguousarray(c, dtype=np.float64) for table in (means / 16, np.exp((scales - 48) / 16), weights / 4096) for c in table.T]
    coder = constriction.stream.stack.AnsCoder()
    started = time.perf_counter()
    coder.encode_reverse(symbols, model, *columns)
    encoded = time.perf_counter()
    decoded = coder.decode(model, *columns)
    finished = time.perf_counter()
    if not (decoded == symbols).all():
        raise AssertionError("constriction's CustomModel decoded other symbols")
    return encoded - started, finished - encoded


def coding(count=1 << 18, custom_count=1 << 13, repeats=5):
    """Rows (name, symbols, encode seconds, decode seconds, ideal bits, actual bits) of the coding benchmark."""
    means, scales, weights, symbols = _symbols(count)

    def encode():
        stack = BitStack()
        stack.push(symbols, logistic_mixture(means, scales, weights))
        return stack

    encode()  # the first run builds the integer tables, once per process
    seconds_encode, stack = _best(encode, repeats)
    data_bytes = stack.to_bytes()
    seconds_decode, decoded = _best(lambda: BitStack.from_bytes(data_bytes).pop(logistic_mixture(means, scales, weights)), repeats)
    if not (decoded == symbols).all():
        raise AssertionError("BitStack decoded other symbols")
    ideal = float(logistic_mixture(means, scales, weights).bits(symbols).sum())
    part = slice(0, custom_count)
    custom = _custom_model(means[part], scales[part], weights[part], symbols[part])
    return [("shvc_lib BitStack, integer CDFs", count, seconds_encode, seconds_decode, ideal, 8 * len(data_bytes)),
            ("constriction CustomModel", custom_count, *custom, None, None)]


def images(pictures, model_names):
    """Rows (image, codec, bytes, bits per sub-pixel, encode seconds, decode seconds); every file decoded and compared."""
    rows = []
    for name, image in pictures:
        for model in model_names:
            seconds_encode, file = _best(lambda: codec.encode(image, model), 1)
            seconds_decode, back = _best(lambda: codec.decode(file), 1)
            if not (back == image).all():
                raise AssertionError(f"{model} changed {name}")
            rows.append((name, model, len(file), 8 * len(file) / image.size, seconds_encode, seconds_decode))
        rows += [(name, a.name, a.bytes, a.bits_per_dim, a.seconds_encode, a.seconds_decode)
                 for a in anchors.lossless(image)]
    return rows


def main(argv=None):
    """Print one benchmark's table; returns the exit status."""
    top = argparse.ArgumentParser(prog="python -m shvc_lib.bench", description=__doc__.split("\n")[0])
    commands = top.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("coding", help="symbols per second of the entropy coder")
    sub.add_argument("--symbols", type=int, default=1 << 18)
    sub = commands.add_parser("images", help="bytes and seconds of whole images")
    sub.add_argument("--images", metavar="DIR", help="a folder of images (default: the embedded photographs)")
    args = top.parse_args(argv)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    try:
        if args.command == "coding":
            rows = coding(args.symbols)
            print(f"{'coder':34} {'symbols':>9} {'encode M/s':>11} {'decode M/s':>11} {'ideal bits':>12} {'actual bits':>12} {'overhead':>9}")
            for name, count, enc, dec, ideal, actual in rows:
                bits = f"{ideal:12.0f} {actual:12d} {actual - ideal:9.0f}" if ideal else ""
                print(f"{name:34} {count:9d} {count / enc / 1e6:11.2f} {count / dec / 1e6:11.2f} {bits}")
        else:
            pictures = data.folder(args.images) if args.images else [(n, data.photograph(n)) for n in data.PHOTOGRAPHS]
            print(f"{'image':24} {'codec':22} {'bytes':>9} {'bits/sub-pixel':>15} {'encode s':>9} {'decode s':>9}")
            for name, coder, size, rate, enc, dec in images(pictures, list(models.MODELS)):
                print(f"{str(name)[-24:]:24} {coder:22} {size:9d} {rate:15.3f} {enc:9.2f} {dec:9.2f}")
    except ShvcError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
