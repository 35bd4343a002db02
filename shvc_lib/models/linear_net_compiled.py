"""What `linear-net` says of a step, compiled: from pixels to the integer parameters of the mixtures, 64 pixels of a row at a time.

`linear_net.NetCanvas.inputs`, three `nn.exact.ExactLayer`s, `linear_net.tuned` and `nn.parameters.relative_mixture` in one loop, so that nothing between them
goes through the memory. The layers' sums are float32 additions of integers below 2^24, exact in every order, so it does not matter that they are added up in
another one here; the tests compare every number with what those four return. Used for images with enough pixels to be worth it.
"""

import numpy as np
from numba import njit

from ..coding.compiled import compiled
from ..coding.discretized import WEIGHT_TOTAL
from ..coding.tables import SCALE_ZERO, SCALES, inverse_scales
from ..nn.exact_layer import GRID_LIMIT, REACH
from ..nn.parameters import exp_table
from .linear import _SAME_PASS, as_compiled
from .linear_compiled import next_row, predicted_row
from .linear_layout import layout
from .linear_net_inputs import INPUT_BITS, INPUT_LIMIT, LEVELS, SHIFT, inverse_floats, own_neighbours, pass_of

BLOCK = 128  # pixels at a time: their inputs and hidden units stay in the caches
FARTHEST = 1 << 14  # 1/16 level: an expert's means are clamped to this; beyond 64 levels outside the image's it makes no difference
_ROUND = np.float32(3 << 22)  # adding and taking away this rounds a float32 below 2^22 to the nearest integer, halves to even
_TOP = np.float32(GRID_LIMIT)
_LOW, _HIGH = np.float32(-REACH), np.float32(REACH - 1)  # float32 all of them: with a float64 among them there would be no rounding


@njit(inline="always")
def _grid(value, scale, low, high):
    """round(value * scale), clamped to integers low ... high."""
    return (min(max(value * scale, low), high) + _ROUND) - _ROUND


def layers_of(head):
    """A perceptron's layers as `mixtures` takes them: see `nn.exact_layer.filled`."""
    return tuple(layer.prepared(True) for layer in head[::2])


def mixtures_by_rows(net, canvas, step, parameters, layers, tuning, latents=None):
    """(fill, means of `linear`, means, scales, weights) of mixtures as `linear_net._mixture` makes them: four empty arrays, int32 (R, C) and (R, C, K), and
    fill(first, last), compiled code that writes into their rows first ... last - 1. parameters: `linear`'s; layers, tuning, latents: see `mixtures`."""
    offsets, errors = own_neighbours(pass_of(step), net.lean)
    shape = step.rows.size, step.columns.size
    means, scales = np.empty((2, *shape), dtype=np.int32)
    found = np.empty((3, *shape, net.components), dtype=np.int32)
    known = (canvas.pixels, canvas.residuals, np.array([step.channel, *step.earlier]), *layout(step, [*offsets, (0, 0), *_SAME_PASS], canvas.pixels.shape),
             len(offsets), errors, as_compiled(step, parameters, parameters.scales), inverse_scales(), inverse_floats() if net.single else None, SHIFT, INPUT_LIMIT,
             min(step.stride.bit_length() - 1, LEVELS - 1) << INPUT_BITS, layers, tuning, exp_table(), latents, means, scales)
    return lambda first, last: mixtures(*known, first, last, *found), means, *found


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
def _input(whole, single, factors, singles, unit, limit, unit1, width, out):
    """What the first layer sees of numbers in 1/16 level, given what makes units of a scale of them: see `linear_net.NetCanvas.inputs`."""
    if single is None:
        for j in range(width):  # in float64, and exact: the products are integers below 2^53, `unit` is a power of two
            value = min(max(np.floor(whole[j] * factors[j] + np.float64(0.5)), -limit), limit)
            out[j] = _grid(np.float32(value), unit1, _LOW, _HIGH)
    elif unit1 == 1:
        for j in range(width):
            out[j] = _grid(np.float32(whole[j]), singles[j], -np.float32(limit), np.float32(limit))
    else:
        for j in range(width):
            out[j] = _grid(_grid(np.float32(whole[j]), singles[j], -np.float32(limit), np.float32(limit)), unit1, _LOW, _HIGH)


