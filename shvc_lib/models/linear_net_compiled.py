"""What `linear-net` says of a step, compiled: from pixels to the integer parameters of the mixtures, 64 pixels of a row at a time.

`linear_net.NetCanvas.inputs`, three `nn.exact.ExactLayer`s, `linear_net.tuned` and `nn.parameters.relative_mixture` in one loop, so that nothing between them
goes through the memory. The layers' sums are float32 additions of integers below 2^24, exact in every order, so it does not matter that they are added up in
another one here; the tests compare every number with what those four return. Used for images with enough pixels to be worth it.
"""

import numpy as np
from numba import njit

from ..coding.compiled import compiled
from ..coding.discretized import WEIGHT_TOTAL
from ..coding.tables import SCALE_ZERO, SCALES
from ..nn.exact_layer import GRID_LIMIT, REACH

BLOCK = 64  # pixels at a time: the inputs and both hidden layers of so many stay in the first-level cache
_ROUND = np.float32(3 << 22)  # adding and taking away this rounds a float32 below 2^22 to the nearest integer, halves to even
_TOP = np.float32(GRID_LIMIT)
_LOW, _HIGH = np.float32(-REACH), np.float32(REACH - 1)  # float32 all of them: with a float64 among them there would be no rounding


@njit(inline="always")
def _grid(value, scale, low, high):
    """round(value * scale), clamped to integers low ... high."""
    return (min(max(value * scale, low), high) + _ROUND) - _ROUND


@compiled(nogil=True, fastmath={"contract"})
def _sums(x, weight, bias, width, out):
    """out[o, :width] = weight @ x + bias: eight inputs at a time."""
    outputs, inputs = weight.shape
    for o in range(outputs):
        row, sums = weight[o], out[o]
        for j in range(width):
            sums[j] = bias[o]
        whole = inputs // 8 * 8
        for n in range(0, whole, 8):
            w0, w1, w2, w3, w4, w5, w6, w7 = row[n], row[n + 1], row[n + 2], row[n + 3], row[n + 4], row[n + 5], row[n + 6], row[n + 7]
            x0, x1, x2, x3, x4, x5, x6, x7 = x[n], x[n + 1], x[n + 2], x[n + 3], x[n + 4], x[n + 5], x[n + 6], x[n + 7]
            for j in range(width):
                sums[j] += w0 * x0[j] + w1 * x1[j] + w2 * x2[j] + w3 * x3[j] + w4 * x4[j] + w5 * x5[j] + w6 * x6[j] + w7 * x7[j]
        for n in range(whole, inputs):
            w0, x0 = row[n], x[n]
            for j in range(width):
                sums[j] += w0 * x0[j]


@njit(inline="always")
def _hidden(sums, factor, scale, width, out):
    """What the next layer, whose inputs are multiplied by `scale`, makes of ReLU of a layer's sums, whose channels are multiplied by `factor`."""
    for o in range(sums.shape[0]):
        for j in range(width):
            out[o, j] = _grid(max(_grid(sums[o, j], factor[o], -_TOP, _TOP), np.float32(0)), scale, _LOW, _HIGH)


