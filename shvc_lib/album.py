"""An album: many small images of one size in one file, each a stream of its own.

A chain of bits-back codes decodes from its last image to its first, and whoever wants one of a thousand decodes, on average, five hundred. With ArIB every
image starts from an empty stack, so images can be written by any number of processes, and be read one at a time, in any order:

    album.write("cifar.shva", images, workers=2)      # the same bytes whatever the number of workers
    pictures = album.Album("cifar.shva")
    pictures[700]                                     # reads the header, two entries of the index, and 1.5 kB

The file, byte by byte (version 1; integers are little-endian):

| bytes | meaning |
| --- | --- |
| 4 | magic: the ASCII letters SHVA |
| 1 | version of this format: 1 |
| 1 + n | length and ASCII letters of the network's name |
| 2 | its revision: the beginning of the SHA-256 of its weights |
| 4, 4, 4 | number of images, height, width |
| 4 | CRC-32 of every byte before this field |
| 4 for each image | where its stream ends, from the end of this index |
| rest | the streams: stacks of bits, or, where that is no longer, the pixels themselves and their CRC-32 |

An empty stack is the number 2^32 (`coding.rans`), and 32 bits of that are nothing but zeros. So here every stack starts at 2^32 + the CRC-32 of its image's
pixels, and what is left of it when everything has been popped is the checksum, at no cost. A damaged stream or index entry raises CorruptFile when its
image is asked for; the other images are unharmed. Taught in chapter 6.
"""

import io
import struct
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np

from .coding import BitStack
from .coding.checks import integer
from .coding.lanes import Lanes
from .errors import CorruptFile, InvalidInput, OutOfBits, TruncatedFile, UnknownModel
from .images import write_bytes

MAGIC, VERSION, NETWORK = b"SHVA", 1, "shvc-arib-cifar10"
BATCH = 32  # images that the networks see at once
MAX_IMAGES, MAX_SIDE = 1 << 24, 1 << 12
_HEADER, _NUMBER = struct.Struct("<HIII"), struct.Struct("<I")


@lru_cache(maxsize=4)
def _network(name):
    """(the exact twin, its revision). Raises UnknownModel, and InvalidInput if a single image cannot start from an empty stack under it."""
    from . import zoo  # with torch

    twin = zoo.load(name)
    if not hasattr(twin, "split") or (twin.split == twin.ks[0]**2 and not twin.deterministic):
        raise InvalidInput(f"{name} needs initial bits, which single images do not have: choose a network with ArIB, {NETWORK} for example")
    return twin, int(zoo.card(name)["sha256"][:4], 16)


def _start(image):
    """An empty stack but for the checksum in its head."""
    return BitStack.from_bytes(_NUMBER.pack(crc32(image)) + b"\x01")


def _streams(name, images):
    """The streams of a batch of images, a list of bytes."""
    from .models import shvc_codec

    lanes = Lanes([_start(image) for image in images])
    shvc_codec.codec(_network(name)[0], images.shape).push(lanes, images)
    streams = [stack.to_bytes() for stack in lanes.stacks]
    return [stream if len(stream) < image.nbytes + _NUMBER.size else image.tobytes() + _NUMBER.pack(crc32(image)) for stream, image in zip(streams, images)]


def _pictures(name, streams, shape):
    """The inverse of `_streams`: uint8 (B, H, W, 3). Raises CorruptFile."""
    from .models import shvc_codec

    pictures, pixels = np.empty((len(streams), *shape), dtype=np.uint8), int(np.prod(shape))
    coded = [i for i, stream in enumerate(streams) if len(stream) != pixels + _NUMBER.size]
    for i in set(range(len(streams))) - set(coded):
        pictures[i] = np.frombuffer(streams[i][:pixels], dtype=np.uint8).reshape(shape)
        if streams[i][pixels:] != _NUMBER.pack(crc32(pictures[i])):
            raise CorruptFile("a stored image does not match its checksum: the album is damaged")
    if coded:
        try:
            lanes = Lanes([BitStack.from_bytes(streams[i]) for i in coded])
            pictures[coded] = shvc_codec.codec(_network(name)[0], (len(coded), *shape)).pop(lanes)
        except (OutOfBits, InvalidInput, CorruptFile) as error:
            raise CorruptFile(f"a stream cannot be decoded, the album is damaged ({error})") from None
        if any(stack != _start(pictures[i]) for i, stack in zip(coded, lanes.stacks)):
            raise CorruptFile("an image does not match its checksum: the album is damaged")
    return pictures


def _one_thread():
    import torch

    torch.set_num_threads(1)


def _map(function, arguments, workers):
    """[function(*a) for a in arguments], by `workers` processes when there is more than one."""
    if integer("workers", workers, 1) == 1:
        return [function(*own) for own in arguments]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        return list(pool.map(function, *zip(*arguments)))


