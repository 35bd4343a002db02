"""The probabilistic ladder network (PLN): a two-level VAE for photographs whose latents are sent as samples, never rounded.

    x --analysis--> m --upper_analysis--> q(z2 | x) = N(z2 | m2, s2^2) combined with p(z2) = N(0, 1)
                                          p(z1 | z2) = N(mu, sigma^2), from z2 by `prior`
    q(z1 | x, z2) is proportional to p(z1 | z2) N(m | z1, s1^2):   precision = 1 / sigma^2 + 1 / s1^2,   mean = (mu / sigma^2 + m / s1^2) / precision
    z1 --synthesis--> x hat,   p(x | z1) = Laplace(x hat, gamma)

The posterior is the prior times the *evidence* N(m | z1, s1^2) of the analysis: Bayes' rule for Gaussians, with precisions as weights (Flamich 2019,
section 3.2.2, prints scales, and crosses them). GDN makes one scale s1 per channel enough. So both ends know it, the file never holds
it, and what a latent will cost, 1/2 log2(1 + sigma^2 / s1^2) bits on average, is known before it is sent.

That scale is also the quantiser of this codec: more noise, fewer bits. One network serves all of `betas`: each has its own scales s1, s2 and its
own gains (Cui et al. 2021), everything else is shared. The loss is that of a VAE, D + beta KL with D = sum |x - x hat|, or, with `learned_scale`
(gamma-PLN), D / gamma + dims * log gamma + beta KL with one gamma learned for each beta (Dai and Wipf 2019). Both are divided
by sqrt(beta), lest the finest or the coarsest operating point outweigh the others. `levels` = 1 is the ordinary VAE, with p(z1) = N(0, 1). Taught in chapter 3.

| in the thesis | here |
| --- | --- |
| f, m and s of level 1; mu^{d,(1)} | `analysis`, `log_scale`; `synthesis` |
| mu^{d,(2)}, sigma^{d,(2)} | `prior` |
| beta, gamma | `betas`, `scale` |
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.blocks import begin
from ..nn.gdn import GDN

DOWN = 16  # z1 has one position for 16 x 16 pixels
UPPER_DOWN = 64  # and z2 for 64 x 64
LEAST_SCALE, MOST_SCALE = -4.0, 5.0  # natural logarithms
LOG2E = math.log2(math.e)


class Normal(NamedTuple):
    """Independent Gaussians: tensors of one shape."""

    mean: torch.Tensor
    scale: torch.Tensor


def posterior(prior, evidence):
    """Bayes' rule for Gaussians: the prior N(mean, scale^2) times the evidence N(evidence.mean given z, evidence.scale^2), normalised."""
    precision = prior.scale**-2 + evidence.scale**-2
    return Normal((prior.mean * prior.scale**-2 + evidence.mean * evidence.scale**-2) / precision, precision.rsqrt())


def divergence(q, p):
    """KL[q || p] of each dimension in nats, Gaussians of one shape."""
    ratio = (q.scale / p.scale) ** 2
    return 0.5 * (ratio - 1 - ratio.log() + ((q.mean - p.mean) / p.scale) ** 2)


class Prior(nn.Module):
    """p(z1 | z2): z2 (B, upper, h, w) and the operating points (B,) to the mean and the log of the scale of z1, (B, latents, 4 h, 4 w) each.

    Convolutions, ReLU and additions only, for the receiver must compute it to the last bit as the sender did (`nn.exact`)."""

    def __init__(self, points, upper, hidden, latents):
        super().__init__()
        self.first = nn.Conv2d(upper, 4 * hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, 4 * hidden, 3, padding=1)
        self.third = nn.Conv2d(hidden, 2 * latents, 3, padding=1)
        self.hidden_shift = nn.Parameter(torch.zeros(points, hidden))
        self.shift = nn.Parameter(torch.zeros(points, 2 * latents))
        nn.init.zeros_(self.third.bias)
        self.third.weight.data *= 0.1

    def forward(self, z2, point):
        h = F.relu(F.pixel_shuffle(self.first(z2), 2) + self.hidden_shift[point][:, :, None, None])
        h = F.relu(F.pixel_shuffle(self.second(h), 2))
        mean, log_scale = (self.third(h) + self.shift[point][:, :, None, None]).chunk(2, 1)
        return mean, log_scale


