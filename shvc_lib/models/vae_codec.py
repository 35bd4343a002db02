"""Images through bits-back coding with a `BitsBackVAE`: from its exact twin to a Codec.

The twin (`nn.exact.to_exact`) gives the same integers on any machine and in any batch; here they become integer CDFs and those become codecs,
which `coding.bits_back` nests. Latents are integers -128 ... 127. Posteriors are tables over a window of 96 bins around their means, so that no
counts far away can draw a wild latent; priors cover everything, with a floor. Taught in chapter 2.
"""

import numpy as np
import torch

from ..coding import Codec, autoregressive, independent, logistic, logistic_mixture
from ..coding.bits_back import bit_swap
from ..nn.exact import to_exact
from ..nn.parameters import exact_means, exact_scales, exact_weights, logistic_window, to_integers
from .bits_back_vae import BINS_PER_UNIT

LOWEST, SIZE, WINDOW = -128, 256, 96  # the latents' support, and that of a posterior around its mean


def exact_twin(model, images):
    """The exact twin of a trained BitsBackVAE; `images`: uint8 (N, H, W, 3), a few dozen typical ones to calibrate on."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return to_exact(model, lambda m: m.everything(batch))


def codec(twin, shape, schedule=bit_swap):
    """Codec of one uint8 image of `shape` (H, W, 3). schedule: `bit_swap` or `bb_ans`; a deterministic posterior has nothing to get
    back and uses neither."""
    height, width, _ = shape

    def network(method, *arguments):
        with torch.no_grad():
            return [value[0] for value in method(*arguments)]

    def latent(values):  # integers (C, h, w) -> what a network takes
        return torch.from_numpy(values).float()[None] / BINS_PER_UNIT

    def pixels(image):
        return twin.pixels(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None])

    def parameters(means, log_scales, bits):
        return exact_means(to_integers(means, bits), bits), exact_scales(to_integers(log_scales))

    def prior_codec(means, log_scales):
        return independent(logistic(*parameters(means, log_scales, 12), SIZE, LOWEST))

    def likelihood(z):
        means, log_scales, logits = network(twin.likelihood, latent(z))
        inner = independent(logistic_mixture(*parameters(means, log_scales, 12), exact_weights(to_integers(logits))))
        planes = lambda image: np.moveaxis(np.asarray(image), -1, 0)  # noqa: E731
        return Codec(lambda stack, image: inner.push(stack, planes(image)),
                     lambda stack: np.moveaxis(inner.pop(stack), 0, -1).astype(np.uint8), lambda image: inner.bits(planes(image)))

    def posterior(level):
        def q(below):
            means, log_scales = network(twin.posterior, level, pixels(below) if level == 0 else latent(below))
            return independent(logistic_window(*parameters(means, log_scales, 12), WINDOW, LOWEST, SIZE))
        return q

    def prior(level):
        return lambda z: prior_codec(*network(twin.prior, level, latent(z)))

    side = int(np.prod(twin.factors))
    with torch.no_grad():
        top = prior_codec(*(v.expand(-1, height // side, width // side) for v in twin.top_prior()))
    conditionals = [likelihood, *(prior(level) for level in range(twin.levels - 1))]
    if not twin.deterministic:
        return schedule(top, conditionals, [posterior(level) for level in range(twin.levels)])

    def generate():
        value = yield top
        for conditional in reversed(conditionals):
            value = yield conditional(value)

    def infer(image):
        values, below = [image], pixels(image)
        for level in range(twin.levels):
            means, _ = network(twin.posterior, level, below)
            values.append(means.round().to(torch.int32).numpy())
            below = latent(values[-1])
        return values[::-1]

    inner = autoregressive(generate)
    return Codec(lambda stack, image: inner.push(stack, infer(image)), lambda stack: inner.pop(stack)[-1], lambda image: inner.bits(infer(image)))
