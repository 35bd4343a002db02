"""Image models by name. A model is what turns an image's shape into a Codec of images; the container names it in every file.

To add one, register it here: a `Model` whose `codec(shape)` gives push(stack, image), pop(stack) -> image and bits(image) for uint8
images (H, W, C). `revision` changes whenever the same image would get other bytes, so that a file is never decoded by a model that
did not write it.
"""

import importlib
from typing import Callable, NamedTuple

from ..errors import UnknownModel
from . import linear


class Model(NamedTuple):
    """`name` as typed by a user; `revision` 0 ... 65535; `about` one line; `codec(shape)` -> Codec of images of that shape."""

    name: str
    revision: int
    about: str
    codec: Callable


MODELS = {
    model.name: model
    for model in [Model("linear", 1, "no training: interlaced passes, linear prediction fitted to the image, logistic residuals", linear.codec)]
}


def build(class_name, **arguments):
    """A trainable model (a torch.nn.Module) by the name of its class, as recipes name it. Raises UnknownModel."""
    modules = {"BinaryVAE": "binary_vae", "BitsBackVAE": "bits_back_vae", "DiscretizedVAE": "discretized", "Ladder": "ladder", "ExpertSHVC": "expert_shvc", "LinearNet": "linear_net",
               "SHVC": "shvc", "SubsampledSHVC": "subsampled"}
    if class_name not in modules:
        raise UnknownModel(f"no model class is called {class_name!r}; there are: {', '.join(modules)}")
    return getattr(importlib.import_module(f".{modules[class_name]}", __name__), class_name)(**arguments)


def get(name):
    """The registered Model. Raises UnknownModel, naming those that there are."""
    if name not in MODELS:
        raise UnknownModel(f"no model is called {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]