def encode(images, model=NETWORK, workers=1):
    """The bytes of an album of uint8 images (N, H, W, 3), the same whatever `workers`, the number of processes.

    In a script of your own, call it under `if __name__ == "__main__":` when there is more than one, for Python starts them by importing the script.
    H and W: multiples of what the network halves them to, 8 for those that are here. Raises InvalidInput and UnknownModel.
    """
    images = np.ascontiguousarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not 0 < len(images) < MAX_IMAGES or not 0 < max(images.shape[1:3]) <= MAX_SIDE:
        raise InvalidInput(f"an album takes uint8 images (N, H, W, 3) of at most {MAX_SIDE} pixels a side, got {images.dtype} of shape {images.shape}")
    twin, revision = _network(model)
    if any(side % twin.unit for side in images.shape[1:3]):
        raise InvalidInput(f"{model} takes images whose height and width are multiples of {twin.unit}, got {images.shape[1]} x {images.shape[2]}")
    batches = [images[i:i + BATCH] for i in range(0, len(images), BATCH)]
    streams = [stream for part in _map(_streams, [(model, batch) for batch in batches], workers) for stream in part]
    head = MAGIC + bytes([VERSION, len(model)]) + model.encode("ascii") + _HEADER.pack(revision, *images.shape[:3])
    ends = np.cumsum([len(stream) for stream in streams])
    if ends[-1] >= 1 << 32:
        raise InvalidInput("an album holds at most 4 GiB of streams: make several")
    return b"".join([head, _NUMBER.pack(crc32(head)), *(_NUMBER.pack(int(end)) for end in ends), *streams])


def write(path, images, model=NETWORK, workers=1, force=False):
    """`encode` to a file, which appears whole or not at all; an existing one is only replaced with `force`. Returns its path.

    Raises InvalidInput, UnknownModel."""
    if Path(path).exists() and not force:
        raise InvalidInput(f"{path}: this file exists; say force=True to replace it")
    return write_bytes(path, encode(images, model, workers), force)


class Album:
    """An album to read from: len(album) images of `shape` (H, W, 3); album[i] decodes one of them, `images()` all.

    source: a path, the bytes, or a binary file that can seek. Only what is asked for is read. Raises CorruptFile, TruncatedFile; UnknownModel when the
    network that wrote it is not here.
    """

    def __init__(self, source):
        self._file = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source if hasattr(source, "seek") else open(source, "rb")
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Close the file."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self, at, count):
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) < count:
            raise TruncatedFile("the album ends before what its header or its index promises")
        return data

    def _read_header(self):
        start = self._read(0, 6)
        if start[:4] != MAGIC:
            raise CorruptFile("this is no album: it does not start with the letters SHVA")
        if start[4] != VERSION:
            raise CorruptFile(f"the album has format version {start[4]}, this program reads version {VERSION}")
        size = 6 + start[5] + _HEADER.size
        head = self._read(0, size + 4)
        if crc32(head[:size]) != _NUMBER.unpack(head[size:])[0]:
            raise CorruptFile("the album's header is damaged: its checksum does not match its bytes")
        name = head[6:6 + start[5]]
        self.revision, self._count, height, width = _HEADER.unpack(head[6 + start[5]:size])
        if not name.isascii() or not 0 < self._count < MAX_IMAGES or not 0 < min(height, width) <= max(height, width) <= MAX_SIDE:
            raise CorruptFile("the header describes no album that this program can write")
        self.model, self.shape, self._index = name.decode("ascii"), (height, width, 3), size + 4
        self._data = self._index + self._count * _NUMBER.size

    def __len__(self):
        return self._count

    def _stream(self, i):
        """The stream of image i."""
        if not -self._count <= integer("the image's number", i) < self._count:
            raise IndexError(f"the album has {self._count} images, 0 ... {self._count - 1}, not {i}")  # what ends a for loop over an album
        i %= self._count
        first = max(i - 1, 0)
        ends = [end for end, in _NUMBER.iter_unpack(self._read(self._index + first * _NUMBER.size, (i + 1 - first) * _NUMBER.size))]
        start, end = ends[0] if i else 0, ends[-1]
        if not 0 < end - start <= int(np.prod(self.shape)) + _NUMBER.size:
            raise CorruptFile(f"the index entry of image {i} is damaged")
        return self._read(self._data + start, end - start)

    def _check_network(self):
        revision = _network(self.model)[1]
        if revision != self.revision:
            raise UnknownModel(f"the album was written by revision {self.revision} of {self.model!r}; here is revision {revision}")

    def __getitem__(self, i):
        return self.images([i])[0]

    def images(self, chosen=None, workers=1):
        """The images of these numbers (all when None): uint8 (N, H, W, 3)."""
        self._check_network()
        chosen = range(self._count) if chosen is None else list(chosen)
        streams = [self._stream(i) for i in chosen]
        batches = [(self.model, streams[k:k + BATCH], self.shape) for k in range(0, len(streams), BATCH)]
        return np.concatenate(_map(_pictures, batches, workers))
