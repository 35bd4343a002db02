"""From an exact network's outputs to the integer parameters of `coding.discretized`, in integers all the way.

A float network's means, scales and weights can be rounded to the coder's grids (`coding.mean_index` and its siblings), but two
machines may round a value near the middle to different sides. An exact network (`nn.exact`) returns multiples of 2^-12, the same
everywhere, and what follows must not spoil that: here are only shifts, integer additions, and one table of e^-t, computed by decimal
arithmetic that is correctly rounded by definition.

    means      integers of 2^-bits levels -> multiples of 1/16 level
    log-scales integers of 2^-bits nats   -> indices of the scale grid exp((i - 48) / 16)
    logits     integers of 2^-bits nats   -> weights that sum to 4096, or the mass of a 1 out of 2^24

A latent on a grid is best counted in bins (level = bin), a power of two of which is the network's unit: means then shift, and log-scales need nothing.
The float distribution that was trained (`nn.distributions`) and the integer one differ by this rounding alone. Taught in chapter 5.
"""

import copy
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import torch

from ..coding import logistic
from ..coding.checks import integers
from ..coding.discretized import WEIGHT_TOTAL
from ..coding.rans import TOTAL
from ..coding.tables import MEAN_STEPS, SCALE_STEPS, SCALE_ZERO, SCALES, constant, inverse_scales
from ..errors import InvalidInput

OUTPUT_BITS = 12  # the outputs of exact networks are multiples of 2^-12
EXP_STEPS, EXP_BITS, EXP_REACH = 64, 24, 14  # e^-t at t = 0, 1/64, ... 14 with 24 fractional bits; beyond, nothing


def to_integers(values, bits=OUTPUT_BITS):
    """Tensor of multiples of 2^-bits -> int64 array of the multipliers. Raises InvalidInput if it holds anything else: then it does
    not come from an exact network."""
    scaled = values.detach().cpu().numpy().astype(np.float64) * 2.0**bits
    if not ((np.rint(scaled) == scaled) & (np.abs(scaled) <= 2**40)).all():
        raise InvalidInput(f"not multiples of 2^-{bits}: only exact networks' outputs can become integer parameters")
    return scaled.astype(np.int64)


def float_twin(model):
    """What codecs of exact networks also accept and nobody should write files with: a copy of a float network for which the tensors that its `forward` returns
    are rounded to multiples of 2^-12. To be measured."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    forward = twin.forward
    twin.forward = lambda *inputs: tuple((values * (1 << OUTPUT_BITS)).round() / (1 << OUTPUT_BITS) for values in forward(*inputs))
    return twin


def round_shift(values, shift):
    """round(values * 2^-shift) of an integer array, halves upwards; a negative shift multiplies. In integers."""
    return values + (1 << shift >> 1) >> shift if shift >= 0 else values << -shift


def exact_means(values, bits=OUTPUT_BITS):
    """Integers in 2^-bits of a level -> int32 means in 1/16 of a level. A network whose unit is 128 levels passes bits - 7.

    Weak autoregression stays in integers too: beta in 2^-bits times the integer x - 128 is a shift of the mean in 2^-bits of a level."""
    means = round_shift(integers("means", values, -(1 << 40), 1 << 40).astype(np.int64), bits - (MEAN_STEPS.bit_length() - 1))
    return np.minimum(np.maximum(means, -(1 << 29)), 1 << 29).astype(np.int32)  # where arrays are small, np.clip takes twice the time


def exact_scales(values, bits=OUTPUT_BITS):
    """Integers: log-scales (scales in levels) in 2^-bits of a nat -> int32 indices 0 ... 191 of the scale grid."""
    index = round_shift(integers("log-scales", values, -(1 << 40), 1 << 40).astype(np.int64), bits - (SCALE_STEPS.bit_length() - 1))
    return np.minimum(np.maximum(index + SCALE_ZERO, 0), SCALES - 1).astype(np.int32)


@lru_cache(maxsize=None)
def exp_table():
    """round(2^24 * e^(-i / 64)) for i = 0 ... 896, then a zero: int64. Python's decimal module rounds exp correctly, everywhere."""
    with localcontext() as context:
        context.prec = 40
        values = [int((Decimal(-i) / EXP_STEPS).exp() * 2**EXP_BITS + Decimal("0.5")) for i in range(EXP_REACH * EXP_STEPS + 1)]
    return constant(np.array(values + [0], dtype=np.int64))


