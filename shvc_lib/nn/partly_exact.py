"""Checkpoints of networks of which only a part must be exact.

A lossy codec's two ends must agree to the last bit on the distributions that the coder uses. What the sender computes alone (the analysis), and what becomes of
the decoded latents (the synthesis), may be ordinary floats. So the parts that a model class names in `EXACT` are stored as their twins' integers
(`nn.exact`), kernels of convolutions and large matrices as 16-bit floats, and everything else in 32 bits. Taught in chapter 3.
"""

import json

import torch
from safetensors.torch import save_file

from .exact import exact_tensors, fill, read_tensors, with_exact_tensors

_LARGE = 1 << 12  # numbers of a large matrix
_FORMAT = {"format": "shvc_lib exact-in-part network", "version": 1}


def save_partly_exact(model, path):
    """Write a model whose parts named in its `EXACT` are exact twins to a safetensors file."""
    integers = {f"{part}.{name}": values for part in model.EXACT for name, values in exact_tensors(getattr(model, part)).items()}
    others = {name: values.half() if _halved(values) else values for name, values in model.state_dict().items() if name not in integers}
    save_file({name: values.detach().cpu().contiguous() for name, values in (others | integers).items()}, path, metadata={"shvc": json.dumps(_FORMAT)})


def _halved(values):
    return values.is_floating_point() and (values.ndim > 2 or values.ndim == 2 and values.numel() > _LARGE)


def load_partly_exact(model, path):
    """The model that `save_partly_exact` wrote, in evaluation mode, on the CPU; `model`, a new one of the same architecture, is filled and returned.

    Raises MissingData, CorruptFile for a file that is none of ours, InvalidInput if it belongs to another architecture.
    """
    tensors = read_tensors(path, _FORMAT)
    for part in model.EXACT:
        own = {name.removeprefix(f"{part}."): tensors.pop(name) for name in list(tensors) if name.startswith(f"{part}.")}
        setattr(model, part, with_exact_tensors(getattr(model, part), own, path))
    exact = {name for name in model.state_dict() if name.startswith(tuple(f"{part}." for part in model.EXACT))}
    floats = {name: values.float() if values.dtype == torch.float16 else values for name, values in tensors.items()}
    fill(model, floats | {name: values for name, values in model.state_dict().items() if name in exact}, path)
    return model.eval().requires_grad_(False)
