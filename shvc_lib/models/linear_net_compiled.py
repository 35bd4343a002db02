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
from .linear_compiled import next_row

BLOCK = 128  # pixels at a time: their inputs and hidden units stay in the caches
_ROUND = np.float32(3 << 22)  # adding and taking away this rounds a float32 below 2^22 to the nearest integer, halves to even
_TOP = np.float32(GRID_LIMIT)
_LOW, _HIGH = np.float32(-REACH), np.float32(REACH - 1)  # float32 all of them: with a float64 among them there would be no rounding


@njit(inline="always")
def _grid(value, scale, low, high):
    """round(value * scale), clamped to integers low ... high."""
    return (min(max(value * scale, low), high) + _ROUND) - _ROUND


def layers_of(head):
    """A perceptron's layers as `mixtures` takes them: of each weight (O, N), bias (O,), factor (O,) and scale of inputs, float32."""
    return tuple(layer.prepared() for layer in head[::2])


@compiled(nogil=True, fastmath={"contract"})
def _sums(x, weight, bias, width, out):
    """out[o, :width] = weight @ x + bias: for three outputs at a time from four inputs, so that most numbers are read once for several products."""
    outputs, inputs = weight.shape
    for o in range(outputs):
        out[o, :width] = bias[o]
    for o in range(0, outputs - 2, 3):
        u, v, w = out[o], out[o + 1], out[o + 2]
        for n in range(0, inputs - 3, 4):
            u0, u1, u2, u3 = weight[o, n], weight[o, n + 1], weight[o, n + 2], weight[o, n + 3]
            v0, v1, v2, v3 = weight[o + 1, n], weight[o + 1, n + 1], weight[o + 1, n + 2], weight[o + 1, n + 3]
            w0, w1, w2, w3 = weight[o + 2, n], weight[o + 2, n + 1], weight[o + 2, n + 2], weight[o + 2, n + 3]
            x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
            for j in range(width):
                a, b, c, d = x0[j], x1[j], x2[j], x3[j]
                u[j] += u0 * a + u1 * b + u2 * c + u3 * d
                v[j] += v0 * a + v1 * b + v2 * c + v3 * d
                w[j] += w0 * a + w1 * b + w2 * c + w3 * d
    for o in range(outputs):  # what is left
        for n in range(inputs // 4 * 4 if o < outputs // 3 * 3 else 0, inputs):
            factor, value, to = weight[o, n], x[n], out[o]
            for j in range(width):
                to[j] += factor * value[j]


@njit(inline="always")
def _hidden(sums, factor, scale, width, out):
    """What the next layer, whose inputs are multiplied by `scale`, makes of ReLU of a layer's sums, whose channels are multiplied by `factor`."""
    for o in range(sums.shape[0]):
        for j in range(width):
            out[o, j] = _grid(max(_grid(sums[o, j], factor[o], -_TOP, _TOP), np.float32(0)), scale, _LOW, _HIGH)


@compiled(nogil=True)
def _shares(logits, size, exp_table, out):
    """out[j], int32 (K,): the weights that logits[:, j], multiples of 2^-12, stand for. What the quotients leave goes to the largest remainders, of equal ones
    to the first."""
    count = logits.shape[0]
    rest = np.empty(count, dtype=np.int64)
    for j in range(size):
        most, total, missing = logits[0, j], np.int64(0), np.int64(WEIGHT_TOTAL)
        for k in range(1, count):
            most = max(most, logits[k, j])
        for k in range(count):
            rest[k] = exp_table[min(most - logits[k, j] + 32 >> 6, exp_table.size - 1)]
            total += rest[k]
        for k in range(count):
            share = WEIGHT_TOTAL * rest[k]
            out[j, k] = share // total
            rest[k] = share - out[j, k] * total
            missing -= out[j, k]
        for _ in range(missing):
            best = 0
            for k in range(1, count):
                if rest[k] > rest[best]:
                    best = k
            out[j, best] += 1
            rest[best] = -1


@compiled(nogil=True)
def mixtures(pixels, residuals, channels, rows, columns, before, lines, shifts, own, near, means, scales, inverse, shift, limit, level, layers, tuning,
             exp_table, first, last, out_means, out_scales, out_weights):
    """Fill in the rows first ... last - 1 of a step: int32 (R, C, K) each, means in 1/16 level, indices of scales and weights.

    pixels ... own: as `linear_compiled.means_and_classes` takes them, residuals with their signs; near: how many of the offsets also give their residuals;
    means, scales: int32 (R, C), of `linear`; inverse: int64, `tables.inverse_scales`, and how far to shift down a product with it; limit: of the inputs; level:
    the last input; layers: of `layers_of`; tuning: int64 (2, 3 K), bias and slope; exp_table: int64, `nn.parameters.exp_table`."""
    (weight1, bias1, factor1, input1), (weight2, bias2, factor2, input2), (weight3, bias3, factor3, input3) = layers
    count, width = weight3.shape[0] // 3, means.shape[1]
    seen = np.empty((channels.size, lines.max() + 1, columns.shape[1]), dtype=np.int32)
    missed = np.empty_like(seen)
    slots, places = np.empty(rows.shape[0], dtype=np.int64), np.empty_like(lines)
    whole = np.empty((weight1.shape[1], BLOCK), dtype=np.int32)
    levels = (np.int64(1) << 35) // inverse
    factors, unit, half = np.empty(BLOCK, dtype=np.float64), 1 / np.float64(1 << shift), np.float64(0.5)
    x, sums = np.empty((weight1.shape[1], BLOCK), dtype=np.float32), np.empty((weight1.shape[0], BLOCK), dtype=np.float32)
    y, answers = np.empty((weight2.shape[1], BLOCK), dtype=np.float32), np.empty((weight3.shape[0], BLOCK), dtype=np.float32)
    logits = np.empty((count, BLOCK), dtype=np.int64)
    index, centre, level_of = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64)
    unit1, unit2, unit3 = input1 / np.float32(128), input2 / np.float32(4096), input3 / np.float32(4096)  # inputs count 2^-7, sums 2^-12
    for i in range(first, last):
        next_row(pixels, residuals, channels, rows, columns, before, i, i == first, slots, seen, missed)
        for place in range(lines.size):
            places[place] = slots[lines[place]]
        for left in range(0, width, BLOCK):
            size = min(BLOCK, width - left)
            mean, scale = means[i, left:left + size], scales[i, left:left + size]
            used = 0
            for place in range(own):
                values = seen[0, places[place]][shifts[place] + left:shifts[place] + left + size]
                errors = missed[0, places[place]][shifts[place] + left:shifts[place] + left + size]
                for j in range(size):
                    whole[place, j] = 16 * values[j] - mean[j]
                if place < near:
                    for j in range(size):
                        whole[own + place, j] = errors[j]
            used = own + near
            for k in range(1, channels.size):
                for place in range(own, own + 5):  # here, then the same pass
                    errors = missed[k, places[place]][shifts[place] + left:shifts[place] + left + size]
                    for j in range(size):
                        whole[used + place - own, j] = errors[j]
                here = seen[k, places[own]][shifts[own] + left:shifts[own] + left + size]
                for n in range(12):
                    place = n if n < 8 else own + n - 7  # the first eight offsets, then the same pass
                    values = seen[k, places[place]][shifts[place] + left:shifts[place] + left + size]
                    for j in range(size):
                        whole[used + 5 + n, j] = 16 * (values[j] - here[j])
                used += 17
            for j in range(size):
                factors[j] = inverse[scale[j]] * unit
            for n in range(used):
                for j in range(size):  # in float64, and exact: the products are integers below 2^53, `unit` is a power of two
                    value = min(max(np.floor(whole[n, j] * factors[j] + half), -limit), limit)
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
                index[j], centre[j], level_of[j] = scale[j] - SCALE_ZERO, np.int64(mean[j]) << 8, levels[scale[j]]
            for k in range(count):
                n = k
                for j in range(size):
                    value = np.int64(_grid(answers[n, j], factor3[n], -_TOP, _TOP)) + tuning[0, n] + (tuning[1, n] * index[j] >> 6)
                    out_means[i, left + j, k] = min(max(centre[j] + (value * level_of[j] >> 12) + 128 >> 8, -(1 << 29)), 1 << 29)
                n = count + k
                for j in range(size):
                    value = np.int64(_grid(answers[n, j], factor3[n], -_TOP, _TOP)) + tuning[0, n] + (tuning[1, n] * index[j] >> 6)
                    out_scales[i, left + j, k] = min(max(((index[j] << 8) + value + 128 >> 8) + SCALE_ZERO, 0), SCALES - 1)
                n = 2 * count + k
                for j in range(size * (count > 1)):  # of a single component nobody asks for the weight
                    logits[k, j] = np.int64(_grid(answers[n, j], factor3[n], -_TOP, _TOP)) + tuning[0, n] + (tuning[1, n] * index[j] >> 6)
            if count == 1:
                out_weights[i, left:left + size] = WEIGHT_TOTAL
            else:
                _shares(logits, size, exp_table, out_weights[i, left:left + size])
