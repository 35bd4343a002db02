"""Bits-back coding: a code for x from a model that only knows x by way of a hidden cause z.

The model has a prior p(z) and a likelihood p(x | z); what x costs by itself, -log2 sum_z p(x, z), cannot be had. Sending some z and then x
given z costs too much, because many z would have done. So z is *popped*: the bits already on the stack choose it under an approximate
posterior q(z | x), and the decoder, which knows x by then, pushes those very bits back (Frey and Hinton 1997; with ANS, BB-ANS,
Townsend et al. 2019). The stack grows by

    -log2 p(x | z) - log2 p(z) + log2 q(z | x)        on average the negative ELBO, eq (2) of SHVC (Ryder et al. 2022), in bits.

A Markov chain of latents x <- z_1 <- ... <- z_L (eqs 11-12) can be treated as one large latent (`bb_ans`: pop them all, then push
everything), or each level can be the prior of the one below (`bit_swap`, Kingma et al. 2019): then p(x | z_1) is pushed before z_2 is popped,
and the stack never has to lend more than the first level needs. Taught in chapter 2.
"""

from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptFile, InvalidInput, OutOfBits
from .bitstack import BitStack
from .codec import Codec, all_or_nothing, autoregressive

_SCRATCH_BITS = [1 << 20, 1 << 24, 1 << 28, 1 << 32]  # initial bits behind the sample of z that `bits` looks at: the first that suffice


def bits_back(prior, likelihood, posterior):
    """Codec of x from `prior`, a Codec of z; `likelihood(z)`, a Codec of x; `posterior(x)`, a Codec of z.

    push pops z under the posterior first and so raises OutOfBits (the stack unchanged) when there is too little to borrow.
    pop raises OutOfBits or, when it finds a z that the posterior of its x could not have drawn, CorruptFile: no push left such a stack.
    `bits(x)` is the net cost for one z, drawn by bits that are always the same: what another stack's z costs differs.
    """

    def push(stack, x):
        with all_or_nothing(stack):
            z = posterior(x).pop(stack)
            likelihood(z).push(stack, x)
            prior.push(stack, z)

    def pop(stack):
        with all_or_nothing(stack):
            z = prior.pop(stack)
            x = likelihood(z).pop(stack)
            encoder = posterior(x)
            try:
                encoder.push(stack, z)
            except InvalidInput as error:
                raise CorruptFile(f"this codec has not written what is on the stack, or other numbers came out of its model: {error}") from None
            return x

    def bits(x):
        encoder = posterior(x)
        z = _draw(encoder)
        return likelihood(z).bits(x) + prior.bits(z) - encoder.bits(z)

    return Codec(push, pop, bits)


def _draw(codec):
    for bits in _SCRATCH_BITS[:-1]:
        try:
            return codec.pop(BitStack.random(bits))
        except OutOfBits:
            continue
    return codec.pop(BitStack.random(_SCRATCH_BITS[-1]))


def _levels(likelihoods, posteriors):
    if not likelihoods or len(likelihoods) != len(posteriors):
        raise InvalidInput(f"a hierarchy needs as many posteriors as likelihoods, got {len(posteriors)} and {len(likelihoods)}")
    return list(zip(likelihoods, posteriors))


def bit_swap(prior, likelihoods, posteriors):
    """Codec of x for a Markov chain of latents, level by level (Bit-Swap).

    prior: Codec of z_L. likelihoods: functions [z_1 -> Codec of x, z_2 -> Codec of z_1, ...]; posteriors:
    functions [x -> Codec of z_1, z_1 -> Codec of z_2, ...]; L of each. The codec of z_(l-1), itself a bits-back codec with latent
    z_l, is the prior of the level below.
    """
    for likelihood, posterior in reversed(_levels(likelihoods, posteriors)):
        prior = bits_back(prior, likelihood, posterior)
    return prior


def bb_ans(prior, likelihoods, posteriors):
    """Codec of x for a Markov chain of latents as one latent (z_1, ..., z_L): all are popped before anything is pushed.
    Arguments as for `bit_swap`, and the same net cost; only the initial bits differ."""
    levels = _levels(likelihoods, posteriors)

    def generate():  # p(z_L) p(z_(L-1) | z_L) ... p(z_1 | z_2), in decoding order
        z = yield prior
        for likelihood, _ in levels[:0:-1]:
            z = yield likelihood(z)

    def infer(x):  # q(z_1 | x) q(z_2 | z_1) ...
        for _, posterior in levels:
            x = yield posterior(x)

    def reversed_list(codec):  # generated from the top, inferred from the bottom: one order for both
        return Codec(lambda stack, z: codec.push(stack, z[::-1]), lambda stack: codec.pop(stack)[::-1], lambda z: codec.bits(z[::-1]))

    return bits_back(reversed_list(autoregressive(generate)), lambda z: levels[0][0](z[0]), lambda x: autoregressive(lambda: infer(x)))


class Ledger(NamedTuple):
    """What coding cost, in bits. `net`: growth of the stack; `initial`: how far below its start the stack had to go;
    `total` = net + initial: what the message costs by itself, its initial bits sent along. Integers; over `Lanes`, int64 arrays with one per lane."""

    net: Any
    initial: Any

    @property
    def total(self):
        return self.net + self.initial


class _Metered:
    """A BitStack or Lanes that remembers in `lowest` the level that pops brought it to at most."""

    def __init__(self, stack):
        self._stack, self.lowest = stack, stack.bits

    def __getattr__(self, name):
        return getattr(self._stack, name)

    def pop(self, cdf, count=None):
        symbols, bits = self._stack.pop(cdf, count), self._stack.bits
        self.lowest = np.minimum(self.lowest, bits) if np.ndim(bits) else min(self.lowest, bits)
        return symbols


def push_chain(codec, values, stack):
    """Push `values` one on top of the other; returns a Ledger per value. Each one's `initial` is what it would need if it came
    first: how far it dips below the level at which it began. The chain as a whole borrows only the first one's, if the others' dips
    are shallower than what has been pushed by then. On an error the stack is as it was.

    stack: a BitStack, or `lanes.Lanes` and a codec of batches: then every value is a batch. Pop them in reverse:
    `[codec.pop(stack) for _ in values][::-1]`; the stack is then back at its initial bits, bit for bit.
    """
    ledgers = []
    with all_or_nothing(stack):
        for value in values:
            metered = _Metered(stack)
            start = metered.lowest
            codec.push(metered, value)
            ledgers.append(Ledger(metered.bits - start, start - metered.lowest))
    return ledgers
