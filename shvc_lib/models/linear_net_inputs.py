"""What the networks of `linear-net` see of a step: the canvas, with prediction errors that have signs, and its neighbours in units of the scale."""

from functools import lru_cache

import numpy as np

from ..coding.tables import inverse_scales
from .linear import _EARLIER_NEAREST, _NEAREST, _SAME_PASS, LARGE, PASSES, Canvas, record
from .linear_layout import region

INPUT_BITS, INPUT_LIMIT = 7, 12 << 7  # distances go into the network as multiples of 2^-7 of a scale, up to twelve of them
LEVELS, ROWS = 3, 8  # training looks at strides 1, 2 and 4, and there at one row of eight
_WIDER = [[(-3, -3), (-3, 3), (3, -3), (3, 3)], [(-3, -2), (-3, 2), (3, -2), (3, 2), (-2, -3), (-2, 3), (2, -3), (2, 3)], []]
SHIFT = 16 + 11 + 4 - INPUT_BITS  # of (1/16 level) * inverse scale: see `tables.inverse_scales`


def pass_of(step):
    return [len(offsets) for *_, offsets in PASSES].index(len(step.offsets))


def own_neighbours(number, lean):
    """The neighbours of its own colour that the perceptron of a pass sees, and how many of them, nearest first, with their errors."""
    offsets = PASSES[number][2] + _WIDER[number] * (not lean)
    return offsets, _NEAREST if lean else len(offsets)


def size_of(number, earlier, lean):
    """How many inputs the perceptron of a pass has."""
    offsets, errors = own_neighbours(number, lean)
    return len(offsets) + errors + earlier * (1 + _EARLIER_NEAREST + 2 * len(_SAME_PASS)) + 3


@lru_cache(maxsize=1)
def inverse_floats():
    """By what (1/16 level) is multiplied to be in units of a scale, 2^-7 of it, for each index: float32 (192,)."""
    return (inverse_scales() / (1 << SHIFT)).astype(np.float32)


class NetCanvas(Canvas):
    """What encoder and decoder both know so far: pixels, and their prediction errors with signs, in 1/16 of a level."""

    def __init__(self, shape):
        self.pixels = np.zeros(shape, dtype=np.uint8)
        self.residuals = np.zeros(shape, dtype=np.int16)
        self.residuals[0, 0] = 50 * 16  # nothing predicted the corner

    @property
    def missed(self):
        return self.residuals

    def misses(self, step, channel, offsets):
        return np.abs(self.around(self.residuals, step, channel, offsets))

    def write(self, step, symbols, means):
        symbols, means, where = symbols.reshape(step.rows.size, -1), means.reshape(step.rows.size, -1), region(step)
        if self.pixels.size >= LARGE:
            return record(self.pixels[where], self.residuals[where], symbols, means, True)
        self.pixels[where] = symbols
        self.residuals[where] = 16 * symbols - means

    def inputs(self, step, means, scales, lean=False, single=False):
        """What the network sees: int32 (inputs, pixels of the step), multiples of 2^-7. means: `linear`'s in 1/16 level, scales: its scale indices, flat.

        In units of the scale: the neighbours less the mean, the neighbours' own errors; for each earlier colour its error here and around, and its neighbours
        less its pixel here. Then the logarithm of the scale, the mean, and the level. lean: fewer of the neighbours. single: whether units come from one
        product in float32, which IEEE 754 rounds alike everywhere, and not from integers."""
        offsets, errors = own_neighbours(pass_of(step), lean)
        away = [16 * self.around(self.pixels, step, step.channel, offsets) - means, self.around(self.residuals, step, step.channel, offsets[:errors])]
        for channel in step.earlier:
            levels = self.around(self.pixels, step, channel, [(0, 0)] + step.offsets[:_EARLIER_NEAREST] + _SAME_PASS)
            away += [self.around(self.residuals, step, channel, [(0, 0)] + _SAME_PASS), 16 * (levels[1:] - levels[0])]
        away = np.concatenate(away)
        units = np.rint(away.astype(np.float32) * inverse_floats()[scales]) if single else away * inverse_scales()[scales] + (1 << SHIFT - 1) >> SHIFT
        facts = [(scales - 48) * (1 << INPUT_BITS - 4), (means >> 4) - 128, np.full_like(means, min(step.stride.bit_length() - 1, LEVELS - 1) << INPUT_BITS)]
        return np.concatenate([np.clip(units, -INPUT_LIMIT, INPUT_LIMIT), np.stack(facts)]).astype(np.int32)
