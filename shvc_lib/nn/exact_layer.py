"""One convolution or linear layer whose every sum is an exact integer, whatever adds it up.

Floating-point addition is not associative, and the order in which a library adds depends on the batch, the threads, the memory layout
and the processor. So the same network gives an encoder and a decoder numbers that differ in the last bits, and one symbol out of step
garbles the rest of a file. But float32 is exact on integers up to 2^24. If activations are integers of at most 2^11 and the
integer weights w of an output channel and its bias b obey

    sum |w| * 2^11 + |b| < 2^24                                                          (the bound)

then no partial sum, in whatever order, is ever rounded: fast float kernels do integer arithmetic (Balle et al. 2019 made networks of integers;
this is their idea in ordinary float32 operators). Values between the layers are multiples of 2^-12 below 2^8: additions, ReLU and re-arrangements of
those are exact too, so that a model's `forward` needs no change. Powers of two scale, and rounding to the nearest grid point follows.

What would break the sums are kernels that do something other than multiply and add integers: Winograd and FFT transforms (NNPACK; cuDNN), TF32 and
bfloat16 products. `exact_kernels` keeps them out while a layer runs. Taught in chapter 5; measured there against the float network.
"""

import contextlib
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from ..errors import InvalidInput

ACTIVATION_BITS = 12  # signed: -2^11 ... 2^11 - 1
SUM_LIMIT = 1 << 24  # float32 holds every integer up to here
GRID_BITS, GRID_LIMIT = 12, 1 << 20  # layers return multiples of 2^-12, at most 2^8: sixteen of them may still be added exactly
REACH = 1 << (ACTIVATION_BITS - 1)
_SHIFTS = range(-8, 25)  # exponents tried for the weights of a channel
CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@contextlib.contextmanager
def exact_kernels(device="cpu"):
    """Within it, torch's convolutions and products on `device` add up plain float32 products; every setting is put back afterwards.

    The settings are torch's, global to the process: do not change them from another thread meanwhile.
    """
    kind, backends = torch.device(device).type, torch.backends
    with contextlib.ExitStack() as stack:
        if kind == "cuda":  # cuDNN may choose a Winograd kernel even when asked for determinism; torch's own path is a matrix product
            stack.enter_context(backends.cudnn.flags(enabled=False, allow_tf32=False))
        else:
            stack.callback(backends.nnpack.set_flags, *backends.nnpack.set_flags(False))
        if hasattr(backends.mkldnn, "matmul"):  # torch 2.9 and later: a setting for each, "none" meaning plain float32
            for setting in [backends.cuda.matmul] if kind == "cuda" else [backends.mkldnn.matmul, backends.mkldnn.conv]:
                if setting.fp32_precision not in ("none", "ieee"):  # "tf32" and "bf16" shorten the factors
                    stack.callback(setattr, setting, "fp32_precision", setting.fp32_precision)
                    setting.fp32_precision = "ieee"
        elif torch.get_float32_matmul_precision() != "highest":
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def filled(weight, bias, factor, scale):
    """A linear layer, as `ExactLayer.prepared` returns it, with zeros that make the number of its outputs a multiple of three and that of its inputs one of four:
    compiled code does as many at a time."""
    outputs, inputs = (side + -side % step for side, step in zip(weight.shape, (3, 4)))
    whole, ends = np.zeros((outputs, inputs), dtype=np.float32), np.zeros((2, outputs), dtype=np.float32)
    whole[:len(weight), :weight.shape[1]] = weight
    ends[:, :len(weight)] = bias, factor.reshape(-1)
    return whole, *ends, scale