class Ladder(nn.Module):
    """betas: Lagrangians of the operating points, the coarsest first; width: channels inside; latents, upper: channels of z1 and z2; hidden: of the networks
    between them; learned_scale: gamma-PLN; floor: the smallest gamma; warmup: steps until beta has its full weight (PLN only). Images are
    uint8 (B, 3, H, W), H and W multiples of 64."""

    def __init__(self, betas=(0.25, 0.12, 0.06, 0.03, 0.015), width=64, latents=64, upper=24, hidden=48, levels=2, learned_scale=False, floor=1 / 512, warmup=1000):
        super().__init__()
        points = len(betas)
        self.betas, self.levels, self.learned_scale, self.floor, self.warmup = tuple(betas), levels, learned_scale, floor, warmup
        self.latents, self.upper = latents, upper
        self.EXACT = ("prior",) if levels == 2 else ()  # parts that sender and receiver must agree on to the last bit: see nn.partly_exact
        mirror = {"padding_mode": "reflect"}
        self.analysis = nn.Sequential(nn.Conv2d(3, width, 9, 4, 4, **mirror), GDN(width), nn.Conv2d(width, width, 5, 2, 2, **mirror), GDN(width),
                                      nn.Conv2d(width, latents, 5, 2, 2, **mirror))
        self.synthesis = nn.Sequential(nn.ConvTranspose2d(latents, width, 5, 2, 2, 1), GDN(width, inverse=True),
                                       nn.ConvTranspose2d(width, width, 5, 2, 2, 1), GDN(width, inverse=True), nn.ConvTranspose2d(width, 3, 9, 4, 4, 3))
        for stack, gains in ((self.analysis, (4.0, 1.0, 1.0)), (self.synthesis, (1.0, 1.0, 0.2))):
            for layer, gain in zip(stack[::2], gains):
                begin(layer, gain)
        self.log_scale = nn.Parameter(torch.linspace(0.5, -1.5, points)[:, None].repeat(1, latents))  # log s1
        self.gain_in, self.gain_out = nn.Parameter(torch.zeros(points, latents)), nn.Parameter(torch.zeros(points, latents))  # logs
        if levels == 2:
            self.upper_analysis = nn.Sequential(nn.Conv2d(latents, hidden, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, hidden, 5, 2, 2), nn.LeakyReLU(0.2),
                                                nn.Conv2d(hidden, upper, 5, 2, 2))
            self.upper_log_scale = nn.Parameter(torch.zeros(points, upper))  # log s2
            self.prior = Prior(points, upper, hidden, latents)
        if learned_scale:
            self.log_gamma = nn.Parameter(torch.full((points,), math.log(0.1)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for name, channels in (("worth", latents), ("upper_worth", upper if levels == 2 else 0)):  # see ladder_calibration.ready
            self.register_buffer(name, torch.full((points, channels), 64, dtype=torch.int16))

    @property
    def scale(self):
        """gamma of each operating point, (points,): the mean absolute error that the likelihood expects, 1 being the whole range of a pixel."""
        return self.log_gamma.exp().clamp_min(self.floor) if self.learned_scale else torch.ones(len(self.betas))

    def noise(self, batch, generator, side=None):
        """What one step draws, whatever the side: an operating point for each image and seeds of its Gaussian noise, (B,) each."""
        return [torch.randint(0, len(self.betas), (batch,), generator=generator), torch.randint(0, 1 << 62, (batch,), generator=generator)]

    def evidence(self, images, point):
        """N(m | z1, s1^2): what the analysis says about z1. point: (B,) operating points."""
        m = self.analysis(images.float() / 255 - 0.5) * self.gain_in[point].exp()[:, :, None, None]
        return Normal(m, self.log_scale[point].exp()[:, :, None, None].expand_as(m))

    def upper_posterior(self, evidence, point):
        """(q(z2 | x), p(z2)), from the evidence about z1."""
        m = self.upper_analysis(evidence.mean)
        standard = Normal(torch.zeros_like(m), torch.ones_like(m))
        return posterior(standard, Normal(m, self.upper_log_scale[point].exp()[:, :, None, None].expand_as(m))), standard

    def lower_prior(self, z2, point):
        """p(z1 | z2)."""
        mean, log_scale = self.prior(z2, point)
        return Normal(mean, log_scale.clamp(LEAST_SCALE, MOST_SCALE).exp())

    def reconstruct(self, z1, point):
        """x hat, (B, 3, H, W) from 0 to 1 but for overshoots."""
        return self.synthesis(z1 * self.gain_out[point].exp()[:, :, None, None]) + 0.5

    def synthesis_in_float64(self):
        """`reconstruct` as the codec uses it: a function of z1 (float64) and the operating points."""
        twin = copy.deepcopy(self.synthesis).double()
        return lambda z1, point: twin(z1 * self.gain_out[point].double().exp()[:, :, None, None]) + 0.5

    def everything(self, images, point, sample):
        """(x hat, KL of z1, KL of z2 in nats by dimension, None for the latter in a VAE). sample(q) draws from a Normal."""
        evidence, upper = self.evidence(images, point), None
        if self.levels == 2:
            q2, p2 = self.upper_posterior(evidence, point)
            upper = divergence(q2, p2)
            p1 = self.lower_prior(sample(q2), point)
        else:
            p1 = Normal(torch.zeros_like(evidence.mean), torch.ones_like(evidence.mean))
        q1 = posterior(p1, evidence)
        return self.reconstruct(sample(q1), point), divergence(q1, p1), upper

    def loss(self, images, noise):
        """(mean of (D / gamma + log(2 gamma) + beta KL) / sqrt(beta), in bits per pixel and colour, a dict of numbers to log)."""
        point, seeds = noise
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

        def sample(q):
            draws = torch.stack([torch.randn(q.mean.shape[1:], generator=g) for g in generators])
            return q.mean + q.scale * draws.to(q.mean.device)

        reconstruction, lower, upper = self.everything(images, point, sample)
        target = images.float() / 255
        dims, gamma = target[0].numel(), self.scale.to(target.device)[point]
        beta = torch.tensor(self.betas, device=target.device)[point]
        error = (reconstruction - target).abs().flatten(1).mean(1)
        nats = lower.flatten(1).sum(1) + (upper.flatten(1).sum(1) if upper is not None else 0)
        weight = 1.0 if self.learned_scale else min(1.0, (int(self.steps) + 1) / self.warmup)
        if self.training:
            self.steps += 1
        bits = LOG2E * (error / gamma + torch.log(2 * gamma) + weight * beta * nats / dims) / beta.sqrt()
        report = {f"error_{k}": _mean_where(error, point == k) for k in range(len(self.betas))}
        report |= {f"bpp_{k}": _mean_where(3 * LOG2E * nats / dims, point == k) for k in range(len(self.betas))}
        return bits.mean(), report


def _mean_where(values, chosen):
    return (values.detach() * chosen).sum() / chosen.sum().clamp_min(1)
