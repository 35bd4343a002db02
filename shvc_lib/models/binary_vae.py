"""The smallest bits-back image coder: a VAE of black-and-white images made of four fully connected layers.

It has the size of the one that bits-back coding with ANS was first shown with (Townsend et al. 2019): 784 binary pixels, 100 hidden units, 40
latents. Pixels are Bernoulli given the latents; a latent is a discretised logistic under prior and posterior, an integer -128 ... 127, of
which 16 are a network's unit. Training samples on that very grid, so the negative ELBO is the code length that `codec` realises. `bench bits-back`
times it; chapter 2 names its figures.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..coding import Categorical, Codec, independent, logistic
from ..coding.bits_back import bits_back
from ..coding.cdf import Bernoulli
from ..data import patches
from ..errors import InvalidInput
from ..nn.distributions import logistic_log_mass, round_to_grid
from ..nn.exact import to_exact
from ..nn.parameters import exact_bernoulli, exact_means, exact_scales, logistic_window, to_integers
from .bits_back_vae import BINS_PER_UNIT, HIGH, LOW, PRIOR_HIGH, REACH
from .vae_codec import LOWEST, SIZE, WINDOW

SIDE = 28


def binary_patches(images, count, seed=0):
    """`count` crops of photographs (H, W, 3), 1 where a pixel is brighter than its crop's mean and 0 elsewhere: uint8 (count, 28, 28, 1)."""
    grey = patches(images, SIDE, count, seed).sum(-1, keepdims=True, dtype=np.int64)
    return (grey * SIDE**2 > grey.sum((1, 2), keepdims=True)).astype(np.uint8)


class BinaryVAE(nn.Module):
    """pixels, hidden, latents: how many of each. Images are tensors of zeros and ones, uint8 (B, 1, 28, 28) or any (B, ...) of `pixels` entries."""

    def __init__(self, pixels=SIDE**2, hidden=100, latents=40):
        super().__init__()
        self.latents = latents
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, pixels))
        self.top = nn.Parameter(torch.stack([torch.zeros(latents), torch.full((latents,), 2.5)]))  # mean and log scale of p(z)

    def noise(self, batch, generator, side=None):
        """Uniform numbers for one step: a list of one tensor (batch, latents)."""
        return [torch.rand((batch, self.latents), generator=generator)]

    def posterior(self, images):
        """(means, log scales) in bins of q(z | x), tensors (B, latents)."""
        means, log_scales = self.encoder(images.flatten(1).float()).chunk(2, 1)
        return (BINS_PER_UNIT * means).clamp(-REACH, REACH), log_scales.clamp(LOW, HIGH)

    def prior(self):
        """(means, log scales) in bins of p(z), tensors (latents,) of multiples of 2^-12."""
        rounded = self.top + ((self.top * 4096).round() / 4096 - self.top).detach()
        return rounded[0], rounded[1].clamp(LOW, PRIOR_HIGH)

    def likelihood(self, z):
        """Logits of the pixels' p(x = 1 | z), z in bins: (B, latents) -> (B, pixels)."""
        return self.decoder(z / BINS_PER_UNIT)

    def everything(self, images):
        """Every network once, with latents at their posterior means: what calibration of the exact twin runs on."""
        means, log_scales = self.posterior(images)
        return [means, log_scales, self.likelihood(means.round())]

    def loss(self, images, noise):
        """(bits per pixel, the negative ELBO; dict with the share of x and that of z's KL) for images and `self.noise`."""
        means, log_scales = self.posterior(images)
        z = round_to_grid(means + log_scales.exp() * torch.logit(noise[0].clamp(1e-6, 1 - 1e-6)))
        nats = {"x": F.binary_cross_entropy_with_logits(self.likelihood(z), images.flatten(1).float(), reduction="sum"),
                "z": (logistic_log_mass(z, means, log_scales) - logistic_log_mass(z, *self.prior())).sum()}
        bits = {name: value / (math.log(2) * images.numel()) for name, value in nats.items()}
        return sum(bits.values()), bits


def exact_twin(model, images):
    """The exact twin of a trained BinaryVAE; `images`: uint8 (N, 28, 28, 1), a few dozen typical ones to calibrate on."""
    return to_exact(model, lambda m: m.everything(torch.from_numpy(images)))


def codec(twin, shape=(SIDE, SIDE, 1)):
    """Codec of one image of zeros and ones, uint8 of `shape`, from the model's exact twin; over `coding.lanes.Lanes` of a batch (B, 28, 28, 1)."""
    batch = shape[:-3]

    def parameters(means, log_scales):
        return exact_means(to_integers(means)).reshape(*batch, -1), exact_scales(to_integers(log_scales)).reshape(*batch, -1)

    def posterior(image):
        image = np.ascontiguousarray(image)
        if image.shape != tuple(shape) or image.dtype != np.uint8:
            raise InvalidInput(f"this codec takes uint8 of shape {tuple(shape)}, got {image.dtype} of shape {image.shape}")
        with torch.no_grad():
            means, log_scales = twin.posterior(torch.from_numpy(image).reshape(-1, *shape[-3:]))
        return independent(logistic_window(*parameters(means, log_scales), WINDOW, LOWEST, SIZE))

    def likelihood(z):
        with torch.no_grad():
            logits = twin.likelihood(torch.from_numpy(z).reshape(-1, twin.latents).float())
        pixels = independent(Bernoulli(exact_bernoulli(to_integers(logits)).reshape(shape)))
        return Codec(pixels.push, lambda stack: pixels.pop(stack).astype(np.uint8), pixels.bits)

    prior = logistic(*parameters(*(v.expand(*batch, -1) for v in twin.prior())), SIZE, LOWEST)
    return bits_back(independent(Categorical(prior.frequencies(), LOWEST)), likelihood, posterior)
