"""What counts as a number: arguments become plain integers or arrays before anything else looks at them.

A coder is only as reliable as its least checked argument. numpy is generous: it wraps unsigned numbers, casts complex ones with a
warning, takes True for 1, and raises errors of its own for ragged lists. These functions are strict, and what they refuse
is `InvalidInput` in one line.
"""

import operator

import numpy as np

from ..errors import InvalidInput


def integer(name, value, low=None, high=None):
    """One integer as a Python int, within low ... high where given. Floats and booleans are refused."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"{name} must be an integer, got {type(value).__name__}")
    if (low is not None and number < low) or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InvalidInput(f"{name} must be an integer {limits}, got {number}")
    return number


def array(name, values):
    """np.asarray, refusing what is no array."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors that are on a GPU or need a gradient
        raise InvalidInput(f"{name} must be an array of numbers, got {type(values).__name__} that is none") from None


_REACH = {np.dtype(kind): (np.iinfo(kind).min, np.iinfo(kind).max) for kind in "bBhHiIlLqQ"}


def integers(name, values, low=-(1 << 31), high=(1 << 31) - 1):
    """A non-empty array of an integer dtype whose values lie in low ... high."""
    values = array(name, values)
    if values.size == 0:
        raise InvalidInput(f"{name} is empty")
    if values.dtype.kind not in "iu":
        raise InvalidInput(f"{name} must be integers, got dtype {values.dtype}")
    least, most = _REACH.get(values.dtype, (low - 1, high))
    if (least < low or most > high) and (values.min() < low or values.max() > high):  # uint8 need not be looked at to know that they fit into int32
        raise InvalidInput(f"{name} must lie in {low} ... {high}, got {values.min()} ... {values.max()}")
    return values


def reals(name, values):
    """A non-empty float64 array of finite numbers."""
    values = array(name, values)
    if values.size == 0:
        raise InvalidInput(f"{name} is empty")
    if values.dtype.kind not in "fiu":
        raise InvalidInput(f"{name} must be real numbers, got dtype {values.dtype}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(f"{name} must be finite")
    return values
