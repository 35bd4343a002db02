"""`python -m shvc_lib.bench ladder`: rate and distortion of the image codec of chapter 3 on Kodak, with every way of sending its latents.

For each network, operating point and photograph:

- `theory`: KL + 2 log2(KL + 1) bits and an exact sample of the posterior, what Figure 4.1 of Flamich (2019) calls theoretically optimal;
- `tree`: the file that `shvc encode --model NAME` writes, decoded again;
- `is_gs`: importance sampling for z2 and greedy sampling for z1, the thesis' own choice (`sampling.composite`);
- `ordered`: z2 by the tree, z1 by ordered random coding, in blocks that both ends expect to be worth BLOCK bits;
- `dither`: z2 by the tree, z1 by a dithered grid with uniform noise of the posterior's scale. Its bits are ideal, all others are actual.

The last three are slow or costly and run on the first photographs only. Beside them JPEG, WebP and HEVC intra on the same photographs. Chapter 3 shows
the result, data/results/kodak_coded_sampling.json.
"""

import json
import time
from pathlib import Path

import numpy as np

from . import anchors, codec, data, metrics, zoo
from .coding import BitStack
from .errors import InvalidInput
from .images import write_bytes
from .models import ladder_codec
from .sampling import composite, dither, ordered, poisson, tree

NETWORKS = ("pln", "gamma-pln")
CLASSICAL = ("JPEG", "JPEG 4:4:4", "WebP", "HEVC")
BLOCK, LARGEST_BLOCK, EXTRA_BITS, MOST_BITS = 5, 64, 2, 14  # of `ordered`: bits and dimensions of a block; 2^(KL + 2) candidates, at most 2^14
FEW = 4  # photographs for the slow samplers
PIXELS = 768 * 512