class ExactLayer(nn.Module):
    """The integer twin of one nn.Conv1d, Conv2d, Conv3d or Linear, made by `nn.exact.to_exact`.

    Buffers (all that is saved): weight int16, the layer's shape, < 2^13 in size; bias int32 (O,); weight_shift int16 (O,) and input_shift int16 (),
    the powers of two: weights = weight * 2^-weight_shift, activations = input * 2^-input_shift. forward: tensor of multiples of 2^-12 -> the same.
    `arithmetic`: "float32" (how it is used), or "float64" and "int64" (numpy, slow), which must give the same to the last bit.
    """

    def __init__(self, module):
        super().__init__()
        self.convolution = next((f for kind, f in CONVOLUTIONS.items() if isinstance(module, kind)), None)
        if self.convolution:
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                raise InvalidInput("exact convolutions pad with zeros, by numbers: padding='same' and padding modes are not known")
            self.options = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
        outputs = module.weight.shape[0]
        self.register_buffer("weight", torch.zeros(module.weight.shape, dtype=torch.int16))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.int32))
        self.register_buffer("weight_shift", torch.zeros(outputs, dtype=torch.int16))
        self.register_buffer("input_shift", torch.zeros((), dtype=torch.int16))
        self.arithmetic, self._cache = "float32", {}

    def quantize(self, weight, bias, reach, typical=None):
        """Fill in the integers from float weights, biases (or None) and the largest activation seen. Each channel gets the largest exponent
        that keeps the bound. typical: for each output the inputs that come with it, the shape of `weight` (see `balanced_rounding`).
        Raises InvalidInput where no exponent keeps the bound."""
        weight = weight.detach().cpu().double().numpy()
        bias = np.zeros(len(weight)) if bias is None else bias.detach().cpu().double().numpy()
        if not (np.isfinite(weight).all() and np.isfinite(bias).all() and math.isfinite(reach)):
            raise InvalidInput("weights, biases and activations must be finite")
        input_shift = GRID_BITS if reach == 0 else min(GRID_BITS, math.floor(math.log2((REACH - 1) / reach)))
        rows, shift = weight.reshape(len(weight), -1), np.full(len(weight), _SHIFTS[0] - 1)
        for e in _SHIFTS:
            sums = np.abs(np.rint(rows * 2.0**e)).sum(1) * REACH + np.abs(np.rint(bias * 2.0 ** (e + input_shift)))
            shift[sums < SUM_LIMIT] = e
        if shift.min() < _SHIFTS[0]:
            raise InvalidInput(f"weights too large for exact sums: a channel's add up to {np.abs(rows).sum(1).max():.3g}")
        scale = 2.0 ** shift.astype(np.float64)
        whole = np.rint(rows * scale[:, None])
        if typical is not None:
            better = balanced_rounding(rows * scale[:, None], typical.detach().cpu().double().numpy().reshape(rows.shape))
            fits = np.abs(better).sum(1) * REACH + np.abs(np.rint(bias * scale * 2.0**input_shift)) < SUM_LIMIT
            whole = np.where(fits[:, None], better, whole)
        self.weight.copy_(torch.from_numpy(whole.reshape(weight.shape)))
        self.bias.copy_(torch.from_numpy(np.rint(bias * scale * 2.0**input_shift)))
        self.weight_shift.copy_(torch.from_numpy(shift))
        self.input_shift.fill_(input_shift)
        self.check()

    def check(self):
        """Raise InvalidInput if the bound is broken: such a layer could round. Forgets what was prepared from older integers."""
        self._cache = {}
        sums = self.weight.long().flatten(1).abs().sum(1) * REACH + self.bias.long().abs()
        if sums.max() >= SUM_LIMIT:
            raise InvalidInput(f"sums could reach {int(sums.max())}, exact only below 2^24")
        shifts = torch.cat([self.weight_shift.reshape(-1), self.input_shift.reshape(-1)])
        if shifts.min() < _SHIFTS[0] or shifts.max() > _SHIFTS[-1]:
            raise InvalidInput(f"exponents must lie in {_SHIFTS[0]} ... {_SHIFTS[-1]}")

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self.check()

    def _prepared(self, dtype, device):
        """Weights, biases, the factor 2^(12 - shifts) of every channel, the scale of the inputs and 2^-12 as floats, made once."""
        if (dtype, device) not in self._cache:
            factor = [math.ldexp(1.0, GRID_BITS - int(s) - int(self.input_shift)) for s in self.weight_shift]
            factor = torch.tensor(factor, dtype=dtype, device=device).reshape(-1, *[1] * (self.weight.ndim - 2))
            scales = (torch.tensor(2.0**e, dtype=dtype, device=device) for e in (int(self.input_shift), -GRID_BITS))  # faster than Python's numbers
            self._cache[dtype, device] = self.weight.to(device, dtype), self.bias.to(device, dtype), factor, *scales
        return self._cache[dtype, device]

    def prepared(self, whole=False):
        """(weight, bias, factor, scale), float32 of numpy: forward is clamp(round(factor * (weight @ clamp(round(scale * x)) + bias))) * 2^-12. whole: whether
        `filled`."""
        if ("numpy", whole) not in self._cache:
            *arrays, scale = (value.numpy() for value in self._prepared(torch.float32, torch.device("cpu"))[:4])
            self._cache["numpy", whole] = filled(*arrays, np.float32(scale)) if whole else (*arrays, np.float32(scale))
        return self._cache["numpy", whole]

    @torch.no_grad()
    def forward(self, x):
        if self.arithmetic == "int64":
            return self._reference(x)
        weight, bias, factor, scale, grid = self._prepared(getattr(torch, self.arithmetic), x.device)
        x = (x.to(weight.dtype) * scale).round_().clamp_(-REACH, REACH - 1)
        with exact_kernels(x.device):
            sums = self.convolution(x, weight, bias, **self.options) if self.convolution else F.linear(x, weight, bias)
        return sums.mul_(factor).round_().clamp_(-GRID_LIMIT, GRID_LIMIT).mul_(grid)

    def _reference(self, x):
        """The same in numpy's int64: no float takes part in a sum. Returns float64 multiples of 2^-12."""
        x = x.detach().cpu().double().numpy() * 2.0 ** int(self.input_shift)
        x, weight, bias = np.rint(x).clip(-REACH, REACH - 1).astype(np.int64), self.weight.cpu().long().numpy(), self.bias.cpu().long().numpy()
        if self.convolution:
            sums = correlate(x, weight, **self.options) + bias.reshape(-1, *[1] * (weight.ndim - 2))
        else:
            sums = x @ weight.T + bias
        shift = (self.weight_shift.cpu().long().numpy() + int(self.input_shift) - GRID_BITS).reshape(-1, *[1] * (weight.ndim - 2))
        up, down = np.maximum(-shift, 0), np.maximum(shift, 0)
        whole, rest = (sums << up) >> down, (sums << up) & (1 << down) - 1
        half = 1 << down >> 1
        whole += (down > 0) & ((rest > half) | (rest == half) & (whole & 1 == 1))  # to the nearest, halves to even, as torch.round
        return torch.from_numpy(whole.clip(-GRID_LIMIT, GRID_LIMIT) * 2.0**-GRID_BITS)


