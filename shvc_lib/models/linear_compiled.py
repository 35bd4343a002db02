"""The predictions of `linear`, compiled: what `linear.Canvas.features` and `linear._linear` compute, one row of a step after the other.

Half of a step's neighbours lie at even distances and half at odd ones. So the rows of pixels (and of errors) that a row looks at are first copied apart, even
and odd columns, mirrored at the borders; then every neighbour is a contiguous piece of such a line, and a sum over neighbours is a few
vector instructions per pixel. Integers throughout: the tests compare every mean and class with numpy's. Used for steps with enough pixels to be worth it.
"""

import numpy as np

from ..coding.compiled import compiled


@compiled(nogil=True)
def next_row(pixels, errors, channels, rows, columns, before, i, fresh, slots, seen, missed):
    """Have the lines of row i of a step in seen and missed, int32 (channels, L, C + 3): line l in place slots[l]. Unless `fresh`, those of row i - 1 are there.

    Most lines of a row were there for the row before, as others; only the rest are copied. Arguments as of `means_and_classes`."""
    count, width = columns.shape
    held, free = np.full(count, -1), np.ones(count, dtype=np.bool_)
    if not fresh:
        for line in range(count):
            if before[line] >= 0 and rows[before[line], i - 1] == rows[line, i]:
                held[line] = slots[before[line]]
                free[held[line]] = False
    place = 0
    for line in range(count):
        if held[line] >= 0:
            continue
        while not free[place]:
            place += 1
        held[line], free[place] = place, False
        at, row = columns[line], rows[line, i]
        inner = max(width - 8, 0)  # places 4 ... width - 5 are not mirrored, and so at equal distances
        for k, channel in enumerate(channels):
            from_pixels, from_errors, to, miss = pixels[row, :, channel], errors[row, :, channel], seen[k, place], missed[k, place]
            if inner:
                every = at[5] - at[4]
                some_pixels, some_errors = from_pixels[at[4]::every], from_errors[at[4]::every]
                for j in range(inner):
                    to[4 + j] = some_pixels[j]
                    miss[4 + j] = some_errors[j]
                for j in range(4):
                    to[j], miss[j] = from_pixels[at[j]], from_errors[at[j]]
            for j in range(4 + inner if inner else 0, width):
                to[j], miss[j] = from_pixels[at[j]], from_errors[at[j]]
    slots[:] = held


@compiled(nogil=True)
def record(pixels, errors, symbols, means, signs):
    """As `linear.record`."""
    for i in range(symbols.shape[0]):
        for j in range(symbols.shape[1]):
            pixels[i, j] = symbols[i, j]
            error = 16 * symbols[i, j] - means[i, j]
            errors[i, j] = error if signs else abs(error)


@compiled(nogil=True)
def predicted_row(seen, missed, places, shifts, own, here, coefficients, spreads, shift, spread_shift, classes_of, lists, means, classes):
    """Fill in means and classes, int32 (C,), of one row of a step, whose lines are in seen and missed: the line of offset n is in place places[n]. here: the
    number of the offset (0, 0), after which come the four of the same pass; lists: int32 (5, C), to work in; the rest as of `means_and_classes`."""
    width = means.size
    total, near, spread, low, high = lists[0], lists[1], lists[2], lists[3], lists[4]
    total[:] = 1 << shift - 1
    near[:] = 0
    low[:] = 255
    high[:] = 0
    for n in range(4):
        value = seen[0, places[n]][shifts[n]:shifts[n] + width]
        miss = missed[0, places[n]][shifts[n]:shifts[n] + width]
        for j in range(width):
            near[j] += abs(miss[j])
            low[j] = min(low[j], value[j])
            high[j] = max(high[j], value[j])
    for j in range(width):
        spread[j] = spreads[0] * (near[j] >> 2) + spreads[2] * 16 * (high[j] - low[j])
    near[:] = 0
    for n in range(own):
        value, factor = seen[0, places[n]][shifts[n]:shifts[n] + width], np.int32(coefficients[n])
        for j in range(width):
            total[j] += factor * value[j]
        if n >= 4:
            miss = missed[0, places[n]][shifts[n]:shifts[n] + width]
            for j in range(width):
                near[j] += abs(miss[j])
    for j in range(width):
        spread[j] += spreads[1] * (near[j] // (own - 4))
    used, felt = own, 3
    for k in range(1, seen.shape[0]):
        for n in range(13):
            place = here if n == 0 else n - 1 if n < 9 else here + n - 8  # (0, 0); the first eight offsets; the same pass
            value, factor = seen[k, places[place]][shifts[place]:shifts[place] + width], np.int32(coefficients[used + n])
            for j in range(width):
                total[j] += factor * value[j]
        near[:] = 0
        for place in range(here + 1, here + 5):
            miss = missed[k, places[place]][shifts[place]:shifts[place] + width]
            for j in range(width):
                near[j] += abs(miss[j])
        miss = missed[k, places[here]][shifts[here]:shifts[here] + width]
        for j in range(width):
            spread[j] += spreads[felt] * abs(miss[j]) + spreads[felt + 1] * (near[j] >> 2)
        used, felt = used + 13, felt + 2
    for j in range(width):
        means[j] = min(max(total[j] >> shift, 0), 16 * 255)
        classes[j] = classes_of[min(max(spread[j] >> spread_shift, 0), classes_of.size - 1)]


@compiled(nogil=True)
def means_and_classes(pixels, errors, channels, rows, columns, before, lines, shifts, own, coefficients, spreads, shift, spread_shift, classes_of, first, last,
                      means, classes):
    """Fill in the rows first ... last - 1 of means and classes, int32 (R, C) each, of the R x C pixels of a step.

    pixels, errors: integers (H, W, channels); channels: the step's own, then the earlier ones; rows: int64 (L, R), of each line for each of the R rows;
    columns: int64 (L, C + 3), the columns of each line; before, lines, shifts: see `linear_layout.layout`. The first `own` offsets are the step's, then comes (0, 0),
    then the four of the same pass. coefficients, spreads: int64, of mean and spread, as in `linear._linear`, with `shift` and `spread_shift` fractional bits to
    be dropped; classes_of: int32, the value of each spread, and of all larger ones last; classes: of these."""
    seen = np.empty((channels.size, lines.max() + 1, columns.shape[1]), dtype=np.int32)
    missed = np.empty_like(seen)
    slots, places, lists = np.empty(rows.shape[0], dtype=np.int64), np.empty_like(lines), np.empty((5, means.shape[1]), dtype=np.int32)
    for i in range(first, last):
        next_row(pixels, errors, channels, rows, columns, before, i, i == first, slots, seen, missed)
        for place in range(lines.size):
            places[place] = slots[lines[place]]
        predicted_row(seen, missed, places, shifts, own, own, coefficients, spreads, shift, spread_shift, classes_of, lists, means[i], classes[i])