class Image:
    """One photograph under one network at one operating point, with z2 sent by the tree."""

    def __init__(self, network, image, point):
        self.latents = ladder_codec.Latents(network, point, *image.shape[:2])
        self.evidence, upper_evidence = self.latents.evidence(image)
        self.upper = self.latents.upper()
        self.q2 = ladder_codec.target(self.upper, upper_evidence)
        rate = ladder_codec.rate(ladder_codec.RATE_2, self.q2.kl(self.upper.proposal).sum(), self.upper.worth)
        plan = tree.plan(self.upper.worth, ladder_codec.SEED, rate / tree.RATE_STEPS)
        self.upper_bits = int(plan.bits.sum()) * len(plan.dims)
        self.lower = self.latents.lower(tree.standard(tree.encode(self.q2, self.upper.proposal, ladder_codec.SEED, plan), ladder_codec.SEED, plan))
        self.q1 = ladder_codec.target(self.lower, self.evidence)

    def is_gs(self):
        """(actual bits, picture)."""

        def lower(z2):
            level = self.latents.lower(np.rint(z2 * tree.GRID) / tree.GRID)
            return ladder_codec.target(level, self.evidence), level.proposal

        coded = composite.encode(self.q2, self.upper.proposal, lower, ladder_codec.SEED)
        stack = BitStack()
        written = composite.codec(self.q2.shape[0], self.q1.shape[0])
        written.push(stack, coded)
        bits = 8 * len(stack.to_bytes())
        _, z1 = composite.decode(written.pop(stack), self.upper.proposal, lambda z2: lower(z2)[1], ladder_codec.SEED)
        return bits, self.latents.picture(z1)

    def ordered(self):
        """(actual bits, picture)."""
        where, blocks = ladder_codec.outliers(self.lower, self.q1), None
        while blocks is None or (spilt := [members for members in blocks if self._divergence(members).max() > MOST_BITS]):
            if blocks:  # what a forecast missed by far joins the outliers, and the rest is divided anew
                where = np.union1d(where, np.concatenate([members[self._divergence(members) > MOST_BITS].reshape(-1) for members in spilt]))
            blocks = self._blocks(where)
        cells = dither.encode(self.q1[where], self.lower.proposal[where], ladder_codec.SEED, "uniform", where) if where.size else where
        stack, z1 = BitStack(), np.array(self.lower.proposal.mean)  # what fills no block stays at the prior's mean
        ladder_codec.outlier_codec(z1.size).push(stack, (where, cells))
        for members in blocks:
            p, index = self.lower.proposal[members], np.zeros(len(members), np.int64)
            extra = np.minimum(EXTRA_BITS, MOST_BITS - np.ceil(self._divergence(members)).astype(int))
            for each in np.unique(extra):
                for part in np.array_split(np.flatnonzero(extra == each), 1 + np.count_nonzero(extra == each) // 4096):
                    index[part] = ordered.encode(self.q1[members[part]], p[part], ladder_codec.SEED, int(each), stream=members[part])
            poisson.codec(index, index.size).push(stack, index)  # the frequencies of levels are this picture's own: a few dozen bytes that are not counted
            z1[members] = ordered.decode(index, p, ladder_codec.SEED, stream=members)
        if where.size:
            z1[where] = dither.decode(cells, self.lower.proposal[where], ladder_codec.SEED, self.q1.scale[where], "uniform", where)
        return 8 * len(stack.to_bytes()) + self.upper_bits, self.latents.picture(z1)

    def _blocks(self, apart):
        """Positions by block, int64 (blocks, dimensions), an array for each size. Both ends can divide alike: by worth, without `apart`."""
        worth = self.lower.worth / 2**tree.WORTH_BITS
        sizes = 2 ** np.floor(np.log2(np.clip(BLOCK / np.maximum(worth, 1e-9), 1, LARGEST_BLOCK))).astype(int)
        sizes[apart] = 0
        blocks = []
        for size in np.unique(sizes[sizes > 0]):
            members = np.flatnonzero(sizes == size)
            members = members[np.argsort(-worth[members], kind="stable")]
            blocks += [members[: members.size // size * size].reshape(-1, size)] if members.size >= size else []
        return blocks

    def _divergence(self, members):
        """KL of each block in bits."""
        return self.q1[members].kl(self.lower.proposal[members]).sum(1)

    def dither(self):
        """(ideal bits, picture). A mean is N(mu, sigma^2 - s_q^2) when targets average to the prior: its cell is coded under that."""
        p, scale = self.lower.proposal, self.q1.scale
        index = dither.encode(self.q1, p, ladder_codec.SEED, "uniform")
        means = type(p)(p.mean, np.sqrt(np.maximum(p.scale**2 - scale**2, 1e-12)))
        bits = dither.bits(index, means, ladder_codec.SEED, scale, "uniform")
        return float(bits.sum()) + self.upper_bits, self.latents.picture(dither.decode(index, p, ladder_codec.SEED, scale, "uniform"))


def _row(image, bits, picture, **more):
    return {"bits": round(float(bits), 1), "psnr": round(metrics.psnr(image, picture), 4), "ms_ssim": round(float(metrics.ms_ssim(image, picture)), 6), **more}


def measure(name, image, point, slow):
    """{sampler: {bits, psnr, ms_ssim, ...}} of one photograph, uint8 (H, W, 3)."""
    network = zoo.load(name)
    theory = ladder_codec.theoretical(network, image, point)
    started = time.perf_counter()
    file = codec.encode(image, model=name, quality=point + 1)
    encoded = time.perf_counter()
    picture = codec.decode(file)
    decoded = time.perf_counter()
    rows = {"theory": _row(image, theory.bound, theory.picture, kl=[round(x, 1) for x in theory.kl]),
            "tree": _row(image, 8 * len(file), picture, seconds=[round(encoded - started, 2), round(decoded - encoded, 2)])}
    if slow:
        one = Image(network, image, point)
        for sampler in ("is_gs", "ordered", "dither"):
            started = time.perf_counter()
            rows[sampler] = _row(image, *getattr(one, sampler)())
            rows[sampler]["seconds"] = round(time.perf_counter() - started, 2)
    return rows


def means(entries, count, sampler):
    """(bits per pixel, PSNR in dB, MS-SSIM in dB): means over the first `count` photographs of {photograph: {sampler: row}}; decibels are averaged."""
    rows = [entries[key][sampler] for key in sorted(entries)[:count]]
    return tuple(float(np.mean(values)) for values in ([row["bits"] / PIXELS for row in rows], [row["psnr"] for row in rows],
                                                       [metrics.decibels(row["ms_ssim"]) for row in rows]))


def main(args, circumstances):
    """Print a row per network and operating point; with `args.json`, keep every photograph's rows there, beside those that the file holds already."""
    out, kept = Path(args.json) if args.json else None, {}
    if out and out.exists():
        kept = json.loads(out.read_text(encoding="utf-8"))
        if "networks" not in kept:
            raise InvalidInput(f"{out}: this file exists and is not one of this benchmark's; name another")
    networks, photographs = kept.get("networks", {}), data.kodak(args.count)
    print(f"{'network':10} {'quality':>7} {'sampler':8} {'images':>6} {'bits/pixel':>10} {'PSNR':>7} {'MS-SSIM dB':>10} {'over KL bound':>13}")
    for name in args.models or NETWORKS:
        sha256 = zoo.card(name)["sha256"]
        entry = networks.get(name, {})
        if entry.get("sha256") != sha256:
            entry = {"sha256": sha256, "betas": list(zoo.load(name).betas), "points": {}}
        for point in range(len(entry["betas"])):
            rows = entry["points"].setdefault(str(point), {})
            for number, image in enumerate(photographs, 1):
                if f"kodim{number:02d}" not in rows:
                    rows[f"kodim{number:02d}"] = measure(name, image, point, number <= FEW)
            for sampler in next(iter(rows.values())):
                count = min(len(rows), FEW if sampler in ("is_gs", "ordered", "dither") else len(rows))
                rate, psnr, similarity = means(rows, count, sampler)
                print(f"{name:10} {point + 1:7d} {sampler:8} {count:6d} {rate:10.3f} {psnr:7.2f} {similarity:10.2f} "
                      f"{100 * (rate / means(rows, count, 'theory')[0] - 1):12.1f}%", flush=True)
            networks[name] = entry | {key: circumstances[key] for key in ("date", "commit")}
            if out:
                _write(out, kept, networks, circumstances)
    if "classical" not in kept and not args.models:
        kept["classical"] = {codec_name: {"all": anchors.curve(photographs, codec_name), "few": anchors.curve(photographs[:FEW], codec_name)}
                             for codec_name in CLASSICAL}
        if out:
            _write(out, kept, networks, circumstances)


def _write(out, kept, networks, circumstances):
    result = {"description": f"The Kodak photographs (768 x 512 or turned), coded by the ladder networks at their operating points. bits: of the whole picture, "
                             f"actual but for theory and dither; psnr in dB; ms_ssim from 0 to 1; seconds: encode and decode together but for tree, on a "
                             f"machine that had other work. is_gs, ordered and dither: the first {FEW} photographs. classical: means over all, and over the first "
                             f"{FEW}, rate in bits per pixel",
              **circumstances, "few": FEW, "networks": networks, **{key: kept[key] for key in ("classical",) if key in kept}}
    write_bytes(out, (json.dumps(result) + "\n").encode(), force=True)
