"""Weights as files: the quantiser, its entropy coder, and files that are damaged."""

import struct
from zlib import crc32

import numpy as np
import pytest

from shvc_lib.errors import CorruptFile, InvalidInput, TruncatedFile
from shvc_lib.models import weights

SIZES = (6, 5, 3)


@pytest.fixture(scope="module")
def matrices():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.2, shape).astype(np.float32) for shape in weights.shapes(SIZES)]


def test_predict_is_linear_layers_with_relu_between(matrices):
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    (first, second), hidden = matrices, np.zeros((4, 5))
    for n in range(4):
        for j in range(5):
            hidden[n, j] = max(0, sum(x[n, i] * first[i, j] for i in range(6)) + first[6, j])
    logits = weights.predict(matrices, x)
    assert np.allclose(logits, [[h @ second[:5, k] + second[5, k] for k in range(3)] for h in hidden], atol=1e-5)
    labels = logits.argmax(1)
    assert weights.accuracy(matrices, x, labels) == 1 and weights.accuracy(matrices, x, np.where(np.arange(4) == 2, labels + 1, labels)) == 0.75


@pytest.mark.parametrize("bits", range(2, 13))
def test_quantised_weights_come_back_on_their_grid(matrices, bits):
    decoded = weights.decode(weights.encode(matrices, bits))
    top = 2 ** (bits - 1) - 1
    for matrix, back in zip(matrices, decoded):
        assert back.dtype == np.float32 and back.shape == matrix.shape
        grid = np.unique(np.abs(back))
        step = grid[grid > 0][0] if bits < 4 else np.abs(back).max() / top
        multiples = back / step
        assert np.allclose(multiples, np.rint(multiples), atol=1e-3) and np.abs(multiples).max() <= top + 1e-3
        inside = np.abs(matrix) <= np.abs(back).max()
        assert np.abs(back - matrix)[inside].max() <= step * 0.501


def test_the_step_is_the_best_of_those_tried():
    matrix = np.r_[np.random.default_rng(2).normal(0, 0.1, 999), 3.0].astype(np.float32)[:, None]  # one weight far out
    step, k = weights._quantize(matrix, 3)
    assert 3 * step < 1.5  # clipping it is cheaper than a step of 1
    errors = [np.square(np.clip(np.rint(matrix / s), -3, 3) * s - matrix).sum() for s in np.float32(1) * weights._CLIPS.astype(np.float32)]
    assert np.square(k * step - matrix).sum() == pytest.approx(min(errors))


def test_a_file_costs_what_its_model_charges_and_zeros_are_cheap(matrices):
    rng = np.random.default_rng(3)
    large = [rng.normal(0, 0.2, shape).astype(np.float32) for shape in weights.shapes((64, 32, 10))]
    sparse = [np.where(rng.random(matrix.shape) < 0.9, 0, matrix).astype(np.float32) for matrix in large]
    sizes = {bits: len(weights.encode(large, bits)) for bits in (2, 3, 4, 6)}
    for bits, size in sizes.items():
        counts = [np.unique(matrix, return_counts=True)[1] for matrix in weights.decode(weights.encode(large, bits))]
        entropy = sum(-(c * np.log2(c / c.sum())).sum() for c in counts) / 8
        assert entropy < size < 1.03 * entropy + 40
        assert len(weights.encode(sparse, bits)) < 0.6 * size
    assert sizes[2] < sizes[3] < sizes[4] < sizes[6] < 2410 * 6 / 8


def test_each_layer_takes_the_cheaper_family():
    rng = np.random.default_rng(4)
    tails, bell = rng.laplace(0, 0.1, (40, 30)), rng.normal(0, 0.1, (31, 40))
    file = weights.encode([tails, bell], 5)
    first = 4 + 1 + 2 * 3 + 1 + 4  # the family of the first layer
    assert (file[first], file[first + 6]) == (1, 0)


def test_wrong_weights_are_refused(matrices):
    for wrong in ([], [matrices[1], matrices[0]], [np.full((3, 2), np.nan)], [np.zeros(4)], [np.zeros((1, 4))]):
        with pytest.raises(InvalidInput):
            weights.encode(wrong, 4)
    for bits in (1, 13, 4.0):
        with pytest.raises(InvalidInput, match="bits"):
            weights.encode(matrices, bits)


def test_damaged_files_are_found_out(matrices):
    file = weights.encode(matrices, 4)
    for position in range(len(file)):
        for flip in (1, 128):
            with pytest.raises(CorruptFile):
                weights.decode(file[:position] + bytes([file[position] ^ flip]) + file[position + 1:])
        with pytest.raises(CorruptFile):
            weights.decode(file[:position])
    for wrong in (b"PNG" + file[3:], file + b"\1", b""):
        with pytest.raises(CorruptFile):
            weights.decode(wrong)
    with pytest.raises(TruncatedFile):
        weights.decode(file[:9])


@pytest.mark.parametrize("sizes, bits, family, payload", [
    ((6, 5, 3), 13, 0, None), ((6, 5, 3), 1, 0, None), ((6, 5, 3), 4, 2, None), ((0, 5, 3), 4, 0, None),
    ((6, 5, 4), 4, 0, None), ((6, 5, 3), 4, 0, b"\1\2\3\4\5"), ((6, 5, 3), 4, 0, b"")])
def test_headers_that_lie_are_found_out_although_their_checksum_is_right(matrices, sizes, bits, family, payload):
    file = weights.encode(matrices, 4)
    fields = struct.pack("<B", bits) + 2 * struct.pack("<fBB", 0.1, family, 40)
    head = weights.KIND + struct.pack("<B3H", 3, *sizes) + fields
    payload = file[len(head) + 4:] if payload is None else payload
    with pytest.raises(CorruptFile, match="header|bits|bytes"):
        weights.decode(head + struct.pack("<I", crc32(payload, crc32(head))) + payload)