def exact_weights(logits, bits=OUTPUT_BITS):
    """Integer logits (..., K) in 2^-bits of a nat -> int32 weights (..., K) that sum to exactly 4096: a softmax without floats.

    Logits are taken relative to the row's largest and rounded to 1/64 nat, and what is lost by rounding down goes to the
    largest remainders, as in `coding.weight_index`.
    """
    logits = integers("logits", logits, -(1 << 40), 1 << 40).astype(np.int64)
    if not logits.ndim:
        raise InvalidInput("logits need a last axis: one entry per component")
    below = round_shift(logits.max(-1, keepdims=True) - logits, bits - (EXP_STEPS.bit_length() - 1))
    mass = exp_table()[np.minimum(below, EXP_REACH * EXP_STEPS + 1)]
    whole, rest = np.divmod(WEIGHT_TOTAL * mass, mass.sum(-1, keepdims=True))
    rank = np.argsort(np.argsort(-rest, axis=-1, kind="stable"), axis=-1, kind="stable")
    return (whole + (rank < WEIGHT_TOTAL - whole.sum(-1, keepdims=True))).astype(np.int32)


def relative_mixture(means, scales, offsets, log_scales, logits):
    """What `coding.logistic_mixture` takes, (..., K) each, of a network that answers in units of a scale that it was told.

    means: int64, 2^-12 of a level; scales: int64 indices of the scale grid; both broadcast. offsets (multiples of 2^-12 of that scale), log_scales (added to
    its logarithm), logits: int64 (..., K)."""
    levels = (1 << 35) // inverse_scales()[scales]  # the scale in 2^-12 of a level
    return (exact_means(means + (offsets * levels >> OUTPUT_BITS)),
            exact_scales((scales - SCALE_ZERO << OUTPUT_BITS - (SCALE_STEPS.bit_length() - 1)) + log_scales), exact_weights(logits))


@lru_cache(maxsize=None)
def _bernoulli_table():
    """round(2^24 / (1 + e^-t)) for t = -14 ... 14 in steps of 1/64: int32; symmetric, and never 0 or 2^24."""
    whole = (1 << EXP_BITS) + exp_table()[:-1]  # 2^24 * (1 + e^-t) for t = 0 ... 14
    upper = ((TOTAL << EXP_BITS) + whole // 2) // whole
    return constant(np.concatenate([TOTAL - upper[:0:-1], upper]).astype(np.int32))


def exact_bernoulli(logits, bits=OUTPUT_BITS):
    """Integer logits log(p / (1 - p)) in 2^-bits of a nat -> int32 masses of 1, p in units of 2^-24, same shape: a sigmoid without floats.

    Logits are rounded to 1/64 nat and clamped to -14 ... 14, so that a mass is never below 14 or above 2^24 - 14.
    """
    steps = round_shift(integers("logits", logits, -(1 << 40), 1 << 40).astype(np.int64), bits - (EXP_STEPS.bit_length() - 1))
    reach = EXP_REACH * EXP_STEPS
    return _bernoulli_table()[np.minimum(np.maximum(steps, -reach), reach) + reach]


def logistic_window(means, scales, size, lower, prior_size):
    """The posterior of latents as an IntegerCDF: each symbol's logistic cut to a window of `size` bins around its own mean.

    means (1/16 of a bin) and scale indices, integers of the symbols' shape; the windows lie inside the prior's support lower ...
    lower + prior_size - 1. What is outside its window cannot be drawn, so the count of 2^-24 that every bin inside gets never
    produces a wild latent. Choose a size of at least 30 scales; wider posteriors heap their tails on the window's ends.
    """
    if size > prior_size:
        raise InvalidInput(f"a window of {size} bins does not fit into the prior's {prior_size}")
    means = integers("means", means, -(1 << 29), 1 << 29).astype(np.int64)
    start = np.minimum(np.maximum(round_shift(means, MEAN_STEPS.bit_length() - 1) - size // 2, lower), lower + prior_size - size)
    return logistic(means, scales, size, start)
