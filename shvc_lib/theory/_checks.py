"""What the functions of this package ask of their arguments, each refusal in one line.

The formulas of information theory stay silent on bad input: a vector that sums to 0.9 has an "entropy", and one NaN
turns a whole curve into NaN. So every public function passes its arguments through here first.
"""

import math

import numpy as np

from ..errors import InvalidInput

SUM_TOLERANCE = 1e-6  # wide enough for a float32 softmax, far too narrow for a forgotten normalisation


def log_base(base):
    """Natural logarithm of `base`: divide nats by it to get units of that base (2: bits, math.e: nats)."""
    if isinstance(base, bool) or not isinstance(base, (int, float, np.number)) or not math.isfinite(base) or base <= 1:
        raise InvalidInput(f"base must be a number greater than 1 (2 for bits, math.e for nats), not {base!r}")
    return math.log(base)


def real(value, name, *, minimum=-math.inf, ndim=None, finite=True):
    """`value` as a float64 array: not empty, no NaN, nothing below `minimum`, and of the asked number of axes."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "buif":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):  # words, ragged lists, a tensor that still wants its gradient
        raise InvalidInput(f"{name} must be real numbers in a rectangular array, not this {type(value).__name__}") from None
    if ndim is not None and array.ndim not in np.atleast_1d(ndim):
        raise InvalidInput(f"{name} must have {' or '.join(map(str, np.atleast_1d(ndim)))} axes, not shape {array.shape}")
    if array.size == 0:
        raise InvalidInput(f"{name} is empty")
    if np.isnan(array).any():
        raise InvalidInput(f"{name} contains NaN")
    if finite and not np.isfinite(array).all():
        raise InvalidInput(f"{name} contains an infinite value")
    if array.min() < minimum:
        raise InvalidInput(f"{name} must be at least {minimum:g}, but contains {array.min():g}")
    return array


def scalar(value, name, *, minimum=-math.inf, positive=False):
    """`value` as a finite float."""
    number = float(real(value, name, minimum=minimum, ndim=0))
    if positive and number <= 0:
        raise InvalidInput(f"{name} must be positive, not {number:g}")
    return number


def whole(value, name, *, minimum=0):
    """`value` as a Python int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidInput(f"{name} must be a whole number, not this {type(value).__name__}")
    if value < minimum:
        raise InvalidInput(f"{name} must be at least {minimum}, not {value}")
    return int(value)


def distribution(p, name="p", *, ndim=None, axes=(-1,)):
    """`p` as float64 probabilities: nonnegative, and summing to one over `axes` (renormalised to the last digit)."""
    p = real(p, name, minimum=0.0, ndim=ndim)
    if p.ndim < len(axes):
        raise InvalidInput(f"{name} must have at least {len(axes)} axes, not shape {p.shape}")
    total = p.sum(axis=axes, keepdims=True)
    worst = total.flat[np.abs(total - 1).argmax()]
    if abs(worst - 1) > SUM_TOLERANCE:
        raise InvalidInput(f"{name} must sum to one, but sums to {worst:.9g}")
    return p / total


def together(**arrays):
    """Checked arrays broadcast to one shape."""
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = " and ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InvalidInput(f"these shapes do not broadcast: {shapes}") from None


def number_or_array(x):
    """A Python float for one value, an array for several."""
    return float(x) if np.ndim(x) == 0 else x
