"""The encoder's half of `linear_deep`: levels, and the linear functions fitted to the image (see `linear_fit` for how).

Least squares need more care here than with 8 bits. Neighbours in a smooth picture of 65536 levels are nearly the same number, and what predicts a pixel to a
few levels is hidden in their differences' differences; so the features are centred, and the ridge is as light as double precision allows.
"""

import numpy as np
from scipy.special import expit

from .linear import Parameters, steps
from .linear_deep import (MEAN_BITS, DeepCanvas, default_parameters, linear, parameter_codecs,
                          predict)
from .linear_fit import LEAST, _ENOUGH, _SAMPLE, _pixels, coefficients
from .linear_wide import WIDE_SCALES, find_levels, scale_of, wide

_RIDGE = 1e-10


def _best_scales(errors, classes, default):
    """The scale index of least codelength for each class, from prediction errors in 1/16 level; the default's where too few pixels tell."""
    scales = default.copy()
    for k in np.unique(classes):
        sample = errors[classes == k]
        if sample.size >= 16:
            sample = np.abs(sample[:: -(-sample.size // _SAMPLE)]) / 16
            size = max(sample.mean(), 0.05) / (2 * np.log(2))
            guess = int(np.searchsorted(scale_of(np.arange(WIDE_SCALES)), size))
            candidates = np.arange(max(guess - 14, 0), min(guess + 11, WIDE_SCALES))
            spread = scale_of(candidates)[:, None]
            mass = expit((0.5 - sample) / spread) - expit((-0.5 - sample) / spread)
            scales[k] = candidates[np.log2(mass + 2.0**-24).sum(1).argmax()]
    return scales


def fit(canvas, step, symbols, top):
    """Parameters fitted to the step's `symbols` (pixels 0 ... top, flat)."""
    every = -(-symbols.size // _ENOUGH)
    symbols = symbols.reshape(step.rows.size, -1)[::every].reshape(-1)
    features = base, centred, spreads = canvas.features(step._replace(rows=step.rows[::every]))
    default, targets = default_parameters(step), 4.0 * symbols - base
    mean, spread = coefficients(centred, targets, spreads, default, 4, MEAN_BITS, _RIDGE)
    means, classes = linear(Parameters(mean, spread, default.scales), features, top)
    return Parameters(mean, spread, _best_scales(means - 16 * symbols, classes, default.scales))


def requests(image):
    """What the model's generator will ask for, in order, for a uint16 image (H, W, C): the list that `autoregressive` codes."""
    found = [find_levels(image[..., channel].reshape(-1)) for channel in range(image.shape[2])]
    answers = [answer for _, own in found for answer in own]
    pixels = np.stack([one.pixels(image[..., channel]) for channel, (one, _) in enumerate(found)], axis=-1)
    tops = [one.top for one, _ in found]
    canvas = DeepCanvas(image.shape, tops)
    canvas.pixels[0, 0] = pixels[0, 0]
    answers += [pixels[0, 0, channel:channel + 1] for channel in range(image.shape[2])]
    for step in steps(image.shape):
        top = tops[step.channel]
        if not top:
            continue
        symbols, choices = _pixels(pixels, step), [default_parameters(step)]
        if symbols.size >= LEAST:
            choices.append(fit(canvas, step, symbols, top))
        predicted = predict(canvas, step, top, *choices)
        bits = [wide(means, one.scales[classes], top).bits(symbols) for one, (means, classes) in zip(choices, predicted)]
        sent = ()
        if len(choices) == 2:
            present = np.unique(predicted[1][1])
            sent = choices[1]._replace(scales=choices[1].scales[present])
            bits[1] += sum(codec.bits(values) for codec, values in zip(parameter_codecs(step, present), sent))
        best = int(np.argmin(bits))
        answers += [np.array([best]), *(sent if best else ()), symbols]
        canvas.write(step, symbols, predicted[best][0])
    return answers
