"""`python -m shvc_lib.bench miracle`: accuracy against bytes for a network's weights, MIRACLE beside quantised and entropy-coded weights.

The network has 64 inputs, 32 hidden units and 10 classes, 2 410 weights. The images are the 1 797 handwritten digits of scikit-learn (8 x 8 pixels), shuffled
by a seed and cut into five folds: each fold is tested by networks that were trained on the other four, so that every image is a test image once. The
folds ignore who wrote a digit. Every file is decoded before it is tested. Chapter 3 shows the result, data/results/miracle.json.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from .errors import InvalidInput
from .images import write_bytes
from .models import bnn, weights

SIZES, FOLDS = (64, 32, 10), 5
BUDGETS, BLOCK, EXTRA_BITS = (400, 800, 1600, 3200), 10, 2  # bits of KL for all weights and for a block; t
STEPS, RETRAIN_STEPS, ROUNDS = 1000, 40, 16
QUANTISED = (8, 6, 5, 4, 3, 2)  # bits per weight before entropy coding
INDEX_BITS, INDICES = 12, 160  # of the files that trade t for KL: as many as of 1 600 bits at t = 2
DRAWS = 10  # exact samples whose accuracies are averaged
DECAY = 1.0  # of the plain network: the best of 0, 0.1, 1, 3 and 10 on the first fold


def folds(seed=0):
    """A list of (training images, labels, test images, labels) per fold: float32 (N, 64) in 0 ... 1, and int64 (N,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    parts = np.array_split(np.random.default_rng(seed).permutation(len(images)), FOLDS)
    rest = [np.concatenate(parts[:i] + parts[i + 1:]) for i in range(FOLDS)]
    return [(images[train], labels[train], images[test], labels[test]) for train, test in zip(rest, parts)]


def plain(images, labels, seed=0):
    """The same network trained the ordinary way (AdamW with weight decay): its weights as matrices."""
    start = bnn.BayesianMLP(SIZES, BLOCK, BLOCK, seed=seed)
    matrices = [torch.from_numpy(matrix).requires_grad_() for matrix in start.weights()]
    optimizer = torch.optim.AdamW(matrices, 1e-2, weight_decay=DECAY)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    images, labels, generator = torch.from_numpy(images), torch.from_numpy(labels), torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (128,), generator=generator)
        hidden = F.relu(images[chosen] @ matrices[0][:-1] + matrices[0][-1])
        loss = F.cross_entropy(hidden @ matrices[1][:-1] + matrices[1][-1], labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(), decay.step()
    return [matrix.detach().numpy() for matrix in matrices]


def deterministic(matrices, fold, network):
    """Rows of one network without randomness: floats and quantised weights."""
    _, _, images, labels = fold
    flat = np.concatenate([matrix.ravel() for matrix in matrices])
    for method, dtype in (("float32", np.float32), ("float16", np.float16)):
        raw = flat.astype(dtype)
        score = weights.accuracy(weights.split(raw.astype(np.float32), SIZES), images, labels)
        yield {"method": method, "network": network, "bytes": raw.nbytes, "deflate_bytes": len(zlib.compress(raw.tobytes(), 9)), "accuracy": score}
    for bits in QUANTISED:
        file = weights.encode(matrices, bits)
        yield {"method": f"quantised {bits}", "network": network, "bytes": len(file), "accuracy": weights.accuracy(weights.decode(file), images, labels)}


def trained(fold, budget, block=BLOCK, extra_bits=EXTRA_BITS, steps=STEPS):
    """A BayesianMLP trained on a fold."""
    model = bnn.BayesianMLP(SIZES, budget, block, extra_bits)
    bnn.fit(model, *fold[:2], steps)
    return model


def coded(model, fold, rule, rounds):
    """One row: a file of the model's weights, decoded and tested. `kl` in bits, of each block at the moment when it was coded."""
    kl, turns = model.block_kl().detach().numpy().copy(), np.array_split(np.arange(len(model.slots)), rounds)
    coming = iter(range(1, rounds))

    def retrain(current):
        turn = next(coming)
        bnn.fit(current, *fold[:2], RETRAIN_STEPS, seed=turn)
        kl[turns[turn]] = current.block_kl().detach().numpy()[turns[turn]]

    file = bnn.encode(model, rule, rounds, retrain)
    return {"method": "miracle", "rule": rule, "rounds": rounds, "block": model.block, "extra_bits": model.extra_bits, "budget": model.block * len(model.slots),
            "kl": float(kl.sum()), "bytes": len(file), "accuracy": weights.accuracy(bnn.decode(file), *fold[2:])}


def exact(model, fold):
    """Two rows without a file: exact samples of the posterior, and its mean."""
    rng, own = np.random.default_rng(0), {"budget": model.block * len(model.slots), "block": model.block, "extra_bits": model.extra_bits,
                                          "kl": float(model.block_kl().sum().detach())}
    yield {"method": "exact samples", **own, "accuracy": float(np.mean([weights.accuracy(model.weights(rng), *fold[2:]) for _ in range(DRAWS)]))}
    yield {"method": "mean", **own, "accuracy": weights.accuracy(model.weights(), *fold[2:])}


def measure(fold):
    """All rows of one fold."""
    yield from deterministic(plain(*fold[:2]), fold, "plain")
    for budget in BUDGETS:
        model = trained(fold, budget)
        yield from exact(model, fold)
        for rule, rounds in (("importance", 1), ("importance", ROUNDS), ("ordered", 1), ("ordered", ROUNDS)):
            yield coded(model, fold, rule, rounds)
    yield from deterministic(model.weights(), fold, f"mean at {BUDGETS[-1]} bits")
    for extra_bits in (0, 4):  # t = 2 is above: 1 600 bits in blocks of 10
        model = trained(fold, INDICES * (INDEX_BITS - extra_bits), INDEX_BITS - extra_bits, extra_bits)
        yield from exact(model, fold)
        for rounds in (1, ROUNDS):
            yield coded(model, fold, "importance", rounds)


def summary(rows):
    """Rows that differ in nothing but the fold, as one: means, and `spread`, the standard deviation of the accuracy over the folds."""
    groups, measured = {}, ("fold", "images", "accuracy", "bytes", "deflate_bytes", "kl")
    for row in rows:
        groups.setdefault(tuple((key, value) for key, value in row.items() if key not in measured), []).append(row)
    for key, group in groups.items():
        means = {name: float(np.mean([row[name] for row in group])) for name in measured[3:] if name in group[0]}
        scores, images = np.array([row["accuracy"] for row in group]), np.array([row["images"] for row in group])
        yield {**dict(key), **means, "folds": len(group), "accuracy": float(scores @ images / images.sum()), "spread": float(scores.std(ddof=len(group) > 1))}


def main(args, circumstances):
    """Print the means over the folds; with `args.json`, write them and all rows there after every fold."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    rows = []
    for number, fold in enumerate(folds()):
        for row in measure(fold):
            rows.append({"fold": number, "images": len(fold[3]), **row})
            print(" ".join(f"{key}={value:.4f}" if isinstance(value, float) else f"{key}={value}" for key, value in rows[-1].items()), flush=True)
        result = {"description": "Weights of a 64-32-10 network for scikit-learn's handwritten digits: bytes of files that were decoded, and the accuracy of "
                                 "what they hold on test images (five folds of 1797 images). kl in bits; budget, block and extra_bits as in models.bnn",
                  **circumstances, "torch": torch.__version__, "sizes": SIZES, "summary": list(summary(rows)), "rows": rows}
        if args.json:
            write_bytes(args.json, (json.dumps(result, indent=1) + "\n").encode(), force=True)
    print()
    for row in summary(rows):
        print(f"{' '.join(str(row[key]) for key in row if key not in ('accuracy', 'spread', 'bytes', 'kl', 'folds')):40} "
              f"{row.get('kl', 0):8.0f} bits of KL {row.get('bytes', 0):8.1f} bytes {100 * row['accuracy']:6.2f} +- {100 * row['spread']:.2f} %")
