"""How the pixels of one tile become one stream, model by model.

`linear` codes any tile as it is. `linear-net`, its fast sibling and `shvc-photo`, all fitted to the tile, code the grey or RGB of 8-bit tiles, other SHVCs the
RGB, filled up to what they halve them to by repeating the last row and column; an alpha channel is coded by `linear` and lies below them on the same stack. All
of them start from an empty stack: for one image there are no initial bits, so the SHVCs are those with ArIB (or with a deterministic posterior). Taught in
chapter 7.
"""

import math
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Callable, NamedTuple
from zlib import crc32

import numpy as np

from . import models
from .coding import BitStack
from .errors import CorruptFile, InvalidInput, OutOfBits, UnknownModel, UnsupportedImage
from .images import turned

MOST_PIXELS, MOST_FITTED = 1 << 18, 1 << 22  # of a tile that an SHVC codes, with some 2 kB of memory for each; of linear-net, with some 100 bytes
PHOTO, LEARNED, SMALL = "shvc-photo", "shvc-arib-photo", "shvc-cifar10"  # the SHVCs for photographs, fitted and learned, and for images of 32 x 32
FITTED, FAST = "linear-net", "linear-net-fast"
_FORMER = {PHOTO: [LEARNED]}  # networks that files know by another name
_SIDE, _FITTED_SIDE = 256, 1024  # of tiles: one fit has to pay for its coefficients


class Coder(NamedTuple):
    """`name` as typed by a user; `revision`: 32 bits that change whenever the same tile would get other bytes; `push(stack, tile)` and
    `pop(stack, shape)` for uint8 or uint16 arrays (h, w, c); `network`: whether it is one; `depths`, `channels`: what it codes; `side`: of tiles
    unless another is asked for, 0 for one tile; `draws`: whether it draws latents, so that another draw gives another stream; `turns`: whether small images
    may be mirrored first."""

    name: str
    revision: int
    push: Callable
    pop: Callable
    network: bool
    depths: tuple
    channels: tuple
    side: int = 0
    draws: bool = False
    turns: bool = False

    def check(self, image):
        """Raises UnsupportedImage when this coder is not for such images, naming what it is for."""
        depth, channels = 8 * image.dtype.itemsize, (*image.shape, 1)[2]
        if depth not in self.depths or channels not in self.channels:
            kind = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
            known = "grey, RGB" if 1 in self.channels else "RGB"
            raise UnsupportedImage(f"{self.name} codes 8-bit {known} and RGBA images; for {depth}-bit {kind} there is the model linear")


def names():
    """Names of everything that codes single images without loss: `linear` and the networks that are here."""
    return [*models.MODELS, *networks()]


@lru_cache(maxsize=1)
def networks():
    """Names of the networks that code single images: linear-net and its fast sibling, and the SHVCs that need no initial bits. None without torch or
    the repository's data: `linear` needs neither."""
    try:
        from . import zoo
    except ImportError:
        return []
    if not zoo.FOLDER.is_dir():
        return []
    recipes = {name: zoo.card(name)["recipe"] for name in zoo.names()}
    return [name for name, recipe in recipes.items()
            if recipe["model"] in ("ExpertSHVC", "LinearNet", "SubsampledSHVC")
            or recipe["model"] == "SHVC" and ("split" in recipe["arguments"] or recipe["arguments"].get("deterministic"))]


def get(name, depth=8):
    """The Coder of this name. Raises UnknownModel; MissingData or CorruptFile when its weights are not there or not right."""
    if name in models.MODELS:
        model = models.MODELS[name]
        codec = partial(model.codec, depth=16) if depth == 16 else model.codec
        return Coder(name, model.revision, lambda stack, tile: codec(tile.shape).push(stack, tile), lambda stack, shape: codec(shape).pop(stack),
                     False, (8, 16), (1, 3, 4))
    if name not in networks():
        raise UnknownModel(f"no model that codes single images is called {name!r}; there are: {', '.join(names())}" + (
            ". Networks without a split need initial bits: make an album with them" if name.startswith("shvc") else ""))
    return _network(name)


