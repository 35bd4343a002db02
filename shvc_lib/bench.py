"""Benchmarks with a table: `python -m shvc_lib.bench coding`, `images`, `chains`, `bits-back`, `ladder`, `discretized`, `through`, `subpixel`,
`arib`, `shvc`, `photographs`, `miracle` and `sampling`.

`coding` times mixture-of-5-logistics symbols over 256 levels, every symbol with parameters of its own, from integer parameters to words
and back, integer CDFs included, on one thread; beside it constriction's own `CustomModel`, which calls Python for every CDF
value. Times are the best of several runs, all in one process: compare columns, not machines. `images` codes photographs (embedded, Kodak's, or a
folder's) with the models and the classical codecs; `--json` keeps the sizes as data/results does (times belong to a machine and an hour).
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import constriction
import numpy as np

from . import __version__, anchors, codec, data, models
from .coding import BitStack, logistic_mixture, mean_index, scale_index, weight_index
from .errors import InvalidInput, ShvcError
from .images import write_bytes

SLOWEST = ("PNG", "WebP slowest", "JPEG-LS", "JPEG 2000", "JPEG XL effort 9")


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


def images(pictures, model_names, codecs=None):
    """One dict per image and codec: image, codec, bytes, bits_per_dim (actual), seconds_encode, seconds_decode.

    pictures: pairs (name, image); model_names: models of `shvc_lib`; codecs: names from `anchors.LOSSLESS`, by default the quick ones. Every file is decoded
    and compared.
    """
    for name, image in pictures:
        for model in model_names:
            seconds_encode, file = _best(lambda: codec.encode(image, model), 1)
            seconds_decode, back = _best(lambda: codec.decode(file), 1)
            if not (back == image).all():
                raise AssertionError(f"{model} changed {name}")
            yield {"image": str(name), "codec": model, "bytes": len(file), "bits_per_dim": 8 * len(file) / image.size,
                   "seconds_encode": seconds_encode, "seconds_decode": seconds_decode}
        for anchor in anchors.lossless(image, codecs):
            yield {"image": str(name), "codec": anchor.name, "bytes": anchor.bytes, "bits_per_dim": anchor.bits_per_dim,
                   "seconds_encode": anchor.seconds_encode, "seconds_decode": anchor.seconds_decode}


def means(rows):
    """Mean bits per sub-pixel over the images, by codec."""
    rates = {}
    for row in rows:
        rates.setdefault(row["codec"], []).append(row["bits_per_dim"])
    return {name: sum(values) / len(values) for name, values in rates.items()}


def _circumstances(argv):
    """How a result was made: what every file in data/results says."""
    packages = ("numpy", "scipy", "constriction", "Pillow", "imagecodecs")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True) if shutil.which("git") else None
    return {"command": "python -m shvc_lib.bench " + " ".join(argv), "date": datetime.date.today().isoformat(),
            "commit": git.stdout.strip() if git and not git.returncode else f"version {__version__}",
            "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores, no GPU", "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name.replace("Pillow", "PIL"))}}


def main(argv=None):
    """Print one benchmark's table; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    top = argparse.ArgumentParser(prog="python -m shvc_lib.bench", description=__doc__.split("\n")[0])
    commands = top.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("coding", help="symbols per second of the entropy coder")
    sub.add_argument("--symbols", type=int, default=1 << 18)
    sub = commands.add_parser("images", help="bytes and seconds of whole images")
    sub.add_argument("--images", metavar="SET", default="photographs", help="photographs (embedded, the default), kodak, or a folder of images")
    sub.add_argument("--slowest", action="store_true", help="the classical codecs at their slowest and best settings")
    sub.add_argument("--json", metavar="OUT", help="also write the rows to this file (never over an existing one)")
    sub = commands.add_parser("chains", help="CIFAR-10 chained by bits-back coding, with every trained VAE")
    sub.add_argument("models", nargs="*", help="names of trained networks (all that fit when none is named)")
    sub.add_argument("--count", type=int, default=1000, help="test images in the chain (default 1000)")
    sub.add_argument("--json", metavar="OUT", help="keep the rates in this file; networks that it already describes are not measured again")
    sub = commands.add_parser("bits-back", help="images per second of bits-back coding, networks and coder apart")
    sub.add_argument("models", nargs="*", help="names of trained networks beside the small VAE (three of different depths when none is named)")
    sub = commands.add_parser("ladder", help="rate and distortion of the lossy codec of chapter 3 on Kodak")
    sub.add_argument("models", nargs="*", help="names of ladder networks (all, and the classical codecs, when none is named)")
    sub.add_argument("--count", type=int, default=24, help="photographs (default: all 24)")
    sub.add_argument("--json", metavar="OUT", help="keep the rows in this file; what it already holds is not measured again")
    sub = commands.add_parser("discretized", help="rate and distortion of the lossy codecs of chapter 4 on Kodak")
    sub.add_argument("models", nargs="*", help="names of discretised VAEs (all, and the classical codecs, when none is named)")
    sub.add_argument("--count", type=int, default=24, help="photographs (default: all 24)")
    sub.add_argument("--json", metavar="OUT", help="keep the rows in this file; what it already holds is not measured again")
    sub = commands.add_parser("through", help="what stands for rounding while a discretised VAE trains, and two priors")
    sub.add_argument("--start", default="runs/dvae-start", metavar="RUN", help="folder of the run that leaves the first weights (default runs/dvae-start)")
    sub.add_argument("--steps", type=int, default=1500, help="steps for each (default 1500)")
    sub.add_argument("--json", metavar="OUT", help="also write the rows to this file (never over an existing one)")
    sub = commands.add_parser("subpixel", help="small SHVCs that differ in one thing: the order of sub-pixels, k, skips, weak autoregression")
    sub.add_argument("names", nargs="*", help="names of networks (all when none is named)")
    sub.add_argument("--steps", type=int, default=2000, help="training steps for each (default 2000)")
    sub.add_argument("--count", type=int, default=500, help="test images (default 500)")
    sub.add_argument("--json", metavar="OUT", help="keep the rows in this file; what it already holds is not trained again")
    sub = commands.add_parser("arib", help="single images under SHVC, SHVC-ArIB and a deterministic posterior; parallel coding; speed")
    sub.add_argument("--count", type=int, default=1000, help="test images of CIFAR-10 (default 1000)")
    sub.add_argument("--json", metavar="OUT", help="also keep the numbers in this file (never over an existing one)")
    sub = commands.add_parser("shvc", help="CIFAR-10 with every trained SHVC and the classical codecs: Tables 1 and 2 of the paper")
    sub.add_argument("--count", type=int, default=1000, help="test images (default 1000); ten times as many training images are evaluated for the time")
    sub.add_argument("--before", metavar="JSON", help="an earlier result: take over what it says of networks that are the same, of the classical codecs, and of time")
    sub.add_argument("--json", metavar="OUT", help="also keep the numbers in this file (never over an existing one)")
    sub = commands.add_parser("photographs", help="bytes and seconds of whole photographs by shvc-photo and others of ours, beside JPEG XL and others")
    sub.add_argument("--images", metavar="SET", default="kodak", help="kodak (the default), photographs (embedded), or a folder of images")
    sub.add_argument("--json", metavar="OUT", help="also keep the numbers in this file (never over an existing one)")
    sub = commands.add_parser("miracle", help="accuracy against bytes for a network's weights: MIRACLE and quantised weights")
    sub.add_argument("--json", metavar="OUT", help="also write the rows to this file (never over an existing one)")
    sub = commands.add_parser("sampling", help="every coded sampler on the same targets, and the seconds of the lossy codec's parts")
    sub.add_argument("--samples", type=int, default=4096, help="dimensions in each row (default 4096)")
    args = top.parse_args(argv)
    try:
        if getattr(args, "json", None) and not Path(args.json).absolute().parent.is_dir():
            raise InvalidInput(f"{args.json}: its folder does not exist")
        {"coding": _main_coding, "images": _main_images, "chains": _main_chains, "bits-back": _main_bits_back, "ladder": _main_ladder,
         "discretized": _main_discretized, "through": _main_through, "subpixel": _main_subpixel,
         "arib": _main_arib, "shvc": _main_shvc, "photographs": _main_photographs,
         "miracle": _main_miracle, "sampling": _main_sampling}[args.command](args, argv)
    except ShvcError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _main_coding(args, argv):
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}; one thread")
    print(f"{'coder':34} {'symbols':>9} {'encode M/s':>11} {'decode M/s':>11} {'ideal bits':>12} {'actual bits':>12} {'overhead':>9}")
    for name, count, encode, decode, ideal, actual in coding(args.symbols):
        bits = f"{ideal:12.0f} {actual:12d} {actual - ideal:9.0f}" if ideal else ""
        print(f"{name:34} {count:9d} {count / encode / 1e6:11.2f} {count / decode / 1e6:11.2f} {bits}")


