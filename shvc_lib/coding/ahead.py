"""A mixture whose parameters are computed while its first symbols are popped already.

All symbols of a step depend on what was decoded before it and not on each other. So a step can be cut into bands of rows: while the search for the symbols of
one band goes on, other threads compute the parameters of the next. Which symbols come out does not depend on it. For large images alone; taught in chapter 7.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from . import tables
from .cdf import IntegerCDF
from .discretized import _WEIGHT_SHIFT, DiscretizedMixture
from .rans import TOTAL

BAND = 1 << 14  # symbols of a band, if its rows are not longer
_threads = ContextVar("threads", default=1)


@contextmanager
def on_threads(count):
    """While this is open, what this thread calls may use `count` threads: see `helpers`."""
    before = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(before)


@contextmanager
def helpers():
    """A pool with the threads that this one may use besides itself, or None where there are none."""
    if _threads.get() == 1:
        yield None
    else:
        with ThreadPoolExecutor(_threads.get() - 1) as pool:
            yield pool


class Ahead(IntegerCDF):
    """What `DiscretizedMixture("logistic", means, scales, weights)` would be, over 0 ... 255, if the arrays were filled in already.

    means, scales, weights: int32 (R, C, K), as there; weights None for K = 1. fill(first, last) fills in their rows first ... last - 1, and is called for each
    row once. pool: a ThreadPoolExecutor whose threads do so from now on, or None: then it is done when it is asked for."""

    family, size = "logistic", tables.ROW_SIZE

    def __init__(self, fill, means, scales, weights=None, pool=None):
        rows, columns, _ = means.shape
        self._fill, self._means, self._scales, self._columns, self._whole = fill, means, scales, columns, None
        self._weights, self._mixed = np.zeros_like(means) if weights is None else weights, weights is not None
        self.shape = (rows * columns,)
        self._starts, self._guesses, self._spreads = np.empty_like(means), *np.empty((2, rows, columns), dtype=np.float32)
        count = -(-rows * columns // max(BAND, columns))
        cuts = [rows * k // count for k in range(count + 1)]
        several = pool and len(cuts) > 2
        self._bands = [(first, last, pool.submit(self._band, first, last) if several else None) for first, last in zip(cuts, cuts[1:])]

    def _band(self, first, last):
        from .compiled import places  # here: numba takes half a second to import

        self._fill(first, last)
        arrays = (values[first:last].reshape((last - first) * self._columns, *values.shape[2:])
                  for values in (self._means, self._scales, self._weights, self._starts, self._guesses, self._spreads))
        places(*arrays, tables.scale_levels())

    def _have(self, last):
        """Do the bands of the flat symbols before `last`, or see them done: where another thread is at work on one, take the next that nobody has begun."""
        while self._bands and self._bands[0][0] * self._columns < last:
            begun = self._bands[0][2]
            if begun is not None and begun.done():
                begun.result()
                self._bands.pop(0)
            elif not self._one_more():
                begun.result()

    def _one_more(self):
        """Do the first band that nobody has begun; returns whether there was one."""
        for number, (top, bottom, promise) in enumerate(self._bands):
            if promise is None or promise.cancel():
                del self._bands[number]
                self._band(top, bottom)
                return True
        return False

    def finish(self):
        """Have everything filled in."""
        self._have(math.prod(self.shape))

    @property
    def whole(self):
        """The DiscretizedMixture."""
        if self._whole is None:
            self.finish()
            count = self._means.shape[-1]
            arrays = [values.reshape(-1, count) for values in (self._means, self._scales, self._weights)]
            self._whole = DiscretizedMixture(self.family, *arrays[:2], arrays[2] if self._mixed else None)
        return self._whole

    def intervals(self, symbols):
        return self.whole.intervals(symbols)

    def masses(self, first, last):
        return self.whole.masses(first, last)

    def searched(self, first, last):
        """As of `DiscretizedMixture`; only what the symbols first ... last - 1 need has been computed then."""
        self._have(last)
        total, count = (TOTAL - self.size) >> _WEIGHT_SHIFT * self._mixed, self._means.shape[-1]
        return (tables.row_table(self.family, total), *(values.reshape(-1, count)[first:last] for values in (self._starts, self._weights)),
                *(values.reshape(-1)[first:last] for values in (self._guesses, self._spreads)))