@njit(inline="always")
def _hidden(sums, factor, scale, width, out):
    """What the next layer, whose inputs are multiplied by `scale`, makes of ReLU of a layer's sums, whose channels are multiplied by `factor`."""
    for o in range(sums.shape[0]):
        for j in range(width):
            out[o, j] = (min(_grid(sums[o, j], factor[o], np.float32(0), _TOP) * scale, _HIGH) + _ROUND) - _ROUND


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


@njit(inline="always")
def _expert(answers, factor, tuning, heights, middles, units, width, out):
    """Means in 1/16 level of one expert, int16, from the last layer's sums. In float64, and exact: the products are integers below 2^47."""
    bias, slope = np.float64(tuning[0]), np.float64(tuning[1]) / np.float64(64)
    for j in range(width):
        value = np.float64(_grid(answers[j], factor, -_TOP, _TOP)) + (bias + slope * np.float64(heights[j]))
        mean = np.floor((middles[j] + np.floor(value * units[j] * np.float64(1 / 4096)) + np.float64(128)) * np.float64(1 / 256))
        out[j] = np.int16(min(max(mean, np.float64(-FARTHEST)), np.float64(FARTHEST)))


@njit(inline="always")
def _expert_scale(answers, factor, tuning, heights, width, out):
    """Indices of the scales of one expert, int16. In float32, and exact: integers below 2^22."""
    bias, slope = np.float32(tuning[0]), np.float32(tuning[1]) * np.float32(1 / 64)
    for j in range(width):
        value = _grid(answers[j], factor, -_TOP, _TOP) + (bias + slope * heights[j]) + heights[j] * np.float32(256)
        index = np.floor((value + np.float32(128)) * np.float32(1 / 256)) + np.float32(SCALE_ZERO)
        out[j] = np.int16(min(max(index, np.float32(0)), np.float32(SCALES - 1)))


