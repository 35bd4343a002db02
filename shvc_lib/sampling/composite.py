"""IS-GS: two levels of latents, the upper one coded by importance sampling in groups, the lower one by the greedy sampler.

In a ladder of latents the upper sample z2 decides the prior p(z1 | z2) of the lower level, so a bias up there makes the lower level more expensive. The upper
level is small and can afford `groups`, whose bias is bought down by extra bits; the lower level is large, and its samples go nowhere but into the
picture: `greedy` gives it a number of bits that is known in advance (Flamich 2019, end of section 3.4.3).

A greedy walk over all of a level looks at 2^bits candidates of every dimension in each step, and the number of steps is proportional to the whole
divergence: the time would grow with the square of the image's size. So the level is cut into blocks of neighbouring dimensions that walk by
themselves, each for as many steps as its own divergence asks for, and the numbers of steps are sent. Taught in chapter 3.
"""

import math
from typing import NamedTuple

import numpy as np

from ..coding import Codec, autoregressive
from ..coding.checks import integer, integers, reals
from ..coding.codec import all_or_nothing
from ..errors import InvalidInput
from . import greedy, groups
from .distributions import common_shape
from .index_codes import block, elias_gamma


class Coded(NamedTuple):
    """A coded sample. upper: a `groups.Coded`; shards: steps of each block of the lower level; index: their candidates, block after block (int64)."""

    upper: groups.Coded
    shards: np.ndarray
    index: np.ndarray


def encode(target, proposal, lower, seed, bits=8, width=32, rate=1.0, **grouping):
    """A sample of both levels as a `Coded`.

    target, proposal: of the upper level, Gaussians of shapes that broadcast. lower: a function from the upper sample to (target, proposal) of the
    lower level. Greedy steps have `bits` bits, blocks `width` dimensions, and `rate` greedy bits are spent on a bit of divergence (rounded
    up to whole steps). grouping: the other arguments of `groups.encode`. Raises InvalidInput.
    """
    upper = groups.encode(target, proposal, seed, **grouping)
    target, proposal = lower(groups.decode(upper, proposal, seed))
    shape, first = common_shape(target, proposal), upper.outliers.size  # the random streams of the lower level follow the upper's
    target, proposal = target.flat(shape), proposal.flat(shape)
    parts, kl = _parts(math.prod(shape), width), target.kl(proposal)
    if not reals("rate", rate) > 0:
        raise InvalidInput(f"rate must be positive, got {rate!r}")
    shards = np.array([max(1, math.ceil(rate * kl[part].sum() / bits)) for part in parts])
    index = [greedy.encode(target[part], proposal[part], seed, int(k), bits, first + part.start) for part, k in zip(parts, shards)]
    return Coded(upper, shards, np.concatenate(index))


def decode(coded, proposal, lower_proposal, seed, bits=8, width=32):
    """(upper sample, lower sample). lower_proposal: a function from the upper sample to the proposal of the lower level. Raises InvalidInput."""
    z2 = groups.decode(coded.upper, proposal, seed)
    proposal, first = lower_proposal(z2), z2.size
    flat, parts = proposal.flat(proposal.shape), _parts(math.prod(proposal.shape), width)
    shards, index = integers("shards", coded.shards, 1), integers("index", coded.index, 0)
    if shards.size != len(parts) or shards.sum() != index.size:
        raise InvalidInput(f"{index.size} indices in {shards.size} blocks were given for {math.prod(proposal.shape)} dimensions in blocks of {width}")
    walks = np.split(index, np.cumsum(shards)[:-1])
    z1 = [greedy.decode(walk, flat[part], seed, bits, first + part.start) for part, walk in zip(parts, walks)]
    return z2, np.concatenate(z1).reshape(proposal.shape)


def codec(upper, lower, bits=8, width=32, **grouping):
    """The codec of a `Coded` of `upper` and `lower` dimensions. grouping: the other arguments of `groups.codec`. The number of steps of a block
    costs its Elias gamma code, and a step `bits` bits: a maximum falls on each of the candidates alike."""
    top, blocks = groups.codec(upper, **grouping), len(_parts(lower, width))

    def model():
        shards = yield elias_gamma(blocks)
        yield block(bits, int(shards.sum()) + blocks)

    steps = autoregressive(model)

    def listed(coded):
        return [np.asarray(coded.shards) - 1, coded.index]

    def push(stack, coded):
        with all_or_nothing(stack):
            steps.push(stack, listed(coded))
            top.push(stack, coded.upper)

    def pop(stack):
        with all_or_nothing(stack):
            upper = top.pop(stack)
            shards, index = steps.pop(stack)
        return Coded(upper, shards + 1, index)

    return Codec(push, pop, lambda coded: top.bits(coded.upper) + steps.bits(listed(coded)))


def _parts(size, width):
    width = integer("width", width, 1)
    return [slice(first, min(first + width, size)) for first in range(0, size, width)]