def writer(name, revision, depth=8):
    """The Coder that wrote a file, by the name and the revision in it. Raises UnknownModel when it is not here in this revision."""
    coder = get(name, depth)
    for former in _FORMER.get(name, ()):
        if coder.revision != revision and former in networks():
            coder = get(former, depth)
    if coder.revision != revision:
        raise UnknownModel(f"the file was written by revision {revision} of {name!r}; here is revision {get(name, depth).revision}")
    return coder


@lru_cache(maxsize=8)
def _network(name):
    from . import zoo
    from .models import expert_shvc, linear_net, shvc_codec

    module = {"ExpertSHVC": expert_shvc, "LinearNet": linear_net}.get(zoo.card(name)["recipe"]["model"], shvc_codec)
    twin, linear, fitted = zoo.load(name), models.MODELS["linear"], module is not shvc_codec

    def rounded(shape):
        height, width = shape[:2] if fitted else (-(-side // twin.unit) * twin.unit for side in shape[:2])
        most = MOST_FITTED if fitted else MOST_PIXELS
        if height * width > most:
            raise InvalidInput(f"a tile of {shape[0]} x {shape[1]} pixels is more than {name} codes at once: choose tiles of at most "
                               f"{math.isqrt(most)} pixels a side")
        return height, width, min(shape[2], 3)

    def codec(shape):
        return module.codec(twin, rounded(shape))

    def push(stack, tile):
        height, width, channels = rounded(tile.shape)
        if tile.shape[2] == 4:
            linear.codec((*tile.shape[:2], 1)).push(stack, np.ascontiguousarray(tile[..., 3:]))
        padded = np.pad(tile[..., :channels], ((0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)), mode="edge")
        codec(tile.shape).push(stack, padded)

    def pop(stack, shape):
        tile = np.empty(shape, dtype=np.uint8)
        tile[..., :3] = codec(shape).pop(stack)[:shape[0], :shape[1]]
        if shape[2] == 4:
            tile[..., 3:] = linear.codec((*shape[:2], 1)).pop(stack)
        return tile

    revision = int.from_bytes(bytes.fromhex(zoo.card(name)["sha256"][:8]), "little")
    return Coder(name, revision, push, pop, True, (8,), (1, 3, 4) if fitted else (3, 4), _FITTED_SIDE if fitted else _SIDE,
                 not fitted and not twin.deterministic, getattr(twin, "turns", False))


def stream(coder, tile, start=None):
    """The bytes of a tile's stream. start: an empty BitStack, or one that is empty but for 32 bits in its head."""
    stack = BitStack() if start is None else start
    coder.push(stack, tile)
    return stack.to_bytes()


def small_start(header, coder, image):
    """What the stack of a small image's file starts from: empty, but for the checksum in its head. And the checksum's bytes."""
    revision = coder.revision.to_bytes(4, "little") if coder else b""
    checksum = crc32(image, crc32(header + revision)).to_bytes(4, "little")
    return BitStack.from_bytes(checksum + b"\1"), checksum


def small_stream(header, coder, image, draw):
    """The stream of a small image's file with this header."""
    return stream(coder, turned(image, draw) if coder.turns else image, small_start(header, coder, image)[0])


def tile(coder, payload, shape):
    """The inverse of `stream`: (pixels, the stack as it is left). Raises CorruptFile, whatever the bytes."""
    try:
        stack = BitStack.from_bytes(payload)
        return coder.pop(stack, shape), stack
    except (OutOfBits, InvalidInput, CorruptFile, OverflowError) as error:
        raise CorruptFile(f"a stream cannot be decoded, the file is damaged ({error})") from None


@contextmanager
def in_threads():
    """The context in which several threads may use networks at once: `nn.exact_layer.exact_kernels` changes settings of the process, so they are changed
    before the threads begin, and each of them works with one thread of torch's."""
    import torch

    from .nn.exact_layer import exact_kernels

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with exact_kernels():
            yield
    finally:
        torch.set_num_threads(before)