def _main_chains(args, argv):
    from . import bench_chains  # needs torch, which the other benchmarks do without

    bench_chains.main(args, _circumstances(argv))


def _main_bits_back(args, argv):
    from . import bench_speed  # needs torch, too

    bench_speed.main(args.models)


def _main_miracle(args, argv):
    from . import bench_miracle  # needs torch, too

    bench_miracle.main(args, _circumstances(argv))


def _main_ladder(args, argv):
    from . import bench_ladder  # needs torch, too

    bench_ladder.main(args, _circumstances(argv))


def _main_discretized(args, argv):
    from . import bench_discretized  # needs torch, too

    bench_discretized.main(args, _circumstances(argv))


def _main_through(args, argv):
    from . import bench_through  # needs torch, too

    bench_through.main(args, _circumstances(argv))


def _main_subpixel(args, argv):
    from . import bench_subpixel  # needs torch, too

    bench_subpixel.main(args, _circumstances(argv))


def _main_arib(args, argv):
    from . import bench_arib  # needs torch, too

    bench_arib.main(args, _circumstances(argv))


def _main_shvc(args, argv):
    from . import bench_shvc  # needs torch, too

    bench_shvc.main(args, _circumstances(argv))


def _main_photographs(args, argv):
    from . import bench_photographs  # needs torch, too

    bench_photographs.photographs(args, _circumstances(argv))


def _main_sampling(args, argv):
    from . import bench_sampling

    bench_sampling.main(args.samples)


def _main_images(args, argv):
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    rows, (pictures, note) = [], data.pictures(args.images, lambda image: "16 bits per sample" if image.dtype == np.uint16 else "")
    sys.stderr.write(note)
    print(f"{'image':24} {'codec':20} {'bytes':>9} {'bits/sub-pixel':>15} {'encode s':>9} {'decode s':>9}")
    for row in images(pictures, list(models.MODELS), SLOWEST if args.slowest else None):
        rows.append(row)
        print(f"{row['image'][-24:]:24} {row['codec']:20} {row['bytes']:9d} {row['bits_per_dim']:15.3f} "
              f"{row['seconds_encode']:9.2f} {row['seconds_decode']:9.2f}", flush=True)
    for name, rate in means(rows).items():
        print(f"{'mean of ' + str(len(pictures)):24} {name:20} {'':9} {rate:15.3f}")
    if args.json:
        result = {"description": f"Actual bits per sub-pixel, lossless, every file decoded and compared; images: {args.images}",
                  **_circumstances(argv), "mean_bits_per_dim": means(rows),
                  "rows": [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]}
        write_bytes(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
