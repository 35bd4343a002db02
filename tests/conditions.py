"""Ways of running an exact twin that must not change a bit, shared by the tests of determinism: context managers that yield the twin to use."""

import contextlib
import copy

import torch

from shvc_lib import nn


@contextlib.contextmanager
def two_threads(twin):
    torch.set_num_threads(2)
    try:
        yield twin
    finally:
        torch.set_num_threads(1)


@contextlib.contextmanager
def channels_last(twin):
    """Weights and every layer's input with the channels innermost, in two and in three dimensions."""
    other, forms = copy.deepcopy(twin), {4: torch.channels_last, 5: torch.channels_last_3d}
    for layer in other.modules():
        if isinstance(layer, nn.ExactLayer):
            if layer.weight.ndim in forms:
                layer.to(memory_format=forms[layer.weight.ndim])
            layer.check()  # forgets the kernels it had prepared
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(memory_format=forms[inputs[0].ndim]),))
    yield other


@contextlib.contextmanager
def without_onednn(twin):
    """torch's own kernels, and from sixteen images on NNPACK's where it is not kept out."""
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=False):
        yield twin


@contextlib.contextmanager
def careless(twin):
    """bfloat16 wherever torch may choose it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield twin
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def on_gpu(twin):
    """Every layer's sums on the GPU, everything between them on the CPU. To be skipped where there is none."""
    other = copy.deepcopy(twin)
    for layer in other.modules():
        if isinstance(layer, nn.ExactLayer):
            layer.to("cuda").check()
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].to("cuda"),))
            layer.register_forward_hook(lambda _, inputs, output: output.to("cpu"))
    yield other


WAYS = {"two threads": two_threads, "channels last": channels_last, "float64": lambda twin: nn.arithmetic(twin, "float64"),
        "int64": lambda twin: nn.arithmetic(twin, "int64")}
MORE_WAYS = {**WAYS, "oneDNN off": without_onednn, "careless": careless}