def balanced_rounding(rows, typical):
    """Round each row to integers so that it hardly changes its product with that row of `typical`: float64 (n, m) each -> float64 (n, m).

    Rounding to the nearest makes errors of random signs, but a layer's inputs are not random: a bright area has all of them bright, and the errors add up. So
    a few of the weights that lay nearest to the middle are rounded to the other side, until the errors cancel in the direction that matters.
    """
    whole = np.rint(rows)
    for row, exact, along in zip(whole, rows, typical):
        error = row - exact
        excess = error @ along
        helpful = np.flatnonzero((error * along * excess > 0))  # rounding these the other way brings the product nearer to what it was
        order = helpful[np.argsort((1 - 2 * np.abs(error[helpful])) / np.abs(along[helpful]), kind="stable")]
        turned = order[np.cumsum(np.abs(along[order])) <= abs(excess)]
        row[turned] -= np.sign(error[turned])
    return whole


def correlate(x, weight, stride, padding, dilation, groups):
    """What torch calls a convolution, on int64 arrays: x (B, C, *spatial), weight (O, C / groups, *kernel) -> (B, O, *spatial')."""
    axes = tuple(range(2, x.ndim))
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    windows = sliding_window_view(x, [d * (n - 1) + 1 for d, n in zip(dilation, weight.shape[2:])], axis=axes)
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in (*stride, *dilation)))]
    kernel = tuple(range(x.ndim, windows.ndim))  # (B, C, *spatial', *kernel)
    parts = [np.tensordot(w, f, axes=((1, *kernel), (1, *axes)))
             for w, f in zip(np.split(windows, groups, axis=1), np.split(weight, groups))]
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
