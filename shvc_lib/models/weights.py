"""The weights of a fully connected network as files: plain floats, and quantised weights under an entropy coder.

A network is a list of matrices, one per layer, float32 of shape (inputs + 1, outputs); the last row holds the biases. `predict` runs it. The quantiser is
the usual one: in each layer every weight w becomes an integer k, clipped to -top ... top with top = 2^(bits - 1) - 1, and comes back as k times a
step that the file names; the step is the one of least squared error. The integers cost what a discretised Gaussian or Laplace distribution of fitted width
charges for them, whichever is cheaper, so a peak at zero pays. This is what MIRACLE (`bnn`) has to beat. Taught in chapter 3.

| bytes | meaning |
| --- | --- |
| 4 | three letters for the kind of file and its version |
| 1, then 2 each | how many sizes (inputs, hidden units ..., classes), and the sizes |
| as many as the kind has | fields of its own; here bits (1), and for each layer step (4, float32), family (1), scale index (1) |
| 4 | CRC-32 of all other bytes |
| rest | the stack of the entropy coder |
"""

import math
import struct
from zlib import crc32

import numpy as np

from ..coding import BitStack, DiscretizedMixture, independent, sequence
from ..coding.checks import integer
from ..errors import CorruptFile, InvalidInput, OutOfBits, TruncatedFile

KIND = b"QNT\1"
_FAMILIES = ("gaussian", "laplace")
_CLIPS = np.linspace(0.1, 1, 37)  # where the outermost step may lie, as a share of the layer's largest weight


def check_sizes(sizes):
    """Units per layer, inputs first, as a tuple of ints: two to 255 of them, each 1 ... 65535. Raises InvalidInput."""
    sizes = tuple(integer("sizes", size, 1, 65535) for size in sizes)
    if not 2 <= len(sizes) <= 255:
        raise InvalidInput(f"a network has 2 to 255 sizes, inputs and outputs among them, got {len(sizes)}")
    return sizes


def shapes(sizes):
    """[(inputs + 1, outputs), ...] of each layer's matrix."""
    return [(inputs + 1, outputs) for inputs, outputs in zip(sizes, sizes[1:])]


def split(flat, sizes):
    """A flat array of all weights as a list of matrices (views)."""
    ends = np.cumsum([math.prod(shape) for shape in shapes(sizes)])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes(sizes))]


def check(weights):
    """(weights as float32 matrices, sizes). Raises InvalidInput for matrices that do not follow on each other or are not finite."""
    weights = [np.asarray(matrix, dtype=np.float32) for matrix in weights]
    if not weights or any(matrix.ndim != 2 or not np.isfinite(matrix).all() for matrix in weights):
        raise InvalidInput("weights must be a list of finite matrices (inputs + 1, outputs)")
    sizes = check_sizes([weights[0].shape[0] - 1, *(matrix.shape[1] for matrix in weights)])
    if [matrix.shape for matrix in weights] != shapes(sizes):
        raise InvalidInput(f"matrices of shapes {[matrix.shape for matrix in weights]} are no network: rows are the inputs and one row of biases")
    return weights, sizes


def predict(weights, images):
    """Logits, float (N, outputs), of images (N, inputs): linear layers with ReLU between them."""
    x = np.asarray(images)
    for matrix in weights[:-1]:
        x = np.maximum(x @ matrix[:-1] + matrix[-1], 0)
    return x @ weights[-1][:-1] + weights[-1][-1]


def accuracy(weights, images, labels):
    """The share of images (N, inputs) whose largest logit is that of their label (N,)."""
    return float((predict(weights, images).argmax(1) == np.asarray(labels)).mean())


def pack(kind, sizes, fields, payload):
    """A file's bytes; the layout is above."""
    head = kind + struct.pack(f"<B{len(sizes)}H", len(sizes), *sizes) + fields
    return head + struct.pack("<I", crc32(payload, crc32(head))) + payload


