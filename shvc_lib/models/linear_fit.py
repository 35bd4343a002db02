"""The encoder's half of `linear`: fit each step's linear functions to the image, and send them where they pay.

The mean's coefficients are weighted least squares, each pixel weighted by one over its squared spread (the Gaussian maximum
likelihood; weights and coefficients in turn). The spread's coefficients are non-negative least squares on the absolute errors. Each spread class
then takes the scale of least codelength. A fit is sent only when the pixels it saves cost more than the coefficients themselves.
Floats are harmless here: only the rounded coefficients enter the codec.
"""

import numpy as np
from scipy.linalg import cholesky, solve, solve_triangular
from scipy.optimize import nnls

from ..coding import logistic
from ..coding.tables import SCALES
from .linear import (CLASSES, MEAN_BITS, MEAN_LIMIT, SPREAD_BITS, SPREAD_LIMIT, Canvas, Parameters, _linear, default_parameters,
                     parameter_codecs, predict, steps)

LEAST = 512  # pixels: fewer can never pay for a set of coefficients
_ENOUGH = 1 << 18  # pixels: a fit looks at so many at most, in whole rows spread over the step
_SAMPLE = 4000  # pixels per class that choose its scale


def _weighted_least_squares(features, targets, weights, start, ridge=1e-6):
    """Coefficients near `start` that minimise the weighted squared error (a light ridge keeps flat images solvable)."""
    weighted = features * weights
    gram = weighted @ features.T
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram) + 1e-9
    return start + solve(gram, weighted @ (targets - start @ features), assume_a="pos")


def _nonnegative_least_squares(features, targets, weights):
    weighted = features * weights
    gram = weighted @ features.T
    gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) / len(gram) + 1e-9
    upper = cholesky(gram)
    return nnls(upper, solve_triangular(upper, weighted @ targets, trans=1))[0]


def _best_scales(errors, classes, default):
    """The scale index of least codelength for each class; the default's where a class has too few pixels to tell."""
    scales = default.copy()
    for k in range(CLASSES):
        sample = errors[classes == k]
        if sample.size >= 16:
            sample = sample[:: -(-sample.size // _SAMPLE)]
            guess = 48 + 16 * np.log(np.maximum(np.abs(sample).mean() / 16, 0.05) / (2 * np.log(2)))
            candidates = np.clip(np.arange(int(guess) - 14, int(guess) + 10), 0, SCALES - 1)
            # the symbol is 128 - error / 16 levels around level 128: only the error matters
            trial = logistic(np.tile(sample + 16 * 128, (candidates.size, 1)), np.tile(candidates[:, None], sample.size))
            cost = trial.bits(np.full((candidates.size, sample.size), 128)).sum(1)
            scales[k] = candidates[cost.argmin()]
    return scales


def coefficients(features, targets, spreads, default, unit, mean_bits=MEAN_BITS, ridge=1e-6):
    """(mean, spread), int32: coefficients of both, each fitted with weights that the other gives, twice in turn. An error of one counts as `unit` in the
    unit of `spreads`; mean_bits: fractional bits of the mean's; ridge: of its least squares."""
    start, weights = default.mean / (1 << mean_bits), np.ones(targets.size)
    for _ in range(2):
        mean = _weighted_least_squares(features, targets, weights, start, ridge)
        errors, spread = unit * np.abs(targets - mean @ features), default.spread / (1 << SPREAD_BITS)
        for _ in range(2):
            spread = _nonnegative_least_squares(spreads, errors, 1 / np.maximum(spread @ spreads, 2) ** 2)
        weights = 1 / (spread @ spreads + 6) ** 2
        weights /= weights.mean()
    return (np.clip(np.rint(mean * (1 << mean_bits)), -MEAN_LIMIT, MEAN_LIMIT - 1).astype(np.int32),
            np.clip(np.rint(spread * (1 << SPREAD_BITS)), 0, SPREAD_LIMIT - 1).astype(np.int32))


def fit(canvas, step, image):
    """Parameters fitted to the step's pixels in `image` (H, W, C)."""
    step = step._replace(rows=step.rows[:: -(-step.rows.size * step.columns.size // _ENOUGH)])
    mean_features, spread_features = canvas.features(step)
    symbols, default = _pixels(image, step), default_parameters(step)
    features, spreads = mean_features.astype(np.float64), spread_features.astype(np.float64)
    mean, spread = coefficients(features, symbols, spreads, default, 16)
    means, classes = _linear(Parameters(mean, spread, default.scales), mean_features, spread_features)
    return Parameters(mean, spread, _best_scales(means - 16 * symbols, classes, default.scales))


def _pixels(image, step):
    return image[step.rows[:, None], step.columns, step.channel].reshape(-1).astype(np.int32)


def choices(image, canvas):
    """Go through the steps of a uint8 image (H, W, C), yielding (step, whether its fit is sent, its parameters, (means, classes), symbols), and write each on
    `canvas` when the next is asked for."""
    for step in steps(image.shape):
        symbols, tried = _pixels(image, step), [default_parameters(step)]
        if symbols.size >= LEAST:
            tried.append(fit(canvas, step, image))
        predicted = predict(canvas, step, *tried)
        bits = [logistic(means, one.scales[classes]).bits(symbols).sum() for one, (means, classes) in zip(tried, predicted)]
        if len(tried) == 2:
            bits[1] += sum(codec.bits(values) for codec, values in zip(parameter_codecs(step), tried[1]))
        best = int(np.argmin(bits))
        yield step, best, tried[best], predicted[best], symbols
        canvas.write(step, symbols, predicted[best][0])


def requests(image):
    """What the model's generator will ask for, in order, for a uint8 image (H, W, C): the list that `autoregressive` codes."""
    canvas = Canvas(image.shape)
    canvas.pixels[0, 0] = image[0, 0]
    answers = [image[0, 0].astype(np.int32)]
    for _, fitted, parameters, _, symbols in choices(image, canvas):
        answers += [np.array([fitted]), *(parameters if fitted else ()), symbols]
    return answers
