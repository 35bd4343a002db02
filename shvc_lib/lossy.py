"""Image models that lose something, by name: what `shvc encode --model dvae-12` uses. Taught in chapters 3 and 4.

They stand beside the lossless models of `models`, and their files are .shvc files, too. A checksum of pixels would prove too much for them: the last step
of the decoder, from latents to pixels, is in floating point. So the file's checksum is that of everything before it, the latents and the
distributions that they were coded with, which are integers. The revision in a file is the beginning of the SHA-256 of the network's weights: no
other network than the one that wrote it will decode it.
"""

from functools import lru_cache
from typing import Callable, NamedTuple
from zlib import crc32

import numpy as np

from .errors import InvalidInput, UnknownModel, UnsupportedImage

DEFAULT_QUALITY = 3


class Lossy(NamedTuple):
    """`name` as typed by a user; `revision` 0 ... 65535; `qualities`: 1 (the smallest files) ... this. encode(image, quality) -> (payload, picture, checksum)
    and decode(payload, shape) -> (picture, checksum), for uint8 images (H, W) or (H, W, C)."""

    name: str
    revision: int
    qualities: int
    encode: Callable
    decode: Callable


ABOUT = {
    "dvae-12": "lossy: a hierarchical discretised VAE of twelve layers; the smallest files at a given quality",
    "dvae-3": "lossy: the same transforms with three layers",
    "dvae-1": "lossy: one layer of integer latents, a mixture of Normals for each channel",
    "pln": "lossy: a probabilistic ladder network, its latents sent as tree-coded samples",
    "gamma-pln": "lossy: the same with a learned scale of the likelihood",
}


def qualities(name):
    """How many qualities a lossy model has, without loading its network."""
    return 6 if name.startswith("dvae") else 5


@lru_cache
def get(name):
    """The Lossy of this name. Raises UnknownModel, and MissingData or CorruptFile if its network cannot be loaded."""
    if name not in ABOUT:
        raise UnknownModel(f"no lossy model is called {name!r}; there are: {', '.join(ABOUT)}")
    from . import zoo  # with torch, which the lossless codec does without
    from .models import discretized_codec, ladder_codec

    model, revision = zoo.load(name), int(zoo.card(name)["sha256"][:4], 16)
    codec, points = (discretized_codec, model.lambdas) if name.startswith("dvae") else (ladder_codec, model.betas)

    def encode(image, quality=DEFAULT_QUALITY):
        if not 1 <= quality <= len(points):
            raise InvalidInput(f"{name} has the qualities 1 (smallest files) to {len(points)}, not {quality}")
        coded = codec.encode(model, _as_colour(image), quality - 1)
        return coded.payload, _from_colour(coded.picture, image.shape), crc32(coded.agreed)

    def decode(payload, shape):
        picture, agreed = codec.decode(model, payload, *shape[:2])
        return _from_colour(picture, shape), crc32(agreed)

    return Lossy(name, revision, len(points), encode, decode)


def _as_colour(image):
    """Three equal channels of a grey image."""
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        raise UnsupportedImage(f"the lossy models code grey and RGB images, not images with {image.shape[2]} channels: drop the alpha channel first")
    return np.ascontiguousarray(np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)))


def _from_colour(picture, shape):
    """The picture in the shape of the image that was encoded: grey is the mean of the channels, rounded."""
    if len(shape) == 3 and shape[2] == 3:
        return picture
    return ((picture.sum(2, dtype=np.int64) * 2 + 3) // 6).astype(np.uint8).reshape(shape)
