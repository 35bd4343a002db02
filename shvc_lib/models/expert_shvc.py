"""`shvc-photo`: an SHVC for photographs whose latents say which expert predicts a block, and whose experts travel with the image.

The coarsest sub-blocks of an image are coded as `linear-net` codes them. At each of the three finest levels that has pixels enough, a block of 8 x 8 of its pixels
has a latent z, one of M = 1, 2, 4 or 8, which the pixels are conditioned on sub-block by sub-block,

    p(x_1, x_2, x_3, z | x_0) = p(z | x_0) p(x_1 | x_0, z) p(x_2 | x_0, x_1, z) p(x_3 | x_0, x_1, x_2, z'),

x_0 the coarser sub-block and x_1 to x_3 the three passes of `linear`. All conditionals share the fitted predictions of `linear` and the hidden layers of a small
perceptron, trained once; its last layer, which turns them into mean and scale, is a mixture of M experts (Jacobs et al. 1991), fitted to the image and sent
with it. A mixture over blocks cannot be coded by itself, symbol by symbol. With z it can, and bits-back coding makes it cost no more than the mixture:

    E_q[-log p(x_1, x_2 | z) p(z) + log q(z)] = -log sum_z p(z) p(x_1, x_2 | z)    for q(z) = p(z | x_0, x_1, x_2).

This posterior is computed, not learned: all experts' opinions of x_1 and x_2 are added up (from a table, exact to about a
hundredth of a nat). Where z comes from when there is but one image is ArIB's trick (`coding.arib`): x_3 does not need z, so it is pushed first, and z is popped
from its bits. What x_3 gets to see instead is z', the expert to which the posterior gives most. From pixels to probabilities all arithmetic is on integers, but
for one product in float32 for each input of the perceptron, which IEEE 754 rounds alike everywhere. Taught in chapter 7.
"""

from functools import lru_cache
from itertools import groupby
from threading import Lock
from typing import NamedTuple

import numpy as np

from ..coding import Ahead, Categorical, Codec, Uniform, autoregressive, independent, laplace, logistic
from ..coding.arib import arib, mode_first
from ..coding.rans import TOTAL
from ..coding.tables import ROW_SIZE, SCALES, cdf_values, constant
from ..errors import InvalidInput
from ..nn.exact_layer import filled
from ..nn.parameters import exact_weights
from .experts import WEIGHT_LIMIT, expert_layers, opinions
from .linear import Parameters, by_rows, default_parameters, parameter_codecs, predict, steps
from .linear_net import LinearNet, codec_of, head_of, in_haste, of_steps, parts_of
from .linear_net_inputs import LEVELS, NetCanvas, pass_of

BLOCK = 8  # pixels a side that share a latent
NUMBERS = (0, 1, 2, 4, 8)  # of experts, as counted in the stream; with none, a level is coded as `linear-net` codes it
CONTEXTS, FLATTEST = 8, 6  # the prior of z knows how busy the coarse pixels of a block are: up to 2^6 levels in all, twice that, ...
SHARE_LIMIT = 256  # a prior is sent as shares 1 ... 256
SCALE_CHOICES = 16  # scales of the Laplace under which these are sent: e^(i / 4 - 1)
DISTANCES = 512  # of a symbol from a mean that are told apart when experts are compared
FIRST = 2  # passes that see z; the third is the rest


class ExpertSHVC(LinearNet):
    """The perceptrons of a `LinearNet` with one component; nothing else about it is trained. Raises InvalidInput."""

    single = True  # saves a tenth of the decoder's time

    def __init__(self, width=24, components=1, lean=True):
        super().__init__(width, components, lean)
        if components != 1:
            raise InvalidInput(f"an expert has one component, not {components}")


class Fine(NamedTuple):
    """A step of a level: its `Step`, what `linear` sent for it (or its defaults), and its experts, int32 (M, 2, width + 2): for offset and log scale
    what is added to each weight of the last layer, to its bias, and per e^4 times the scale."""

    step: object
    parameters: Parameters
    experts: np.ndarray


def blocks_of(step):
    """(row, column) of the block that each row and each column of a step lies in: two int64 arrays."""
    return step.rows // (BLOCK * step.stride), step.columns // (BLOCK * step.stride)


