"""Where the pixels of a step of `linear` lie, and where their neighbours do: as numpy indexes them, and as compiled code does."""

from functools import lru_cache

import numpy as np

FAR = 3  # columns: the furthest neighbour


def reflect(positions, stride, length):
    """Positions mirrored at the borders in whole strides, which keeps the parity of rows and columns."""
    last = (length - 1) // stride
    positions = np.abs(positions // stride)
    return np.where(positions > last, np.maximum(2 * last - positions, 0), positions) * stride


def region(step):
    """Where the step's pixels are in an image (H, W, C), to be indexed with: slices, which is faster than lists of rows and columns."""
    rows, columns = (slice(own[0], own[-1] + 1, own[1] - own[0] if own.size > 1 else 1) for own in (step.rows, step.columns))
    return rows, columns, step.channel


def layout(step, offsets, shape):
    """Where a step's rows find the pixels at the offsets: (rows, columns, before, lines, shifts), as compiled code takes them.

    Half of the neighbours lie at even distances and half at odd ones: a line is every second pixel of a row, mirrored at the borders, so that each neighbour of
    all pixels of a row is a piece of a line. rows: int64 (L, R), the row of each line for each row of the step; columns: int64 (L, C + 3); before: int64 (L,),
    the line that held this one's row a row earlier, but at the borders, or -1; lines, shifts: of each offset, in which line and how many places from its
    beginning."""
    return _layout(step.stride, int(step.rows[0]), int(step.columns[0]), step.rows.size, step.columns.size, tuple(offsets), *shape[:2])


@lru_cache(maxsize=128)
def _layout(stride, top, left, count, width, offsets, height, length):
    """The same for the `count` rows from `top` and the `width` columns from `left` on: all colours of a pass share it."""
    lines = {line: number for number, line in enumerate(dict.fromkeys((dy, dx + FAR & 1) for dy, dx in offsets))}
    down, odd = np.array(list(lines)).T
    units = left + stride * (2 * np.arange(width + FAR) + np.array([[0], [1]]) - FAR)  # what even and odd ones may need
    rows = reflect(top + 2 * stride * np.arange(count) + stride * down[:, None], stride, height)
    columns = reflect(units, stride, length)[odd]
    before = np.array([lines.get((dy + 2, own), -1) for dy, own in lines])
    return rows, columns, before, np.array([lines[dy, dx + FAR & 1] for dy, dx in offsets]), np.array([dx + FAR >> 1 for _, dx in offsets])


def bands(step, most):
    """The step in bands of at most `most` pixels, several rows or a part of one: (step, slice of its flat pixels)."""
    columns = step.columns.size
    height, width = max(1, most // columns), min(most, columns)
    for top in range(0, step.rows.size, height):
        for left in range(0, columns, width):
            part = step._replace(rows=step.rows[top:top + height], columns=step.columns[left:left + width])
            yield part, slice(top * columns + left, top * columns + left + part.rows.size * part.columns.size)
