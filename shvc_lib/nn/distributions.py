"""Discretised logistic distributions for training: log-masses in nats, differentiable, in floats.

A logistic density of mean mu and scale s gives the integer x the mass of its bin,

    P(x) = F(a) - F(b),    a = (x + 1/2 - mu) / s,    b = (x - 1/2 - mu) / s,    F(u) = 1 / (1 + e^-u),

and at the ends of a finite support the outermost bins take the tails (PixelCNN++, Salimans et al. 2017). Subtracting two numbers near 1
is how not to compute it: in float32, at small scales, nine masses in ten come out as exactly zero. The same mass is

    log P(x) = log F(a) + log F(-b) + log(1 - e^-(a - b)),

three terms without a cancellation: a - b = 1 / s does not even depend on x. It is finite for every x, and so is its gradient.
SHVC's p(x | z) is a mixture of five of these, and its latents have one each, on a grid of width b (Ryder et al. 2022, section 4.1).

Everything here is in nats (divide by log 2 for bits). What the coder gets are integers: `nn.parameters` makes them, `coding.discretized` turns
them into masses. Taught in chapters 2 and 5.
"""

import math

import torch
import torch.nn.functional as F

from ..coding.rans import TOTAL
from ..coding.tables import SCALE_STEPS, SCALE_ZERO, SCALES
from ..errors import InvalidInput

# The integer twins know scales from e^-3 to e^8.94 bins; training beyond would promise bits that the coder cannot deliver.
MIN_LOG_SCALE, MAX_LOG_SCALE = -SCALE_ZERO / SCALE_STEPS, (SCALES - 1 - SCALE_ZERO) / SCALE_STEPS


def logistic_log_mass(x, means, log_scales, size=None, lower=0, width=1.0):
    """log P(x) of a discretised logistic, in nats; arguments broadcast, the result has their common shape.

    x: bin centres, multiples of `width`; means, log_scales: tensors in the units of x (scales are clamped to what the
    integer twins know: e^-3 to e^8.94 widths). size None: bins without end; otherwise the support is the bins
    lower ... lower + size - 1 (in widths), the outermost take the tails, and x beyond them counts as them.
    float16 and bfloat16 are computed in float32. Differentiable in all three. Raises InvalidInput.
    """
    _check(means, log_scales, size, width)
    dtype = torch.promote_types(means.dtype, torch.float32)  # half precision would not tell 255 from 254.9
    x, means = torch.as_tensor(x, device=means.device).to(dtype) / width, means.to(dtype) / width
    inverse_scales = (math.log(width) - log_scales.to(dtype)).clamp(-MAX_LOG_SCALE, -MIN_LOG_SCALE).exp()
    above = F.logsigmoid((x + 0.5 - means) * inverse_scales)  # log F(a): from below, up to the bin's upper edge
    below = F.logsigmoid((means - x + 0.5) * inverse_scales)  # log F(-b): from its lower edge upwards
    inside = torch.log(-torch.expm1(-inverse_scales))
    if size is None:
        return above + below + inside
    first, last = x <= lower, x >= lower + size - 1
    zero = torch.zeros((), dtype=dtype, device=x.device)
    return torch.where(last, zero, above) + torch.where(first, zero, below) + torch.where(first | last, zero, inside)


def mixture_log_mass(x, means, log_scales, logits, size=256, lower=0, width=1.0):
    """log P(x) of a mixture of K discretised logistics, in nats; shape of x.

    x (...); means, log_scales, logits (..., K) as `logistic_log_mass` has them, weights = softmax(logits) over the last axis. A weakly autoregressive
    model shifts the means before it calls this: means + beta * (what the channels before say), eqs (6-7) of SHVC.
    """
    components = logistic_log_mass(torch.as_tensor(x, device=means.device)[..., None], means, log_scales, size, lower, width)
    return torch.logsumexp(torch.log_softmax(logits.to(components.dtype), -1) + components, -1)


def with_floor(log_mass, size):
    """The same log-mass (nats) after each of `size` bins got one count of 2^24, as the integer CDFs give it: for priors and likelihoods.

    A posterior has no floor: popping from it would now and then draw a latent that no prior expects, at thousands of bits.
    """
    return torch.logaddexp(log_mass + math.log1p(-size / TOTAL), torch.full_like(log_mass, -math.log(TOTAL)))


def round_to_grid(values, width=1.0):
    """Nearest multiples of `width`; the gradient passes straight through, as if nothing had been rounded (Bengio et al. 2013)."""
    return values + (torch.round(values / width) * width - values).detach()


def sample_logistic(means, log_scales, width=1.0, generator=None):
    """A sample on the grid of multiples of `width`, shape and dtype of `means`, differentiable by reparametrisation and straight through.

    mean + scale * log(u / (1 - u)), rounded: its distribution is exactly `logistic_log_mass` with size None, so that
    log-masses of it are unbiased for the code length, and a latent cannot save bits by shrinking below the grid.
    """
    _check(means, log_scales, None, width)
    low, high = math.log(width) + MIN_LOG_SCALE, math.log(width) + MAX_LOG_SCALE
    tiny = torch.finfo(means.dtype).eps
    uniform = torch.rand(means.shape, dtype=means.dtype, device=means.device, generator=generator).clamp(tiny, 1 - tiny)
    return round_to_grid(means + log_scales.clamp(low, high).exp() * torch.logit(uniform), width)


def _check(means, log_scales, size, width):
    if not (torch.is_tensor(means) and torch.is_tensor(log_scales) and means.is_floating_point() and log_scales.is_floating_point()):
        raise InvalidInput("means and log_scales must be floating-point tensors")
    if not (size is None or size >= 2) or not 0 < width < math.inf:
        raise InvalidInput(f"size must be None or at least 2 and width positive, got {size} and {width}")