def contexts(pixels):
    """How busy the coarse sub-block of each block is, 0 ... CONTEXTS - 1: int64 (rows of blocks, columns of blocks). pixels: of a level, uint8 (H, W, C)."""
    coarse = pixels[::2, ::2].astype(np.int16)
    height, width = (-(-side // BLOCK) for side in pixels.shape[:2])
    busy = np.zeros((height * BLOCK // 2, width * BLOCK // 2), dtype=np.int16)
    for colour in np.moveaxis(coarse, 2, 0):
        busy[:len(coarse) - 1, :coarse.shape[1]] += np.abs(colour[1:] - colour[:-1])
        busy[:len(coarse), :coarse.shape[1] - 1] += np.abs(colour[:, 1:] - colour[:, :-1])
    busy = busy.reshape(height, BLOCK // 2, -1).sum(1, dtype=np.int32).reshape(height, width, BLOCK // 2).sum(2)
    return np.searchsorted(1 << FLATTEST + np.arange(CONTEXTS - 1), busy)


def prior_masses(shares):
    """Shares 1 ... 256, (CONTEXTS, M) -> int64 masses that sum to 2^24 in every row."""
    masses = shares.astype(np.int64) * TOTAL // shares.sum(1, keepdims=True)
    masses[:, 0] += TOTAL - masses.sum(1)
    return masses


class Level:
    """A level of an image, given everything coarser on `canvas` (and, for an encoder, everything): `codec()` is that of ([symbols of each step of the first two
    passes], [of the third]), flat int32 arrays. fine: a `Fine` for each step; masses: of `prior_masses`; pool: of threads to help, or None."""

    def __init__(self, net, canvas, fine, masses, pool=None):
        self.net, self.canvas, self.fine, self.pool, self.count = net, canvas, fine, pool, masses.shape[1]
        context = contexts(canvas.pixels[::(stride := fine[0].step.stride), ::stride])
        self.fast, self.masses, self.sides = in_haste(net, canvas), masses[context.reshape(-1)], context.shape
        self.layers = [expert_layers(net, own.step, own.experts) for own in fine]
        self.half = sum(pass_of(own.step) < FIRST for own in fine)
        self._nats = np.zeros((*self.sides, self.count), dtype=np.int64), set()  # log p(first | z), and the steps that are in it
        self._lock, self._learning = Lock(), []
        self._opinions = {}  # number of a step: (means of `linear` (R, C), means and scales of the experts (R, M, C)), int32

    def codec(self):
        """The Codec, by ArIB."""
        return arib(independent(Categorical(self.masses)), lambda z: self.given(range(self.half), z),
                    lambda first: mode_first(Categorical(self.posterior(first))),
                    lambda first: self.given(range(self.half, len(self.fine)), self.posterior(first).argmax(1)))

    def _everyone(self, number):
        """What `linear` and all experts say of a step of which everything is known: see `_opinions`."""
        if number not in self._opinions:
            step, parameters, _ = self.fine[number]
            shape = step.rows.size, step.columns.size
            if self.fast:
                all_means, all_scales = np.empty((2, shape[0], self.count, shape[1]), dtype=np.int16)
                fill, means, *_ = self._compiled(number, np.zeros(self.sides, dtype=np.int64), all_means, all_scales)
                fill(0, shape[0])
            else:
                [(means, classes)] = predict(self.canvas, step, parameters)
                found = opinions(self.net, self.canvas, step, means, parameters.scales[classes], *self.layers[number])
                all_means, all_scales = (np.moveaxis(values.reshape(*shape, -1), 2, 1) for values in found)
            self._opinions[number] = means.reshape(shape), all_means, all_scales
        return self._opinions[number]

    def _compiled(self, number, z, all_means, all_scales):
        """(fill, means of `linear`, means, scales, weights): see `linear_net_compiled.mixtures_by_rows`."""
        from .linear_net_compiled import layers_of, mixtures_by_rows  # here: numba takes half a second to import
        (step, parameters, _), (layer, tuning) = self.fine[number], self.layers[number]
        layers = *layers_of(head_of(self.net, step)[:4]), filled(*layer)
        return mixtures_by_rows(self.net, self.canvas, step, parameters, layers, tuning, (z, *blocks_of(step), all_means, all_scales))

    def _known(self, number, z):
        """IntegerCDF of a step's symbols given z where everything is known."""
        rows, columns = blocks_of(self.fine[number].step)
        which = z.reshape(self.sides)[rows[:, None], columns][:, None]
        return logistic(*(np.take_along_axis(values, which, 1).reshape(-1) for values in self._everyone(number)[1:]))

    def _next(self, number, z, stack):
        """Pop a step's symbols given z and write them on the canvas."""
        step = self.fine[number].step
        if self.fast:
            opinions = np.empty((2, step.rows.size, self.count, step.columns.size), dtype=np.int16)
            fill, means, *chosen, _ = self._compiled(number, z.reshape(self.sides).astype(np.int64), *opinions)
            symbols = stack.pop(cdf := Ahead(fill, *chosen, None, self.pool))
            cdf.finish()
        else:
            symbols = stack.pop(self._known(number, z))
            means, *opinions = self._opinions.pop(number)
        self.canvas.write(step, symbols, means.reshape(-1))
        if number < self.half and self.count > 1:
            learn = self.pool.submit if self.pool else lambda function, *arguments: function(*arguments)
            self._learning.append(learn(self._learn, number, symbols, *opinions))
        return symbols

    def given(self, numbers, z):
        """Codec of the symbols of some steps given z, int (blocks,)."""
        def push(stack, symbols):
            for number, own in zip(reversed(numbers), reversed(symbols)):
                stack.push(own, self._known(number, z))

        return Codec(push, lambda stack: [self._next(number, z, stack) for number in numbers],
                     lambda symbols: float(sum(self._known(number, z).bits(own).sum() for number, own in zip(numbers, symbols))))

    def _learn(self, number, symbols, means, scales):
        """Add what a step of the first part says of z, the experts having said this of it."""
        nats, seen = self._nats
        with self._lock:
            add_log_masses(symbols.reshape(len(means), -1), means, scales, *blocks_of(self.fine[number].step), nats, self.fast)
            seen.add(number)

    def posterior(self, first):
        """q(z | first) as masses: int64 (blocks, M), rows sum to 2^24. As exact as `log_masses`."""
        if self.count == 1:
            return self.masses
        for promise in filter(None, self._learning):
            promise.result()
        for number, symbols in enumerate(first):
            if number not in self._nats[1]:  # an encoder, which knows everything
                self._learn(number, symbols, *self._everyone(number)[1:])
        return exact_weights(self._nats[0].reshape(-1, self.count) + log_of(self.masses)).astype(np.int64) * 4092 + (TOTAL - 4096 * 4092) // self.count


def log_of(masses):
    """round(2^12 ln(mass)) of masses 1 ... 2^24, by a table of the first 2^14 and two shifts: int64."""
    table = log_table()
    masses = np.asarray(masses, dtype=np.int64)
    shift = np.where(masses >= 1 << 19, 10, np.where(masses >= 1 << 14, 5, 0))
    return table[masses >> shift] + shift // 5 * table[1 << 5]


@lru_cache(maxsize=1)
def log_table():
    """round(2^12 ln(n)) for n = 1 ... 2^14, with 0 for 0: int64. No value is so near to the middle of two integers that a logarithm could be rounded wrongly."""
    return constant(np.concatenate([[0], np.rint(4096 * np.log(np.arange(1, (1 << 14) + 1)))]).astype(np.int64))


@lru_cache(maxsize=1)
def log_masses():
    """(table, tails, shifts): what a logistic says of a symbol, its logarithm in 2^-12. table, int32 (192, 512): by scale index and distance of symbol and mean in
    1/16 level >> shifts[scale index], beyond the last like the last; tails, int32 (192, 1024): of the first and the last symbol, which take the tails, by how far
    the mean lies beyond it, >> the shift, plus 512; shifts: int64. From the integer CDF; above scales of two levels distances are rounded down a little."""
    scales = np.arange(SCALES)[:, None]
    shifts = np.maximum(0, -(-(scales - 58) // 11))  # sixteen scales are in a row, or all that it has room for

    def logs(upper, lower):
        return constant((log_of(upper - lower + 1) - log_of(TOTAL)).astype(np.int32))

    def cdf(distances):
        return cdf_values("logistic", TOTAL - ROW_SIZE, distances, scales)

    near = np.arange(DISTANCES) << shifts
    return logs(cdf(near + 8), cdf(near - 8)), logs(cdf((np.arange(-DISTANCES, DISTANCES) << shifts) + 8), 0), constant(shifts[:, 0])


def add_log_masses(symbols, means, scales, rows, columns, nats, fast):
    """Add to nats, int64 (rows of blocks, columns of blocks, M), what M logistics say of symbols: see `log_masses`. symbols: int32 (R, C); means, scales: integers
    (R, M, C); rows, columns: the blocks of the R rows and C columns."""
    table, tails, shifts = log_masses()
    if fast:
        from .expert_compiled import add_log_masses  # here: numba takes half a second to import
        return add_log_masses(np.asarray(symbols, dtype=np.int32), means, scales, rows, columns, table, tails, shifts, nats)
    symbols, means, shift = symbols[:, None].astype(np.int64), means.astype(np.int64), shifts[scales]
    found = table[scales, np.minimum(np.abs(16 * symbols - means) >> shift, DISTANCES - 1)]
    beyond = np.where(symbols == 0, -means, means - 16 * symbols) >> shift
    ends = tails[scales, np.clip(beyond + DISTANCES, 0, 2 * DISTANCES - 1)]
    np.add.at(nats, (rows[:, None], columns), np.moveaxis(np.where((symbols == 0) | (symbols == ROW_SIZE - 1), ends, found), 1, 2))


def weight_codec(shape, choice):
    """The Codec of a step's experts, int32 of this shape, under the Laplace with the scale e^(choice / 4 - 1)."""
    zeros = np.zeros(shape, dtype=np.int32)
    return independent(laplace(zeros, zeros + 32 + 4 * choice, 2 * WEIGHT_LIMIT, -WEIGHT_LIMIT))


def _model(net, canvas, pool):
    """The image's distribution after the corner pixel as a generator in decoding order, which leaves the image on an empty canvas."""
    for stride, chosen in groupby(steps(canvas.pixels.shape), lambda step: step.stride):
        number = int((yield independent(Uniform(len(NUMBERS)), 1))[0]) if stride < 1 << LEVELS else 0
        if number:
            yield (yield from _level(net, canvas, list(chosen), NUMBERS[number], pool)).codec()
        else:
            yield from of_steps(net, canvas, chosen, pool)


def _level(net, canvas, chosen, count, pool):
    """The `Level` of these steps with so many experts; yields the codecs of what it has to be told."""
    shares, fine = (yield independent(Uniform(SHARE_LIMIT, 1), CONTEXTS * count)).reshape(CONTEXTS, count), []
    for step in chosen:
        parameters = default_parameters(step)
        if (yield independent(Uniform(2), 1))[0]:
            mean, spread, scales = parameter_codecs(step)
            parameters = Parameters((yield mean), (yield spread), (yield scales))
        choice = int((yield independent(Uniform(SCALE_CHOICES), 1))[0])
        fine.append(Fine(step, parameters, (yield weight_codec((count, 2, head_of(net, step)[4].weight.shape[1] + 2), choice))))
    return Level(net, canvas, fine, prior_masses(shares), pool)


def _parts(net, canvas, chosen):
    """The codecs that `_model` will yield, and their values, in order; the level itself is a Level in the place of its codec."""
    from .expert_fit import fit, most  # only the encoder fits
    found = []
    for stride, choices in groupby(chosen, lambda choice: choice[0].stride):
        fitted = None
        if stride < 1 << LEVELS:
            if number := most(canvas.pixels[::stride, ::stride]):
                choices = list(choices)  # from here on the canvas holds the whole level
                fitted = fit(net, canvas, choices, number)
            found.append((independent(Uniform(len(NUMBERS)), 1), np.array([0 if fitted is None else NUMBERS.index(number)])))
        found += [part for choice in choices for part in parts_of(net, canvas, *choice)] if fitted is None else _told(net, canvas, choices, *fitted)
    return found


def _told(net, canvas, choices, shares, experts, scales):
    """What `_level` will yield and the codec of the level, with their values."""
    found = [(independent(Uniform(SHARE_LIMIT, 1), shares.size), shares.reshape(-1))]
    for (step, sent, parameters, *_), own, scale in zip(choices, experts, scales):
        found += [(independent(Uniform(2), 1), np.array([sent])), *[*zip(parameter_codecs(step), parameters)] * sent,
                  (independent(Uniform(SCALE_CHOICES), 1), np.array([scale])), (weight_codec(own.shape, scale), own)]
    level = Level(net, canvas, [Fine(own[0], own[2], weights) for own, weights in zip(choices, experts)], prior_masses(shares))
    symbols = [own[4] for own in choices]
    return [*found, (level, (symbols[:level.half], symbols[level.half:]))]


def levels(net, image):
    """The levels of a uint8 image (H, W, 1 or 3) that have experts, fitted to it, coarsest first: [(Level, (its symbols of the first two passes, of the third))].
    To look at."""
    from .linear_fit import choices  # only the encoder fits
    canvas = NetCanvas(image.shape)
    canvas.pixels[0, 0] = image[0, 0]
    return [(own, values) for own, values in _parts(net, canvas, choices(image, canvas)) if isinstance(own, Level)]


def codec(net, shape):
    """The Codec of uint8 images of `shape` (H, W, 1) or (H, W, 3) under an exact twin of an ExpertSHVC. push and bits raise InvalidInput for other images."""
    return codec_of(shape, lambda canvas, chosen: [(own.codec() if isinstance(own, Level) else own, values) for own, values in _parts(net, canvas, chosen)],
                    lambda canvas, pool: _model(net, canvas, pool))
