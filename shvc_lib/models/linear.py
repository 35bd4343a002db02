"""`linear`: a lossless image model with no training and no neural network.

The pixels arrive in interlaced passes. One corner pixel comes first; then the grid of known pixels is refined, from stride 2^L
down to 1, in three passes per level (odd rows and columns, even rows with odd columns, odd rows with even columns), so that every later pixel lies
between known ones. Within a pass each channel is one vectorised step: the mean of every pixel is a linear function of its known neighbours, in this
channel and in those already coded; its spread is a linear function of how badly those neighbours were predicted; the symbol is coded
under a discretised logistic. It is the skeleton of SHVC: sub-blocks of the image in order, everything inside a sub-block in parallel.

The linear functions are fitted to the image (`linear_fit`) and travel in the stream where they pay for themselves; small
steps use the built-in ones. From pixels to CDFs all arithmetic is on integers. Taught in chapter 1, *Codes*.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..coding import Ahead, Codec, Uniform, autoregressive, independent, laplace, logistic
from ..coding.ahead import helpers
from ..coding.tables import constant
from ..errors import InvalidInput
from .linear_layout import bands, layout, reflect, region

MEAN_BITS, SPREAD_BITS = 12, 8  # fractional bits of the coefficients of mean and spread
MEAN_LIMIT, SPREAD_LIMIT = 1 << 15, 1 << 10  # -limit <= mean coefficient < limit, 0 <= spread coefficient < limit
CLASSES = 24  # spread classes, each with a scale of its own
_THRESHOLDS = np.array([2, 3, 3, 5, 6, 8, 11, 14, 18, 24, 32, 42, 56, 74, 97, 128, 169, 223, 294, 388, 512, 676, 891])  # 2 * 2^(b / 2.5), in 1/16 level

# Per pass: row and column parity, and the known neighbours (row, column) in units of the level's stride, nearest first.
_DIRECT = [(0, -1), (0, 1), (-1, 0), (1, 0)]
_DIAGONAL = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
_FAR_DIAGONAL = [(-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (-3, 1), (3, -1), (3, 1)]
_FAR_DIRECT = [(-1, -2), (-1, 2), (1, -2), (1, 2), (-2, -1), (-2, 1), (2, -1), (2, 1), (0, -3), (0, 3), (-3, 0), (3, 0)]
PASSES = [(1, 1, _DIAGONAL + _FAR_DIAGONAL), (0, 1, _DIRECT + _FAR_DIRECT), (1, 0, _DIRECT + _DIAGONAL + _FAR_DIRECT)]
_SAME_PASS = [(0, -2), (0, 2), (-2, 0), (2, 0)]  # known in the channels coded before, not in this one
_NEAREST, _EARLIER_NEAREST = 4, 8  # how many of a list's first entries count as near, in this channel and in earlier ones
_EARLIER = 1 + _EARLIER_NEAREST + len(_SAME_PASS)  # features of the mean from each earlier channel
LARGE = 1 << 18  # sub-pixels of an image from which on compiled code predicts them
_BAND = 1 << 17  # pixels predicted at a time: large images must not need memory for all features at once


class Parameters(NamedTuple):
    """What one step may send: coefficients of the mean (units of 2^-12), of the spread (2^-8), a scale index per class. int32."""

    mean: np.ndarray
    spread: np.ndarray
    scales: np.ndarray


class Step(NamedTuple):
    """One channel of one pass at one level; `rows` and `columns` of the image, `earlier` the channels known there already."""

    stride: int
    offsets: list
    channel: int
    earlier: list
    rows: np.ndarray
    columns: np.ndarray


def steps(shape):
    """The steps after the corner pixel, in coding order, for an image of shape (H, W, C)."""
    height, width, channels = shape
    # Green first, the others given what came before: it says most about the rest.
    order = [1, 0, *range(2, channels)] if channels >= 3 else list(range(channels))
    for level in reversed(range(max(height - 1, width - 1).bit_length())):
        stride = 1 << level
        for odd_row, odd_column, offsets in PASSES:
            rows = np.arange(odd_row * stride, height, 2 * stride)
            columns = np.arange(odd_column * stride, width, 2 * stride)
            if rows.size and columns.size:
                for position, channel in enumerate(order):
                    yield Step(stride, offsets, channel, order[:position][-2:], rows, columns)


class Canvas:
    """What encoder and decoder both know so far: pixels, and the size of each one's prediction error in 1/16 of a level."""

    def __init__(self, shape):  # see also `linear_deep.DeepCanvas`
        self.pixels = np.zeros(shape, dtype=np.uint8)
        self.errors = np.zeros(shape, dtype=np.uint16)
        self.errors[0, 0] = 50 * 16  # nothing predicted the corner

    @property
    def missed(self):
        """The prediction errors, with or without signs: integers (H, W, C), 1/16 level."""
        return self.errors

    def around(self, planes, step, channel, offsets):
        """Channel `channel` of `planes` (H, W, C) at the offsets from every pixel of the step: int32 (offsets, pixels)."""
        height, width, _ = self.pixels.shape
        plane, out = planes[..., channel], np.empty((len(offsets), step.rows.size * step.columns.size), dtype=np.int32)
        rows = {dy: reflect(step.rows + dy * step.stride, step.stride, height) for dy in {dy for dy, _ in offsets}}
        columns = {dx: reflect(step.columns + dx * step.stride, step.stride, width) for dx in {dx for _, dx in offsets}}
        whole = step.columns.size >= width // 16  # then whole rows first, and their columns after that, is twice as fast
        rows = {dy: plane[own] if whole else own[:, None] for dy, own in rows.items()}
        for values, (dy, dx) in zip(out, offsets):
            values[:] = (rows[dy][:, columns[dx]] if whole else plane[rows[dy], columns[dx]]).reshape(-1)
        return out

    def misses(self, step, channel, offsets):
        """The sizes of the errors at the offsets, as `around` returns them."""
        return self.around(self.errors, step, channel, offsets)

    def features(self, step):
        """(features of the mean, features of the spread): int32 arrays (features, pixels of the step)."""
        own = self.around(self.pixels, step, step.channel, step.offsets)
        errors = self.misses(step, step.channel, step.offsets)
        mean, spread = [own], [
            errors[:_NEAREST].sum(0) // _NEAREST,
            errors[_NEAREST:].sum(0) // (len(step.offsets) - _NEAREST),
            16 * np.ptp(own[:_NEAREST], axis=0),
        ]
        for channel in step.earlier:
            mean.append(self.around(self.pixels, step, channel, [(0, 0)] + step.offsets[:_EARLIER_NEAREST] + _SAME_PASS))
            errors_there = self.misses(step, channel, [(0, 0)] + _SAME_PASS)
            spread += [errors_there[0], errors_there[1:].sum(0) // len(_SAME_PASS)]
        return np.concatenate(mean), np.stack(spread)

    def write(self, step, symbols, means):
        """Record the step's symbols (levels) and their distances from the predicted means (1/16 level). Flat arrays."""
        symbols, means, where = symbols.reshape(step.rows.size, -1), means.reshape(step.rows.size, -1), region(step)
        if self.pixels.size >= LARGE:
            return record(self.pixels[where], self.errors[where], symbols, means, False)
        self.pixels[where] = symbols
        self.errors[where] = np.abs(16 * symbols - means)


def default_parameters(step):
    """Without a fit: the mean of the four nearest neighbours, moved as far as the earlier channels are from the means of their own
    four (0.4 of the first one's distance and 0.6 of the second's). Spread and scales suit small pictures of anything. Not to be written to."""
    return _defaults(len(step.offsets), len(step.earlier))


@lru_cache(maxsize=None)
def _defaults(offsets, earlier):
    """The same for steps of so many offsets and earlier channels."""
    mean = np.zeros(offsets + _EARLIER * earlier, dtype=np.int32)
    mean[:_NEAREST] = (1 << MEAN_BITS) // _NEAREST
    shares = {0: (), 1: (4096,), 2: (1640, 2456)}[earlier]
    for k, share in enumerate(shares):
        first = offsets + _EARLIER * k
        mean[first] = share
        mean[first + 1:first + 1 + _NEAREST] = -share // _NEAREST
    spread = [70, 50, 4] + [60, 40] * earlier if earlier else [100, 70, 25]
    scales = 4 + np.arange(CLASSES) * 17 // 4
    return Parameters(*(constant(np.asarray(values, dtype=np.int32)) for values in (mean, spread, scales)))


def _linear(parameters, mean_features, spread_features):
    """(means in 1/16 level, spread classes) from features, by integer arithmetic: two int32 arrays."""
    means = (parameters.mean @ mean_features + (1 << MEAN_BITS - 5)) >> (MEAN_BITS - 4)
    spread = parameters.spread @ spread_features >> SPREAD_BITS
    return np.clip(means, 0, 16 * 255), np.searchsorted(_THRESHOLDS, spread, side="right").astype(np.int32)


def predict(canvas, step, *parameters):
    """(means in 1/16 level, spread classes) of the step's pixels under each of `parameters`: a list of pairs of flat int32 arrays."""
    if canvas.pixels.size >= LARGE:
        return _predict_compiled(canvas, step, parameters)
    found = [[_linear(one, *canvas.features(part)) for one in parameters] for part, _ in bands(step, _BAND)]
    return [tuple(np.concatenate(parts) for parts in zip(*same)) for same in zip(*found)]


def _predict_compiled(canvas, step, parameters):
    """The same by compiled code."""
    found = []
    for one in parameters:
        fill, means, classes = by_rows(canvas, step, one, np.arange(CLASSES))
        fill(0, len(means))
        found.append((means.reshape(-1), classes.reshape(-1)))
    return found


def by_rows(canvas, step, parameters, of_class):
    """(fill, means, values): two empty arrays, int32 (R, C), and fill(first, last), compiled code that writes into their rows first ... last - 1 the means of
    the step's pixels (1/16 level) and what `of_class` says of their classes: for `parameters.scales` the indices of their scales."""
    from .linear_compiled import means_and_classes  # here: numba takes half a second to import

    means, values = np.empty((2, step.rows.size, step.columns.size), dtype=np.int32)
    known = (canvas.pixels, canvas.missed, np.array([step.channel, *step.earlier]), *layout(step, [*step.offsets, (0, 0), *_SAME_PASS], canvas.pixels.shape),
             *as_compiled(step, parameters, of_class))
    return lambda first, last: means_and_classes(*known, first, last, means, values), means, values


def as_compiled(step, parameters, of_class):
    """What compiled code takes of a step's parameters: its number of offsets, coefficients of mean and spread with their shifts, and of every spread what
    `of_class` says of its class."""
    return (len(step.offsets), parameters.mean.astype(np.int64), parameters.spread.astype(np.int64), MEAN_BITS - 4, SPREAD_BITS,
            np.asarray(of_class, dtype=np.int32)[_class_of()])


def record(pixels, errors, symbols, means, signs):
    """Write symbols, int (R, C), and 16 times these less the means, with or without their signs, into views of a canvas: compiled code, one row at a time."""
    from .linear_compiled import record  # here: numba takes half a second to import

    record(pixels, errors, np.asarray(symbols, dtype=np.int32), np.asarray(means, dtype=np.int32), signs)


@lru_cache(maxsize=1)
def _class_of():
    """The class of every spread up to the last threshold: int32. Larger ones are in the last class, too."""
    return np.searchsorted(_THRESHOLDS, np.arange(_THRESHOLDS[-1] + 1), side="right").astype(np.int32)


def parameter_codecs(step):
    """How a step's fitted parameters are coded: around the defaults, with heavy tails. One codec per field of `Parameters`."""
    return _codecs(len(step.offsets), len(step.earlier))


@lru_cache(maxsize=None)
def _codecs(offsets, earlier):
    """The same for steps of so many offsets and earlier channels."""
    default = _defaults(offsets, earlier)
    return Parameters(
        independent(laplace(16 * default.mean, np.full_like(default.mean, 144), 2 * MEAN_LIMIT, -MEAN_LIMIT)),
        independent(laplace(16 * default.spread, np.full_like(default.spread, 108), SPREAD_LIMIT)),
        independent(laplace(16 * default.scales, np.full_like(default.scales, 72), 192)),
    )


def _model(canvas):
    """The image's distribution as a generator in decoding order (see `coding.autoregressive`), which leaves the image on an empty canvas."""
    with helpers() as pool:
        yield from _steps(canvas, pool)


def _steps(canvas, pool):
    """The same; pool: of threads to help, or None."""
    shape = canvas.pixels.shape
    canvas.pixels[0, 0] = yield independent(Uniform(256), shape[2])
    for step in steps(shape):
        parameters = default_parameters(step)
        if (yield independent(Uniform(2), 1))[0]:
            mean, spread, scales = parameter_codecs(step)
            parameters = Parameters((yield mean), (yield spread), (yield scales))
        if canvas.pixels.size >= LARGE:
            fill, means, scales = by_rows(canvas, step, parameters, parameters.scales)
            symbols = yield (cdf := Ahead(fill, means[..., None], scales[..., None], None, pool))
            cdf.finish()
            means = means.reshape(-1)
        else:
            [(means, classes)] = predict(canvas, step, parameters)
            symbols = yield logistic(means, parameters.scales[classes])
        canvas.write(step, symbols, means)


def codec(shape, depth=8):
    """The Codec of images of shape (H, W, C): push(stack, image), pop(stack) -> image, bits(image). depth: 8 for uint8 or 16 for uint16
    images (`linear_deep`). push and bits raise InvalidInput for an image of another dtype or shape."""
    from . import linear_deep  # imports this module

    if depth not in (8, 16):
        raise InvalidInput(f"depth must be 8 or 16 bits per sample, got {depth!r}")
    inner = linear_deep.codec(shape) if depth == 16 else _codec(shape)
    dtype = np.dtype(f"uint{depth}")

    def checked(image):
        image = np.asarray(image)
        if image.dtype != dtype or image.shape != tuple(shape):
            raise InvalidInput(f"this codec takes {dtype} images of shape {tuple(shape)}, got {image.dtype} of shape {image.shape}")
        return image

    return Codec(lambda stack, image: inner.push(stack, checked(image)), inner.pop, lambda image: inner.bits(checked(image)))


def _codec(shape):
    from .linear_fit import requests  # only the encoder fits

    inner = autoregressive(lambda: _model(Canvas(shape)))

    def pop(stack):
        canvas = Canvas(shape)
        autoregressive(lambda: _model(canvas)).pop(stack)
        return canvas.pixels

    return Codec(lambda stack, image: inner.push(stack, requests(image)), pop, lambda image: inner.bits(requests(image)))
