"""`python -m shvc_lib.bench subpixel`: what each dependency of an SHVC is worth, by training small ones that differ in one thing.

All have two levels of latents and networks of width 24, see the same batches of CIFAR-10 in the same order (a function of the seed and the step), and
are measured on the same test images with the same noise. Some answer Figure 5 of the paper (the order of eq 8 against that of eq 5), some Figure 6
(k = 1, 2, 4, 8), the others take something away: weak autoregression, or the linear skips. Chapter 5 shows the result, data/results/subpixel_ablations.json.
"""

import json
from pathlib import Path

import numpy as np
import torch

from . import data, recipes, train
from .images import write_bytes
from .models.shvc import BINS_PER_UNIT, LOWEST, SIZE

_BASE = {"levels": 2, "width": 24, "blocks": 1, "bfloat": True}
_CHANGES = {
    "eq 8": {}, "eq 5": {"order": "channel"},
    "k = 1": {"k": 1}, "k = 4": {"k": 4}, "k = 8": {"k": 8},
    "not weak": {"weak": False}, "k = 1, not weak": {"k": 1, "weak": False},
    "means": {"skips": "means"}, "no skips": {"skips": "none"}, "eq 5, no skips": {"skips": "none", "order": "channel"},
}
SEEDS = {"eq 8": 2, "eq 5": 2, "no skips": 2, "eq 5, no skips": 2, "k = 1": 2, "k = 4": 2, "k = 8": 2}  # the others: one
RUNS = [(name, seed) for seed in range(2) for name in _CHANGES if seed < SEEDS.get(name, 1)]
EVERY = 100  # steps that a point of a curve averages


def recipe_of(name, seed, steps):
    """The Recipe of one run."""
    return recipes.Recipe(f"subpixel {name}", "SHVC", {**_BASE, **_CHANGES[name]}, batch=8, steps=steps, learning_rate=5e-3, warmup=50, ema=0.98, seed=seed)


def measure(model, images, draws=2):
    """A dict: `bits_per_dim`, the negative ELBO, and its `parts`, of uint8 images (N, H, W, 3); `densities`: how often the latents of each level, in bins, have
    each of the values -128 ... 127, over all channels, as shares."""
    batch, parts = torch.from_numpy(images).permute(0, 3, 1, 2), {}
    counts = np.zeros((model.levels, SIZE))
    with torch.no_grad():
        for seed in range(draws):
            generator = torch.Generator().manual_seed(seed)
            for part in batch.split(100):
                noise = model.noise(len(part), generator, part.shape[-1])
                bits, report = model.loss(part, noise)
                for key, value in {"bits_per_dim": bits, **report}.items():
                    parts[key] = parts.get(key, 0.0) + float(value) * len(part) / len(batch) / draws
                below = model.pixels(part)
                for level, uniform in enumerate(noise, 1):
                    z = model.sample(*model.posterior(level, below), uniform).round().clamp(LOWEST, LOWEST + SIZE - 1)
                    counts[level - 1] += np.bincount((z.long() - LOWEST).flatten().numpy(), minlength=SIZE)
                    below = z / BINS_PER_UNIT
    densities = counts / counts.sum(1, keepdims=True)
    return {"bits_per_dim": parts.pop("bits_per_dim"), "parts": parts, "densities": [[round(float(v), 6) for v in row] for row in densities]}


def trained(name, seed, steps, images):
    """(the SHVC of one run with its averaged weights, bits per dimension while training: the mean of each `EVERY` steps, the first point before the first)."""
    run = train.Run(recipe_of(name, seed, steps))
    run.begin(images, None)
    curve, recent = [], []
    torch.set_flush_denormal(True)
    while run.step < steps:
        recent.append(run.advance(images)["bits_per_dim"])
        if run.step % EVERY == 0:
            curve.append(float(np.mean(recent)))
            recent = []
    torch.set_flush_denormal(False)
    run.model.load_state_dict(run.average)
    return run.model.eval(), curve


def main(args, circumstances):
    """Train and measure every run that `args.json` does not hold yet; a row each."""
    torch.set_num_threads(1)
    path = Path(args.json) if args.json else None
    kept = json.loads(path.read_text()) if path and path.exists() else {
        "description": f"Small SHVCs on CIFAR-10, {args.steps} steps of 8 images each. bits_per_dim: negative ELBO (ideal) on the first "
                       f"{args.count} test images, two draws of z; "
                       f"curve: while training, means of {EVERY} steps; densities: of each level's latents, in bins from {LOWEST}", "steps": args.steps,
                       **circumstances, "runs": {}}
    images, test = train._images(recipe_of("eq 8", 0, args.steps)), data.cifar10("test", args.count)
    for name, seed in RUNS:
        key = f"{name}, seed {seed}"
        if key in kept["runs"] or (args.names and name not in args.names):
            continue
        model, curve = trained(name, seed, args.steps, images)
        row = measure(model, test)
        kept["runs"][key] = {"parameters": sum(p.numel() for p in model.parameters()), **row, "curve": [round(v, 5) for v in curve],
                             "commit": circumstances["commit"]}
        print(f"{key:28} {row['bits_per_dim']:.4f} bits per dimension, " + ", ".join(f"{k} {v:.4f}" for k, v in row["parts"].items()), flush=True)
        if path:
            latest = json.loads(path.read_text()) if path.exists() else kept
            latest["runs"] = {**latest["runs"], key: kept["runs"][key]}
            write_bytes(args.json, (json.dumps(latest, indent=1) + "\n").encode(), force=True)
