"""Trained networks by name: `zoo.load("vae-stochastic-2")`.

They are the repository's files data/checkpoints/NAME.safetensors (or .safetensors.xz, compressed), exact twins (`nn.exact`, or `nn.partly_exact` for lossy
models): numbers, nothing that could run. Beside each lies its model card NAME.json: the recipe, the data and the machine it was trained on, for how long,
what it reached on which images, and the SHA-256 of the weights, which is checked before they are used. tools/ship_checkpoint.py makes both from a training
run's folder. First used in chapter 2.
"""

import hashlib
import json
from pathlib import Path

from . import models
from .errors import CorruptFile, MissingData, UnknownModel
from .nn import load_exact, load_partly_exact

FOLDER = Path(__file__).resolve().parent.parent / "data" / "checkpoints"


def names():
    """Names of all trained networks that are here, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name):
    """The model card, a dict. Raises UnknownModel, or MissingData when the library was installed without the repository's data folder."""
    if not FOLDER.is_dir():
        raise MissingData(f"{FOLDER} is not here: trained networks come with the repository, so install the library from a clone of it (pip install -e .)")
    if name not in names():
        raise UnknownModel(f"no trained network is called {name!r}; there are: {', '.join(names())}")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def file_of(name):
    """Where the weights of a network are, or should be."""
    path = FOLDER / f"{name}.safetensors"
    return path if path.exists() or not path.with_suffix(".safetensors.xz").exists() else path.with_suffix(".safetensors.xz")


def load(name):
    """The exact or partly exact twin, ready to code with: the model class of its recipe, in evaluation mode, on the CPU.

    Raises UnknownModel, MissingData, and CorruptFile when the weights are not those that the card describes.
    """
    about, path = card(name), file_of(name)
    if not path.is_file():
        raise MissingData(f"{path} is not here, only its card: get the file from the repository again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise CorruptFile(f"{path} is not the file that its model card describes: get it from the repository again")
    model = models.build(about["recipe"]["model"], **about["recipe"]["arguments"])
    return load_partly_exact(model, path) if hasattr(model, "EXACT") else load_exact(model, path)
