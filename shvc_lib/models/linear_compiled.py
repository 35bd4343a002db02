"""The predictions of `linear`, compiled: what `linear.Canvas.features` and `linear._linear` compute, one row of a step after the other.

Half of a step's neighbours lie at even distances and half at odd ones. So the rows of pixels (and of errors) that a row looks at are first copied apart, even
and odd columns, mirrored at the borders; then every neighbour is a contiguous piece of such a line, and a sum over neighbours is a few
vector instructions per pixel. Integers throughout: the tests compare every mean and class with numpy's. Used for steps with enough pixels to be worth it.
"""

import numpy as np

from ..coding.compiled import compiled

@compiled(nogil=True)
def means_and_classes(pixels, errors, channels, rows, columns, lines, shifts, own, coefficients, spreads, shift, spread_shift, classes_of, means, classes):
    """Fill in means and classes, int32 (R, C) each, of the R x C pixels of a step.

    pixels, errors: integers (H, W, channels); channels: the step's own, then the earlier ones; rows: int64 (L, R), of each line for each of the R rows;
    columns: int64 (L, C + 3), the columns of each line; lines, shifts: of each offset, in which line and how many places from its beginning a row finds it. The
    first `own` offsets are the step's, then comes (0, 0), then the four of the same pass. coefficients, spreads: int64, of mean and spread, as in
    `linear._linear`, with `shift` and `spread_shift` fractional bits to be dropped; classes_of: int32, the class of each spread, and of all larger ones last."""
    count, width = rows.shape[1], means.shape[1]
    seen = np.empty((channels.size, lines.max() + 1, columns.shape[1]), dtype=np.int32)
    missed = np.empty_like(seen)
    lists = np.empty((5, width), dtype=np.int32)
    total, near, spread, low, high = lists[0], lists[1], lists[2], lists[3], lists[4]
    for i in range(count):
        for k, channel in enumerate(channels):
            for line in range(rows.shape[0]):
                row, at, to, miss = rows[line, i], columns[line], seen[k, line], missed[k, line]
                for j in range(at.size):
                    to[j] = pixels[row, at[j], channel]
                    miss[j] = abs(np.int32(errors[row, at[j], channel]))
        total[:] = 1 << shift - 1
        near[:] = 0
        low[:] = 255
        high[:] = 0
        for n in range(4):
            value = seen[0, lines[n]][shifts[n]:shifts[n] + width]
            miss = missed[0, lines[n]][shifts[n]:shifts[n] + width]
            for j in range(width):
                near[j] += miss[j]
                low[j] = min(low[j], value[j])
                high[j] = max(high[j], value[j])
        for j in range(width):
            spread[j] = spreads[0] * (near[j] >> 2) + spreads[2] * 16 * (high[j] - low[j])
        near[:] = 0
        for n in range(own):
            value, factor = seen[0, lines[n]][shifts[n]:shifts[n] + width], np.int32(coefficients[n])
            for j in range(width):
                total[j] += factor * value[j]
            if n >= 4:
                miss = missed[0, lines[n]][shifts[n]:shifts[n] + width]
                for j in range(width):
                    near[j] += miss[j]
        for j in range(width):
            spread[j] += spreads[1] * (near[j] // (own - 4))
        used, felt = own, 3
        for k in range(1, channels.size):
            for n in range(13):
                place = own if n == 0 else n - 1 if n < 9 else own + n - 8  # (0, 0); the first eight offsets; the same pass
                value, factor = seen[k, lines[place]][shifts[place]:shifts[place] + width], np.int32(coefficients[used + n])
                for j in range(width):
                    total[j] += factor * value[j]
            near[:] = 0
            for place in range(own + 1, own + 5):
                miss = missed[k, lines[place]][shifts[place]:shifts[place] + width]
                for j in range(width):
                    near[j] += miss[j]
            miss = missed[k, lines[own]][shifts[own]:shifts[own] + width]
            for j in range(width):
                spread[j] += spreads[felt] * miss[j] + spreads[felt + 1] * (near[j] >> 2)
            used, felt = used + 13, felt + 2
        for j in range(width):
            means[i, j] = min(max(total[j] >> shift, 0), 16 * 255)
            classes[i, j] = classes_of[min(max(spread[j] >> spread_shift, 0), classes_of.size - 1)]
