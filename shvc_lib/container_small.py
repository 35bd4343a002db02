"""The .shvc file of a small image, byte by byte: four bytes of header where the others have thirty.

An image of 32 x 32 takes some 1500 bytes, and a header like that of the larger files would be two per cent of it. So small images that
a network codes, 8-bit RGB or RGBA with at most 2^14 pixels, are kept like this:

| bytes | meaning |
| --- | --- |
| 2 | magic: B2 53 |
| 1 | bits 0-3 number of the network (`NETWORKS`), 0 when the pixels are stored; bit 4 height = width; bit 5 the image is RGBA; bits 6-7 number of the draw |
| varint | height - 1 |
| varint | width - 1, unless bit 4 is set |
| rest | the stream, or the pixels and their checksum in four bytes |

The one checksum is CRC-32 of the header, the first four bytes of the SHA-256 of the network's weights (none when stored), and the pixels. It travels in the
head of the stack, where an empty stack has 32 zeros, and so for nothing (see `album`): what is left when everything has been popped is the checksum. A
damaged stream, another network and a changed header all end there.

The latents are drawn by bits that depend on all that lies on the stack, and so on the checksum, and so on the header. Streams with other latents are longer or
shorter by some bytes. So the encoder tries every number of the draw and keeps the shortest file; the decoder need not know. Where nothing is drawn
(`SubsampledSHVC`), the number says how the pixels were mirrored before they were coded: bit 6 left to right, bit 7 upside down. In the mirror a picture is
as likely as before, but its code has another length, and the encoder again has four to choose from. Taught in chapter 7.
"""

import struct
from typing import NamedTuple

from .container import Reader, varint
from .errors import CorruptFile

MAGIC, MOST = b"\xb2S", 1 << 14
NETWORKS = ("", "shvc-short-arib", "shvc-arib-cifar10", "shvc-arib-photo", "shvc-pixels-cifar10", "shvc-cifar10")  # numbers are for ever
DRAWS = range(4)
_SQUARE, _ALPHA, _NUMBER, _DRAW = 16, 32, 15, 6


class Small(NamedTuple):
    """A file taken apart: the network's name ("" when stored), the shape (H, W, 3 or 4), the header's bytes and those of the payload."""

    model: str
    shape: tuple
    header: bytes
    payload: bytes

    @property
    def draw(self):
        """Which of `DRAWS`."""
        return self.header[2] >> _DRAW


def fits(model, image):
    """Whether an image coded by a model may be kept in this form."""
    return model in NETWORKS[1:] and image.dtype.itemsize == 1 and image.ndim == 3 and image.shape[2] in (3, 4) and image.shape[0] * image.shape[1] <= MOST


def header(model, shape, draw=0):
    """The header's bytes; model: "" when the pixels are stored; draw: one of `DRAWS`."""
    flags = NETWORKS.index(model) | _SQUARE * (shape[0] == shape[1]) | _ALPHA * (shape[2] == 4) | draw << _DRAW
    return MAGIC + struct.pack("<B", flags) + varint(shape[0] - 1) + (b"" if shape[0] == shape[1] else varint(shape[1] - 1))


def unpack(data):
    """The Small of a file's bytes. Raises CorruptFile and TruncatedFile."""
    reader = Reader(data)
    reader.take(2)
    flags = reader.number("B")
    height = reader.varint() + 1
    width = height if flags & _SQUARE else reader.varint() + 1
    if flags & _NUMBER >= len(NETWORKS) or height * width > MOST or (height == width) != bool(flags & _SQUARE):
        raise CorruptFile("the header describes no image that this program can write: the file is damaged or newer than this program")
    return Small(NETWORKS[flags & _NUMBER], (height, width, 4 if flags & _ALPHA else 3), bytes(data[:reader.at]), bytes(data[reader.at:]))
