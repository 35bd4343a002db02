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


WAYS = {"two threads": two_threads, "channels last": channels_last, "float64": lambda twin: nn.arithmetic(twin, "float64"),
        "int64": lambda twin: nn.arithmetic(twin, "int64")}