def unpack(kind, data, form, per_layer):
    """(sizes, fields, one tuple of fields per layer, payload) of a file's bytes. form, per_layer: `struct` formats of the kind's own fields.

    Raises CorruptFile, TruncatedFile.
    """
    data = bytes(data)
    if data[:4] != kind[:len(data)] or not data:
        raise CorruptFile(f"this is no file of weights: it does not start with {kind[:3].decode()} and version {kind[3]}")
    layers = max(1, data[4] - 1) if len(data) > 4 else 1
    layout = struct.Struct(f"<4xB{layers + 1}H{form}{per_layer * layers}I")
    if len(data) < layout.size:
        raise TruncatedFile(f"the file ends after {len(data)} bytes, before its header is complete")
    count, *values, crc = layout.unpack_from(data)
    payload = data[layout.size:]
    if crc32(payload, crc32(data[:layout.size - 4])) != crc or count != layers + 1:
        raise CorruptFile("the file is damaged or incomplete: its checksum does not match its bytes")
    sizes, own, each = values[:count], values[count:count + len(form)], len(per_layer)
    rest = values[count + len(form):]
    return tuple(sizes), own, [tuple(rest[each * i:each * i + each]) for i in range(layers)], payload


def pop_all(codec, payload):
    """What `codec` pops from a stack that holds nothing else. Raises CorruptFile."""
    stack = BitStack.from_bytes(payload)
    try:
        values = codec.pop(stack)
    except OutOfBits as error:
        raise CorruptFile(f"the file holds too few bits: {error}") from None
    if stack.bits:
        raise CorruptFile(f"the file holds {stack.bits} bits more than its header asks for")
    return values


def _quantize(matrix, top):
    """(step, integers) of least squared error among the steps tried; the step is a float32."""
    best = None
    for step in np.float32(max(np.abs(matrix).max(), 1e-30) / top) * _CLIPS.astype(np.float32):
        k = np.clip(np.rint(matrix / step), -top, top)
        error = np.square(k * step - matrix).sum()
        if best is None or error < best[0]:
            best = error, step, k.astype(np.int32)
    return best[1:]


def _model(family, scale, shape, top):
    zero = np.zeros((*shape, 1), dtype=np.int32)
    return independent(DiscretizedMixture(_FAMILIES[family], zero, zero + scale, None, 2 * top + 1, -top))


def encode(weights, bits):
    """A file of the weights, quantised to integers of `bits` bits (2 ... 12) and entropy coded: bytes. Raises InvalidInput."""
    weights, sizes = check(weights)
    top = (1 << integer("bits", bits, 2, 12) - 1) - 1
    fields, models, symbols = struct.pack("<B", bits), [], []
    for matrix in weights:
        step, k = _quantize(matrix, top)
        options = [(f, s) for f in range(len(_FAMILIES)) for s in range(0, 176, 4)]
        family, scale = min(options, key=lambda option: _model(*option, k.shape, top).bits(k))
        fields += struct.pack("<fBB", step, family, scale)
        models.append(_model(family, scale, k.shape, top))
        symbols.append(k)
    stack = BitStack()
    sequence(*models).push(stack, symbols)
    return pack(KIND, sizes, fields, stack.to_bytes())


def decode(data):
    """The quantised weights of a file: float32 matrices. Raises CorruptFile, TruncatedFile."""
    sizes, (bits,), layers, payload = unpack(KIND, data, "B", "fBB")
    if not 2 <= bits <= 12 or min(sizes) < 1 or any(family >= len(_FAMILIES) or scale > 191 for _, family, scale in layers):
        raise CorruptFile("the header describes no network that this program can write")
    top = (1 << bits - 1) - 1
    symbols = pop_all(sequence(*(_model(f, s, shape, top) for (_, f, s), shape in zip(layers, shapes(sizes)))), payload)
    return [(k * step).astype(np.float32) for k, (step, _, _) in zip(symbols, layers)]
