"""The experts of `shvc-photo`: last layers of a trained perceptron that differ from it by what an image brings with it, and what they say."""

import numpy as np
import torch

from ..errors import CorruptFile, InvalidInput
from ..nn.exact_layer import GRID_BITS, GRID_LIMIT, REACH, SUM_LIMIT
from ..nn.parameters import OUTPUT_BITS, relative_mixture, round_shift
from .linear_layout import bands
from .linear_net import _BAND, head_of
from .linear_net_inputs import INPUT_BITS

WEIGHT_BITS, WEIGHT_LIMIT = 4, 64  # experts differ from the trained layer by multiples of 2^-4, -64 ... 63 of them
_SPARE = 2  # bits of the trained layer's weights that are given up, so that experts may differ from it and sums stay exact


def expert_layers(net, step, experts):
    """(layer, tuning) of M experts: (weight (2 M, width), bias (2 M,), factor (2 M,), scale of inputs), float32 as of `ExactLayer.prepared`, all offsets before
    all log scales; and int64 (2, 2 M), bias and slope in 2^-12. Raises CorruptFile for experts whose sums could be inexact."""
    layer = head_of(net, step)[4]
    shifts = layer.weight_shift[:2].numpy().astype(np.int64)
    common = int(shifts.min()) - _SPARE  # weights count 2^-common
    if common < WEIGHT_BITS:
        raise InvalidInput("the weights of this network's last layer are too large for experts")
    weights, biases = layer.weight[:2].numpy().astype(np.int64), layer.bias[:2].numpy().astype(np.int64)
    weights = np.stack([round_shift(own, int(shift) - common) for own, shift in zip(weights, shifts)])
    biases = np.array([round_shift(own, int(shift) - common) for own, shift in zip(biases, shifts)])
    experts = np.asarray(experts, dtype=np.int64).swapaxes(0, 1)  # (2, M, width + 2)
    weights = (weights[:, None] + (experts[..., :-2] << common - WEIGHT_BITS)).reshape(-1, weights.shape[1])
    biases = np.broadcast_to(biases[:, None], experts.shape[:2]).reshape(-1)
    if (np.abs(weights).sum(1) * REACH + np.abs(biases)).max() >= SUM_LIMIT:
        raise CorruptFile("an expert's weights are larger than any that are sent: the stream is damaged")
    factor = np.full(len(weights), 2.0 ** (GRID_BITS - common - int(layer.input_shift)))
    prepared = *(values.astype(np.float32) for values in (weights, biases, factor)), layer.prepared()[3]
    return prepared, (experts[..., -2:] << OUTPUT_BITS - WEIGHT_BITS).transpose(2, 0, 1).reshape(2, -1)


def hidden_units(net, canvas, step, means, scales):
    """What the last layer sees of the step's pixels, integers of its inputs' unit: yields (slice of the flat pixels, float32 (pixels, width))."""
    head = head_of(net, step)
    for band, part in bands(step, _BAND):
        x = canvas.inputs(band, means[part], scales[part], net.lean, net.single)
        with torch.no_grad():
            hidden = head[:4](torch.from_numpy(np.ascontiguousarray(x.T)).float() / (1 << INPUT_BITS)).numpy()
        yield part, np.clip(np.rint(hidden * head[4].prepared()[3]), -REACH, REACH - 1)


def opinions(net, canvas, step, means, scales, layer, tuning):
    """(means in 1/16 level, scale indices) of all experts' logistics: int32 (pixels, M). means, scales: of `linear`, flat; the rest from `expert_layers`."""
    weight, bias, factor, _ = (np.asarray(values, dtype=np.float64) for values in layer)
    found = []
    for part, hidden in hidden_units(net, canvas, step, means, scales):
        answers = np.clip(np.rint((hidden.astype(np.float64) @ weight.T + bias) * factor), -GRID_LIMIT, GRID_LIMIT).astype(np.int64)
        base = scales[part, None].astype(np.int64)
        answers += tuning[0] + (tuning[1] * (base - 48) >> 6)
        offsets, log_scales = np.split(answers, 2, axis=1)
        found.append(relative_mixture(means[part, None].astype(np.int64) << OUTPUT_BITS - 4, base, offsets, log_scales, np.zeros_like(offsets))[:2])
    return tuple(np.concatenate(values).astype(np.int32) for values in zip(*found))
