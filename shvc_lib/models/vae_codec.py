"""Images through bits-back coding with a `BitsBackVAE`: from its exact twin to a Codec.

The twin (`nn.exact.to_exact`) gives the same integers on any machine and in any batch; here they become integer CDFs and those become codecs,
which `coding.bits_back` nests. Latents are integers -128 ... 127. Posteriors are tables over a window of 96 bins around their means, so that no
counts far away can draw a wild latent; priors cover everything, with a floor. Taught in chapter 2.

    lanes = Lanes([BitStack.random(20_000, seed) for seed in range(64)])
    codec(twin, (64, 32, 32, 3)).push(lanes, images)              # the networks see a batch,
    codec(twin, (32, 32, 3)).pop(lanes.stacks[5])                 # and image 5 comes back alone
"""

import copy

import numpy as np
import torch

from ..coding import Codec, autoregressive, independent, logistic, logistic_mixture
from ..coding.bits_back import bit_swap
from ..coding.checks import integer
from ..errors import InvalidInput
from ..nn.exact import to_exact
from ..nn.parameters import OUTPUT_BITS, exact_means, exact_scales, exact_weights, logistic_window, to_integers
from .bits_back_vae import BINS_PER_UNIT, balanced

LOWEST, SIZE, WINDOW = -128, 256, 96  # the latents' support, and that of a posterior around its mean


def exact_twin(model, images):
    """The exact twin of a trained BitsBackVAE; `images`: uint8 (N, H, W, 3), a few dozen typical ones to calibrate on."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return to_exact(balanced(model, batch), lambda m: m.everything(batch))


def float_twin(model):
    """What `codec` also accepts and nobody should write files with: the float network itself, its outputs rounded to multiples of 2^-12.

    Everything else of the codec is the same. It is there to be measured: a float network's sums depend on the batch, the threads and the processor in
    their last digit, some value then rounds to the other side, and from there on the decoder reads noise.
    """
    twin = copy.deepcopy(model).eval()
    for name in ("posterior", "prior", "likelihood"):
        def rounded(*arguments, method=getattr(twin, name)):
            return [(values * 2**OUTPUT_BITS).round() / 2**OUTPUT_BITS for values in method(*arguments)]
        setattr(twin, name, rounded)
    return twin


def _check_shape(twin, shape):
    side = int(np.prod(twin.factors))
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise InvalidInput(f"the codec is for one image (H, W, 3) or a batch (B, H, W, 3), got {tuple(shape)}")
    for number, step in zip(shape[:-1], [1, side, side][-len(shape) + 1:]):
        if integer("a size", number, 1) % step:
            raise InvalidInput(f"this model takes images whose height and width are multiples of {side}, got {tuple(shape)}")
    return [*shape[:-3], -1, shape[-3] // side, shape[-2] // side]


def codec(twin, shape, schedule=bit_swap):
    """Codec of one uint8 image of `shape` (H, W, 3), or of a batch (B, H, W, 3), for which every network is evaluated once.

    Over `coding.lanes.Lanes` each image of the batch is on a stack of its own, word for word what the codec of one image writes there (batches of 64
    32 x 32 images need 0.2 GB meanwhile); over one BitStack the batch is one big symbol. schedule: `bit_swap` or `bb_ans`; a deterministic posterior has
    nothing to get back and uses neither. H and W must be multiples of what the model halves them to. Raises InvalidInput.
    """
    top_shape = _check_shape(twin, shape)
    lift, drop = (lambda v: v, lambda v: v) if len(shape) == 4 else (lambda v: v[None], lambda v: v[0])  # networks know batches only

    def network(method, *arguments):
        with torch.no_grad():
            return [drop(value) for value in method(*arguments)]

    def latent(values):  # integers (..., C, h, w) -> what a network takes
        return lift(torch.from_numpy(values).float()) / BINS_PER_UNIT

    def pixels(image):
        image = np.ascontiguousarray(image)
        if image.shape != tuple(shape) or image.dtype != np.uint8:
            raise InvalidInput(f"this codec takes uint8 of shape {tuple(shape)}, got {image.dtype} of shape {image.shape}")
        return twin.pixels(lift(torch.from_numpy(image).movedim(-1, -3)))

    def parameters(means, log_scales):
        return exact_means(to_integers(means)), exact_scales(to_integers(log_scales))

    def prior_codec(means, log_scales):
        return independent(logistic(*parameters(means, log_scales), SIZE, LOWEST))

    def likelihood(z):
        means, log_scales, logits = network(twin.likelihood, latent(z))
        inner = independent(logistic_mixture(*parameters(means, log_scales), exact_weights(to_integers(logits))))
        planes = lambda image: np.moveaxis(np.asarray(image), -1, -3)  # noqa: E731
        return Codec(lambda stack, image: inner.push(stack, planes(image)),
                     lambda stack: np.moveaxis(inner.pop(stack), -3, -1).astype(np.uint8), lambda image: inner.bits(planes(image)))

    def posterior(level):
        def q(below):
            means, log_scales = network(twin.posterior, level, pixels(below) if level == 0 else latent(below))
            return independent(logistic_window(*parameters(means, log_scales), WINDOW, LOWEST, SIZE))
        return q

    def prior(level):
        return lambda z: prior_codec(*network(twin.prior, level, latent(z)))

    with torch.no_grad():
        top = prior_codec(*(v.expand(top_shape) for v in twin.top_prior()))
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