@compiled(nogil=True)
def mixtures(pixels, residuals, channels, rows, columns, before, lines, shifts, own, near, fitted, inverse, single, shift, limit, level, layers, tuning,
             exp_table, latents, means, scales, first, last, out_means, out_scales, out_weights):
    """Fill in the rows first ... last - 1 of a step: means and scales, int32 (R, C), what `linear` says, and int32 (R, C, K) each, means in 1/16 level, indices
    of scales and weights.

    pixels ... own: as `linear_compiled.means_and_classes` takes them, residuals with their signs; near: how many of the offsets also give their residuals;
    fitted: of `linear.as_compiled`; inverse: int64, `tables.inverse_scales`, and how far to shift down a product with it; single: None, or
    `linear_net.inverse_floats` to be used instead; limit: of the inputs; level: the last input; layers: of `layers_of`; tuning: int64 (2, 3 K), bias and slope;
    exp_table: int64, `nn.parameters.exp_table`. latents: None, or (z, its row for each row, its column for each column, means and scales, int16 (R, M, C)) for M experts: then the last layer and the tuning have 2 M, offsets and log scales; what all experts say goes into the last two, what the one says
    that z names into out_means and out_scales, and nothing into out_weights."""
    (weight1, bias1, factor1, input1), (weight2, bias2, factor2, input2), (weight3, bias3, factor3, input3) = layers
    count, width = tuning.shape[1] // (3 if latents is None else 2), means.shape[1]
    number, coefficients, spreads, mean_shift, spread_shift, scales_of = fitted
    lists = np.empty((5, width), dtype=np.int32)
    seen = np.empty((channels.size, lines.max() + 1, columns.shape[1]), dtype=np.int32)
    missed = np.empty_like(seen)
    slots, places = np.empty(rows.shape[0], dtype=np.int64), np.empty_like(lines)
    whole = np.empty(BLOCK, dtype=np.int32)
    levels = (np.int64(1) << 35) // inverse
    singles = np.empty(BLOCK, dtype=np.float32)
    factors, unit = np.empty(BLOCK, dtype=np.float64), 1 / np.float64(1 << shift)
    x, sums = np.zeros((weight1.shape[1], BLOCK), dtype=np.float32), np.empty((weight1.shape[0], BLOCK), dtype=np.float32)
    y, answers = np.zeros((max(weight1.shape[0], weight2.shape[1]), BLOCK), dtype=np.float32), np.empty((weight3.shape[0], BLOCK), dtype=np.float32)
    logits, heights = np.empty((count, BLOCK), dtype=np.int64), np.empty(BLOCK, dtype=np.float32)
    middles, units = np.empty(BLOCK, dtype=np.float64), np.empty(BLOCK, dtype=np.float64)
    index, centre, level_of = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64)
    unit1, unit2, unit3 = input1 / np.float32(128), input2 / np.float32(4096), input3 / np.float32(4096)  # inputs count 2^-7, sums 2^-12
    for i in range(first, last):
        next_row(pixels, residuals, channels, rows, columns, before, i, i == first, slots, seen, missed)
        for place in range(lines.size):
            places[place] = slots[lines[place]]
        predicted_row(seen, missed, places, shifts, number, own, coefficients, spreads, mean_shift, spread_shift, scales_of, lists, means[i], scales[i])
        for left in range(0, width, BLOCK):
            size = min(BLOCK, width - left)
            mean, scale = means[i, left:left + size], scales[i, left:left + size]
            if single is None:
                for j in range(size):
                    factors[j] = inverse[scale[j]] * unit
            else:
                for j in range(size):
                    singles[j] = single[scale[j]]
            used = 0
            for place in range(own):
                values = seen[0, places[place]][shifts[place] + left:shifts[place] + left + size]
                for j in range(size):
                    whole[j] = 16 * values[j] - mean[j]
                _input(whole, single, factors, singles, unit, limit, unit1, size, x[place])
                if place < near:
                    errors = missed[0, places[place]][shifts[place] + left:shifts[place] + left + size]
                    _input(errors, single, factors, singles, unit, limit, unit1, size, x[own + place])
            used = own + near
            for k in range(1, channels.size):
                for place in range(own, own + 5):  # here, then the same pass
                    errors = missed[k, places[place]][shifts[place] + left:shifts[place] + left + size]
                    _input(errors, single, factors, singles, unit, limit, unit1, size, x[used + place - own])
                here = seen[k, places[own]][shifts[own] + left:shifts[own] + left + size]
                for n in range(12):
                    place = n if n < 8 else own + n - 7  # the first eight offsets, then the same pass
                    values = seen[k, places[place]][shifts[place] + left:shifts[place] + left + size]
                    for j in range(size):
                        whole[j] = 16 * (values[j] - here[j])
                    _input(whole, single, factors, singles, unit, limit, unit1, size, x[used + 5 + n])
                used += 17
            for j in range(size):
                x[used, j] = _grid(np.float32((scale[j] - SCALE_ZERO) * 8), unit1, _LOW, _HIGH)
                x[used + 1, j] = _grid(np.float32((mean[j] >> 4) - 128), unit1, _LOW, _HIGH)
                x[used + 2, j] = _grid(np.float32(level), unit1, _LOW, _HIGH)
            _sums(x, weight1, bias1, size, sums)
            _hidden(sums, factor1, unit2, size, y)
            _sums(y, weight2, bias2, size, sums)
            _hidden(sums, factor2, unit3, size, y)
            _sums(y, weight3, bias3, size, answers)
            if latents is not None:
                z, down, across, all_means, all_scales = latents
                for j in range(size):
                    units[j], middles[j], heights[j] = levels[scale[j]], np.int64(mean[j]) << 8, scale[j] - SCALE_ZERO
                for k in range(count):
                    _expert(answers[k], factor3[k], tuning[:, k], heights, middles, units, size, all_means[i, k, left:left + size])
                    _expert_scale(answers[count + k], factor3[count + k], tuning[:, count + k], heights, size, all_scales[i, k, left:left + size])
                for j in range(left, left + size):
                    k = z[down[i], across[j]]
                    out_means[i, j, 0], out_scales[i, j, 0] = all_means[i, k, j], all_scales[i, k, j]
                continue
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
