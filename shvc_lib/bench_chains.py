"""`python -m shvc_lib.bench chains`: test images of CIFAR-10 chained by bits-back coding, with every trained VAE and both schedules.

Each chain is really coded and decoded: the images must come back, and the initial bits, bit for bit. What is kept is what each image cost
(`coding.bits_back.Ledger`) beside the negative ELBO of the same network on the same images. Chapter 2 shows the result, data/results/bits_back_cifar10.json.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch

from . import data, zoo
from .coding import BitStack
from .coding.bits_back import bb_ans, bit_swap, push_chain
from .errors import InvalidInput
from .images import write_bytes
from .models import vae_codec

INITIAL_BITS = 1 << 18  # random bits under the chain: enough for any first image
SCHEDULES = {"bit_swap": bit_swap, "bb_ans": bb_ans}


def chain(codec, images):
    """Push all `images` (uint8 (N, H, W, 3)) on random bits, pop them again; a dict of what it cost.

    Rates in bits per dimension, `initial_*` in bits. `net` is the growth of the stack; `first_*` what the chain's first image cost; `*_mean`
    and `*_max` are over all images, each as if it came first.
    """
    stack, dimensions = BitStack.random(INITIAL_BITS), images[0].size
    before = stack.copy()
    started = time.perf_counter()
    ledgers = push_chain(codec, images, stack)
    encoded = time.perf_counter()
    net = stack.bits - before.bits
    exact = [np.array_equal(codec.pop(stack), image) for image in images[::-1]]
    decoded = time.perf_counter()
    initial, total = np.array([ledger.initial for ledger in ledgers]), np.array([ledger.total for ledger in ledgers])
    return {"net": net / images.size, "first_initial": int(initial[0]), "first_total": total[0] / dimensions,
            "initial_mean": float(initial.mean()), "initial_max": int(initial.max()), "total_mean": float(total.mean()) / dimensions,
            "round_trip": all(exact), "restored": stack == before,
            "seconds_encode": encoded - started, "seconds_decode": decoded - encoded}


def negative_elbo(model, images, draws=4):
    """Bits per dimension of uint8 images (N, H, W, 3), the mean of several draws of z (one when the posterior is deterministic): a dict with the
    `total` and the parts that `loss` reports."""
    totals, batch = {}, torch.from_numpy(images).permute(0, 3, 1, 2)
    draws = 1 if model.deterministic else draws
    with torch.no_grad():
        for seed in range(draws):
            generator = torch.Generator().manual_seed(seed)
            for part in batch.split(250):
                height, width = part.shape[-2:]
                bits, report = model.loss(part, model.noise(len(part), generator, width if height == width else (height, width)))
                for name, value in {"total": bits, **report}.items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(part) / len(batch) / draws
    return totals


def measure(name, images):
    """One trained VAE on `images`: its entry in the results."""
    card, twin = zoo.card(name), zoo.load(name)
    schedules = {"none": bit_swap} if twin.deterministic else SCHEDULES  # a deterministic posterior lends nothing and needs no schedule
    return {"levels": twin.levels, "kind": name.split("-")[1], "parameters": card["parameters"], "sha256": card["sha256"],
            "elbo": negative_elbo(twin, images)["total"], "elbo_float": card["bits_per_dim"]["float"],
            "schedules": {key: chain(vae_codec.codec(twin, images[0].shape, schedule), images) for key, schedule in schedules.items()}}


def _kept(path, count):
    """The entries of an earlier run's file. Raises InvalidInput for a file of another kind, or of chains of another length: it is left as it is."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["images"] == count:
            return result["models"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput(f"{path}: this file exists and is not one of this benchmark's; name another") from None
    raise InvalidInput(f"{path}: this file holds chains of {result['images']} images, not of {count}; name another")


def main(args, circumstances):
    """Print a row per network and schedule; with `args.json`, keep the rates there, beside those of networks that the file holds already."""
    out = Path(args.json) if args.json else None
    kept = _kept(out, args.count) if out and out.exists() else {}
    images = data.cifar10("test", args.count)
    names = args.models or [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] == "BitsBackVAE"]
    print(f"{'network':20} {'schedule':9} {'-ELBO':>8} {'net':>8} {'gap %':>7} {'initial bits':>13} {'one image':>10} "
          f"{'exact':>6} {'restored':>9} {'s in':>6} {'s out':>6}")
    for name in names:
        if name in kept and kept[name]["sha256"] == zoo.card(name)["sha256"]:
            continue
        entry = measure(name, images)
        for key, row in entry["schedules"].items():
            print(f"{name:20} {key:9} {entry['elbo']:8.4f} {row['net']:8.4f} {100 * (row['net'] / entry['elbo'] - 1):7.3f} {row['initial_mean']:13.0f} "
                  f"{row['total_mean']:10.3f} {row['round_trip']!s:>6} {row['restored']!s:>9} {row['seconds_encode']:6.1f} {row['seconds_decode']:6.1f}",
                  flush=True)
            row.pop("seconds_encode"), row.pop("seconds_decode")  # times belong to a machine and an hour
        kept[name] = entry | {key: circumstances[key] for key in ("date", "commit")}  # the file may grow over several runs
        if out:
            result = {"description": f"The first {args.count} test images of CIFAR-10 in one chain on {INITIAL_BITS} random bits, coded and decoded; "
                                     "rates in bits per dimension, initial_* in bits; elbo is the negative ELBO on the same images, elbo_float that of the "
                                     "network before it was made exact, on the first 1000. The file grew over several runs: each entry has its own date and commit",
                      **circumstances, "images": args.count, "models": dict(sorted(kept.items()))}
            write_bytes(out, (json.dumps(result, indent=1) + "\n").encode(), force=True)