@compiled(nogil=True)
def mixtures(pixels, residuals, channels, rows, columns, lines, shifts, own, means, scales, inverse, shift, limit, level, layers, tuning, exp_table,
             first, last, out_means, out_scales, out_weights):
    """Fill in the rows first ... last - 1 of a step: int32 (R, C, K) each, means in 1/16 level, indices of scales and weights.

    pixels ... own: as `linear_compiled.means_and_classes` takes them, residuals with their signs; means, scales: int32 (R, C), of `linear`; inverse: int64,
    `tables.inverse_scales`, and how far to shift down a product with it; limit: of the inputs; level: the last input; layers: for each of three, weight (O, N),
    bias (O,), factor (O,) and scale of inputs, float32; tuning: int64 (2, 3 K), bias and slope; exp_table: int64, `nn.parameters.exp_table`."""
    (weight1, bias1, factor1, input1), (weight2, bias2, factor2, input2), (weight3, bias3, factor3, input3) = layers
    count, width = weight3.shape[0] // 3, means.shape[1]
    seen = np.empty((channels.size, lines.max() + 1, columns.shape[1]), dtype=np.int32)
    missed = np.empty_like(seen)
    whole = np.empty((weight1.shape[1], BLOCK), dtype=np.int64)
    x, sums = np.empty((weight1.shape[1], BLOCK), dtype=np.float32), np.empty((weight1.shape[0], BLOCK), dtype=np.float32)
    y, answers = np.empty((weight2.shape[1], BLOCK), dtype=np.float32), np.empty((weight3.shape[0], BLOCK), dtype=np.float32)
    mass, rest = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    unit1, unit2, unit3 = input1 / np.float32(128), input2 / np.float32(4096), input3 / np.float32(4096)  # inputs count 2^-7, sums 2^-12
    for i in range(first, last):
        for k, channel in enumerate(channels):
            for line in range(rows.shape[0]):
                row, at, to, miss = rows[line, i], columns[line], seen[k, line], missed[k, line]
                for j in range(at.size):
                    to[j] = pixels[row, at[j], channel]
                    miss[j] = residuals[row, at[j], channel]
        for left in range(0, width, BLOCK):
            size = min(BLOCK, width - left)
            mean, scale = means[i, left:left + size], scales[i, left:left + size]
            used = 0
            for place in range(own):
                values = seen[0, lines[place]][shifts[place] + left:shifts[place] + left + size]
                errors = missed[0, lines[place]][shifts[place] + left:shifts[place] + left + size]
                for j in range(size):
                    whole[place, j] = 16 * values[j] - mean[j]
                    whole[own + place, j] = errors[j]
            used = 2 * own
            for k in range(1, channels.size):
                for place in range(own, own + 5):  # here, then the same pass
                    errors = missed[k, lines[place]][shifts[place] + left:shifts[place] + left + size]
                    for j in range(size):
                        whole[used + place - own, j] = errors[j]
                here = seen[k, lines[own]][shifts[own] + left:shifts[own] + left + size]
                for n in range(12):
                    place = n if n < 8 else own + n - 7  # the first eight offsets, then the same pass
                    values = seen[k, lines[place]][shifts[place] + left:shifts[place] + left + size]
                    for j in range(size):
                        whole[used + 5 + n, j] = 16 * (values[j] - here[j])
                used += 17
            half = 1 << shift - 1
            for n in range(used):
                for j in range(size):
                    value = min(max(whole[n, j] * inverse[scale[j]] + half >> shift, -limit), limit)
                    x[n, j] = _grid(np.float32(value), unit1, _LOW, _HIGH)
            for j in range(size):
                x[used, j] = _grid(np.float32((scale[j] - SCALE_ZERO) * 8), unit1, _LOW, _HIGH)
                x[used + 1, j] = _grid(np.float32((mean[j] >> 4) - 128), unit1, _LOW, _HIGH)
                x[used + 2, j] = _grid(np.float32(level), unit1, _LOW, _HIGH)
            _sums(x, weight1, bias1, size, sums)
            _hidden(sums, factor1, unit2, size, y)
            _sums(y, weight2, bias2, size, sums)
            _hidden(sums, factor2, unit3, size, y)
            _sums(y, weight3, bias3, size, answers)
            for j in range(size):
                index = np.int64(scale[j])
                levels, most = (np.int64(1) << 35) // inverse[index], np.int64(-1 << 40)
                for k in range(count):
                    for part in range(3):
                        n = part * count + k
                        value = np.int64(_grid(answers[n, j], factor3[n], -_TOP, _TOP)) + tuning[0, n] + (tuning[1, n] * (index - SCALE_ZERO) >> 6)
                        if part == 0:
                            value = (np.int64(mean[j]) << 8) + (value * levels >> 12)
                            out_means[i, left + j, k] = min(max(value + 128 >> 8, -(1 << 29)), 1 << 29)
                        elif part == 1:
                            value = (index - SCALE_ZERO << 8) + value
                            out_scales[i, left + j, k] = min(max((value + 128 >> 8) + SCALE_ZERO, 0), SCALES - 1)
                        else:
                            rest[k] = value
                            most = max(most, value)
                total, missing = np.int64(0), np.int64(WEIGHT_TOTAL)
                for k in range(count):
                    mass[k] = exp_table[min(most - rest[k] + 32 >> 6, exp_table.size - 1)]
                    total += mass[k]
                for k in range(count):
                    share = WEIGHT_TOTAL * mass[k]
                    out_weights[i, left + j, k], rest[k] = share // total, share % total
                    missing -= share // total
                for _ in range(missing):  # to the largest remainders, of equal ones to the first
                    best = 0
                    for k in range(1, count):
                        if rest[k] > rest[best]:
                            best = k
                    out_weights[i, left + j, best] += 1
                    rest[best] = -1
