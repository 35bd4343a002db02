"""`linear` for 16-bit images: the same passes, neighbours and spreads, and what 65536 levels need besides.

Three things differ from the 8-bit model. Channels first say which levels they use (`linear_wide.Levels`), and pixels are counted in these. Predictions
start from the mean
of the four nearest neighbours and add a linear function of how far all neighbours are from their channel's such mean: coefficients of 13 bits would
otherwise be too coarse for a bright smooth sky, where 2^-13 of the level is more than the error. There are 47 spread classes, as far as spreads of
40 000 levels, and a fit sends the scales of those that occur. Symbols are coded by `linear_wide.wide`.

The dot products are done in floating point, but exactly: every product and every sum is an integer below 2^53, whatever the order of the additions.
"""

import numpy as np

from ..coding import Codec, Uniform, autoregressive, independent, laplace
from .linear import _EARLIER, _NEAREST, Canvas, Parameters, steps
from .linear_wide import WIDE_SCALES, levels, wide

MEAN_BITS, SPREAD_BITS = 13, 8  # fractional bits of the coefficients of mean and spread
MEAN_LIMIT, SPREAD_LIMIT = 1 << 15, 1 << 10  # -limit <= mean coefficient < limit, 0 <= spread coefficient < limit
CLASSES = 47  # spread classes
_TWO_OCTAVES = np.array([2048, 2702, 3566, 4705, 6208])  # 2^11 * 2^(b / 2.5)
_THRESHOLDS = np.concatenate([(_TWO_OCTAVES << 2 * k) + 512 >> 10 for k in range(10)])[:CLASSES - 1]  # 2 * 2^(b / 2.5), in 1/16 level
_BAND = 1 << 16  # pixels predicted at a time


class DeepCanvas(Canvas):
    """What encoder and decoder know so far: pixels 0 ... top[channel], and the size of each one's prediction error in 1/16 of a level."""

    def __init__(self, shape, tops):
        self.pixels = np.zeros(shape, dtype=np.uint16)
        self.errors = np.zeros(shape, dtype=np.int32)
        self.errors[0, 0] = 16 * (np.asarray(tops) // 5 + 1)  # nothing predicted the corner

    def features(self, step):
        """(sum of the four nearest neighbours, features of the mean, features of the spread): int64 array (pixels,) and float64 arrays of
        integers (features, pixels). The mean's are four times the distance from the mean of the four nearest in the feature's channel."""
        mean, spread = super().features(step)
        base = mean[:_NEAREST].sum(0, dtype=np.int64)
        centred = 4.0 * mean
        centred[:len(step.offsets)] -= base
        for first in range(len(step.offsets), len(mean), _EARLIER):
            centred[first:first + _EARLIER] -= mean[first + 1:first + 1 + _NEAREST].sum(0)
        return base, centred, spread.astype(np.float64)


def default_parameters(step):
    """Without a fit: the mean of the four nearest neighbours, moved as far as the earlier channels are from the means of their own four."""
    mean = np.zeros(len(step.offsets) + _EARLIER * len(step.earlier), dtype=np.int32)
    for k, share in enumerate({0: (), 1: (8192,), 2: (3280, 4912)}[len(step.earlier)]):
        mean[len(step.offsets) + _EARLIER * k] = share
    spread = [70, 50, 4] + [60, 40] * len(step.earlier) if step.earlier else [100, 70, 25]
    scales = 4 + np.arange(CLASSES) * 22 // 5
    return Parameters(mean, np.array(spread, dtype=np.int32), scales.astype(np.int32))


def linear(parameters, features, top):
    """(means in 1/16 level, spread classes) from `DeepCanvas.features`: two int32 arrays."""
    base, mean_features, spread_features = features
    shift = MEAN_BITS + 2 - 4
    away = (parameters.mean.astype(np.float64) @ mean_features).astype(np.int64)
    means = np.clip(4 * base + (away + (1 << shift - 1) >> shift), 0, 16 * top)
    spread = (parameters.spread.astype(np.float64) @ spread_features).astype(np.int64) >> SPREAD_BITS
    return means.astype(np.int32), np.searchsorted(_THRESHOLDS, spread, side="right").astype(np.int32)


def predict(canvas, step, top, *parameters):
    """(means in 1/16 level, spread classes) of the step's pixels under each of `parameters`: a list of pairs of flat int32 arrays."""
    rows, bands = max(1, _BAND // step.columns.size), []
    for first in range(0, step.rows.size, rows):
        features = canvas.features(step._replace(rows=step.rows[first:first + rows]))
        bands.append([linear(one, features, top) for one in parameters])
    return [tuple(np.concatenate(parts) for parts in zip(*same)) for same in zip(*bands)]


def parameter_codecs(step, present=None):
    """How a step's fitted parameters are coded: around the defaults, with heavy tails. One codec per field of `Parameters`; of the scales,
    those of the classes `present`."""
    default = default_parameters(step)
    scales = default.scales if present is None else default.scales[present]
    mean = wide(16 * (default.mean + MEAN_LIMIT), np.full_like(default.mean, 139), 2 * MEAN_LIMIT - 1)  # much faster than a row of 65536 masses each
    return Parameters(
        Codec(lambda stack, x: mean.push(stack, x + MEAN_LIMIT), lambda stack: mean.pop(stack) - MEAN_LIMIT, lambda x: mean.bits(x + MEAN_LIMIT)),
        independent(laplace(16 * default.spread, np.full_like(default.spread, 108), SPREAD_LIMIT)),
        independent(laplace(16 * scales, np.full_like(scales, 72), WIDE_SCALES)),
    )


def _model(shape, done=None):
    """The image's distribution as a generator in decoding order (see `coding.autoregressive`). Asks, per channel, for `levels` and the corner; per
    step of a channel that has more than one level for a flag, perhaps parameters, and the pixels. The image is appended to `done` at the end."""
    known = []
    for _ in range(shape[2]):
        known.append((yield from levels()))
    canvas = DeepCanvas(shape, [one.top for one in known])
    for channel, one in enumerate(known):
        canvas.pixels[0, 0, channel] = (yield independent(Uniform(one.top + 1), 1))[0]
    for step in steps(shape):
        top, parameters = known[step.channel].top, default_parameters(step)
        if not top:
            continue
        fitted = (yield independent(Uniform(2), 1))[0]
        if fitted:
            codecs = parameter_codecs(step)
            parameters = parameters._replace(mean=(yield codecs.mean), spread=(yield codecs.spread))
        [(means, classes)] = predict(canvas, step, top, parameters)
        if fitted:
            present = np.unique(classes)
            parameters.scales[present] = yield parameter_codecs(step, present).scales
        symbols = yield wide(means, parameters.scales[classes], top)
        canvas.write(step, symbols, means)
    if done is not None:
        done.append(np.stack([one.values(canvas.pixels[..., channel]) for channel, one in enumerate(known)], axis=-1))


def codec(shape):
    """The Codec of uint16 images of shape (H, W, C): push(stack, image), pop(stack) -> image, bits(image)."""
    from .linear_deep_fit import requests  # only the encoder fits

    inner = autoregressive(lambda: _model(shape))

    def pop(stack):
        done = []
        autoregressive(lambda: _model(shape, done)).pop(stack)
        return done[0]

    return Codec(lambda stack, image: inner.push(stack, requests(image)), pop, lambda image: inner.bits(requests(image)))
