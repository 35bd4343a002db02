"""Exact twins of trained networks: the same outputs, to the last bit, on any machine and in any batch.

A model is written once, in floats, from convolutions, linear layers, ReLU, additions and re-arrangements. `to_exact` copies it and puts
an `ExactLayer` in the place of every layer with weights; everything else of the model, its methods too, stays as it was written. The
activations are 12-bit integers, with a power of two per layer chosen on calibration data; the weights get, per output channel, as many bits as
keep all sums below 2^24. It costs about 0.1 % in bits, and time only where the network is so small that Python's own counts.

    net = Net(...)                                    # trained in floats
    twin = to_exact(net, lambda net: net(images))     # images: typical ones, a few dozen
    save_exact(twin, "net.safetensors")               # integers only
    twin = load_exact(Net(...), "net.safetensors")    # the same, to the last bit

What is not on the list (exp, sigmoid, divisions, normalisation layers, bilinear interpolation) is not exact and is refused: the twin is
evaluated in float32 and in float64 on the calibration data, and the two must be equal. Masked weights and weight normalisation are written
as parametrisations (`torch.nn.utils.parametrize`), whose result the twin takes over. Taught in chapter 5.
"""

import contextlib
import copy
import json
import lzma
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from ..errors import CorruptFile, InvalidInput, MissingData
from .exact_layer import ACTIVATION_BITS, CONVOLUTIONS, GRID_BITS, GRID_LIMIT, ExactLayer

_LAYERS = (*CONVOLUTIONS, nn.Linear)
_FORMAT = {"format": "shvc_lib exact network", "version": 1, "activation_bits": ACTIVATION_BITS, "grid_bits": GRID_BITS}


def to_exact(model, run, saturate=0.0):
    """The exact twin of `model`, an object of the same class, for inference; `model` itself is not changed.

    run(model) evaluates it on calibration data, the same at every call, and returns a tensor, or a list, tuple or dict of tensors; every layer
    must take part. Inputs should be multiples of 2^-12, pixels as (x - 128) / 128 for example. The twin's outputs are multiples of 2^-12.
    saturate: share of a layer's inputs in the calibration run that may lie beyond its reach and be clamped, so that the grid is finer for all others; if it is
    not 0, outputs may lie beyond what a layer can return, too. Raises InvalidInput, naming the layer, where exactness cannot be had.
    """
    reaches, typical, copied = {}, {}, copy.deepcopy(model).eval()
    layers = _find_layers(copied)

    def observe(layer, inputs, output):
        if output.abs().max() * 2**GRID_BITS > GRID_LIMIT and not saturate:
            raise InvalidInput(f"{layers[layer]}: outputs reach {float(output.abs().max()):.3g}, the limit is {GRID_LIMIT >> GRID_BITS}")
        sizes = inputs[0].abs().flatten()
        reaches[layer] = max(reaches.get(layer, 0.0), float(sizes.topk(int(saturate * sizes.numel()) + 1).values[-1]))
        typical[layer] = typical.get(layer, 0.0) + _inputs_that_come_with(inputs[0], layer)

    hooks = [layer.register_forward_hook(observe) for layer in layers]
    with torch.no_grad():
        run(copied)
    for hook in hooks:
        hook.remove()
    twins = {}
    for layer, name in layers.items():
        if layer not in reaches:
            raise InvalidInput(f"{name}: not used by the calibration run, so its activations' range is unknown")
        try:
            twins[layer] = ExactLayer(layer).to(layer.weight.device)
            twins[layer].quantize(layer.weight, layer.bias, reaches[layer], typical[layer])
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from None
    twin = _replace(copied, twins).requires_grad_(False)
    for values in _loose_floats(twin).values():
        values.data = (values.data * 2**GRID_BITS).round().clamp(-GRID_LIMIT, GRID_LIMIT) / 2**GRID_BITS
    with torch.no_grad(), arithmetic(twin, "float64"):
        expected = _tensors(run(twin))
    with torch.no_grad():
        outputs = _tensors(run(twin))
    if not all(torch.equal(a.double(), b.double()) for a, b in zip(outputs, expected, strict=True)):
        raise InvalidInput("float32 and float64 differ: the model does more than add, compare and re-arrange what its layers "
                           "return (or the run uses other data at each call)")
    return twin


def _inputs_that_come_with(inputs, layer):
    """The mean over calibration data of output times inputs, the shape of the layer's weight: half the gradient of the output's power."""
    with torch.enable_grad():
        weight = layer.weight.detach().requires_grad_()
        bias = None if layer.bias is None else layer.bias.detach()
        product = _apply(layer, inputs.detach(), weight, bias)
        return torch.autograd.grad(product.square().sum() / 2, weight)[0]


def _apply(layer, inputs, weight, bias):
    """What the layer computes, with another weight."""
    function = next((f for kind, f in CONVOLUTIONS.items() if isinstance(layer, kind)), None)
    if function is None:
        return F.linear(inputs, weight, bias)
    return function(inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


@contextlib.contextmanager
def arithmetic(twin, name):
    """Evaluate `twin` in "float32", "float64" or "int64" (numpy, the reference) for a while: the results must be equal to the last bit."""
    if name not in ("float32", "float64", "int64"):
        raise InvalidInput(f"unknown arithmetic {name!r}: float32, float64 or int64")
    layers = [module for module in twin.modules() if isinstance(module, ExactLayer)]
    before = [layer.arithmetic for layer in layers]
    for layer in layers:
        layer.arithmetic = name
    try:
        yield twin
    finally:
        for layer, old in zip(layers, before):
            layer.arithmetic = old


def save_exact(twin, path):
    """Write a twin's integers to a safetensors file: int16 and int32 (what else the model holds in floats is on the grid of 2^-12). If its name
    ends in .xz it is compressed: small integers take up more room than they need."""
    data = save(exact_tensors(twin), metadata={"shvc": json.dumps(_FORMAT)})
    Path(path).write_bytes(lzma.compress(data, preset=9) if Path(path).suffix == ".xz" else data)


def load_exact(model, path):
    """The twin that `save_exact` wrote, on the CPU; `model` is a (trained or new) float model of the architecture that was converted, and is not changed.

    Raises MissingData, CorruptFile for a file that is none of ours, InvalidInput if it belongs to another architecture or breaks the bound.
    """
    return with_exact_tensors(model, read_tensors(path, _FORMAT), path)


def exact_tensors(twin):
    """{name: tensor of integers} that a twin is made of."""
    loose = _loose_floats(twin)
    return {name: ((values * 2**GRID_BITS).to(torch.int32) if name in loose else values).cpu().clone().contiguous()
            for name, values in twin.state_dict().items()}


def with_exact_tensors(model, tensors, path):
    """The twin of these integers, a model of the architecture of `model`. path: where they come from, for messages. Raises InvalidInput."""
    twin = copy.deepcopy(model).cpu().eval()
    twin = _replace(twin, {layer: ExactLayer(layer) for layer in _find_layers(twin)}).requires_grad_(False)
    tensors = dict(tensors)
    for name in _loose_floats(twin):
        if name in tensors:
            tensors[name] = tensors[name].float() / 2**GRID_BITS
    fill(twin, tensors, path)
    return twin


def read_tensors(path, form):
    """{name: tensor} of a safetensors file (one that was compressed ends in .xz) whose header says `form`. Raises MissingData, CorruptFile."""
    try:
        data = Path(path).read_bytes()
        data = lzma.decompress(data) if Path(path).suffix == ".xz" else data
        tensors = load(data)
        header = json.loads(json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}).get("shvc", "null"))
    except FileNotFoundError:
        raise MissingData(f"there is no file {path}") from None
    except (SafetensorError, lzma.LZMAError, ValueError, OSError) as error:
        raise CorruptFile(f"{path} is not a readable safetensors file: {error}") from None
    if header != form:
        raise CorruptFile(f"{path} does not hold {form['format'].replace('shvc_lib ', 'an ')} of this version")
    return tensors


def fill(model, tensors, path):
    """Load tensors into a model that must have exactly these. Raises InvalidInput."""
    expected = {name: (values.shape, values.dtype) for name, values in model.state_dict().items()}
    found = {name: (values.shape, values.dtype) for name, values in tensors.items()}
    if expected != found:
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InvalidInput(f"{path} belongs to another architecture: {', '.join(names[:3])}" + (", ..." if len(names) > 3 else ""))
    model.load_state_dict(tensors)


def _find_layers(model):
    """{layer: name} of all layers with weights. Raises InvalidInput for one that has no exact twin."""
    layers = {}
    for name, module in model.named_modules():
        kind = next((kind for kind in _LAYERS if isinstance(module, kind)), None)
        if kind is not None:
            if type(module).forward is not kind.forward:
                raise InvalidInput(f"{name}: has a forward of its own; change its weights by torch.nn.utils.parametrize instead")
            layers[module] = name
        elif _is_torchs_own(module) and any(True for _ in module.parameters(recurse=False)):
            raise InvalidInput(f"{name}: {type(module).__name__} has no exact twin")
    return layers


def _is_torchs_own(module):
    home = type(module).__module__
    return home.startswith("torch.nn.modules") and home != nn.ParameterList.__module__


def _replace(model, twins):
    """`model` with its layers exchanged, wherever they occur."""
    for module in list(model.modules()):
        for name, child in module._modules.items():  # not named_children: a layer used under two names must go under both
            if child in twins:
                setattr(module, name, twins[child])
    return twins.get(model, model)


def _loose_floats(twin):
    """{name: tensor} of the floating-point parameters and buffers that belong to no layer: they are added to activations, so they live on the grid."""
    pairs = [*twin.named_parameters(remove_duplicate=False), *twin.named_buffers(remove_duplicate=False)]
    return {name: values for name, values in pairs if values.is_floating_point()}


def _tensors(outputs):
    if torch.is_tensor(outputs):
        return [outputs]
    if not isinstance(outputs, (list, tuple, dict)):
        raise InvalidInput(f"the calibration run must return tensors, got {type(outputs).__name__}")
    return [tensor for part in (outputs.values() if isinstance(outputs, dict) else outputs) for tensor in _tensors(part)]
