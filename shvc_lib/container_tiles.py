"""The .shvc file with tiles, byte by byte (version 2), and where its tiles lie.

| bytes | meaning |
| --- | --- |
| 4 | magic: the ASCII letters SHVC |
| 1 | version of this format: 2 |
| 1 | flags: bit 0 the image has no channel axis (H, W), bit 1 samples have 16 bits |
| 1 + n | length and ASCII letters of the model's name |
| 4 | its checksum: the first four bytes of the SHA-256 of its weights, first byte lowest; for a model without weights its revision |
| varint, varint, 1 | height, width, channels |
| varint | side that tiles have at most, 0 when the whole image is one tile |
| 4, 4, 4 for each tile | length of its stream, with the top bit set when it is the pixels themselves; CRC-32 of the stream; CRC-32 of the tile's pixels |
| 4 | CRC-32 of every byte before this field |
| rest | the streams, in the order of the index |

Numbers are written as in version 1 (`container`), samples of 16 bits with the low byte first. Tiles go by rows, from the left. Every one is a stream of its
own, decoded without the others: by as many threads or processes as there are, or alone. A side of n pixels is cut into ceil(n / side) pieces
that differ by at most sixteen pixels, but for the last, and begin at multiples of sixteen. Taught in chapter 7.
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from .container import MAGIC, MAX_PIXELS, Reader, varint
from .errors import CorruptFile, TruncatedFile

VERSION, STEP = 2, 16
_FLAT, _DEEP, _STORED = 1, 2, 1 << 31
_ENTRY = struct.Struct("<III")


def pieces(length, side):
    """[(start, end), ...] of the pieces that a side of `length` pixels is cut into; one piece when `side` is 0."""
    count = -(-length // side) if side else 1
    edges = [min(length, -(-i * length // (count * STEP)) * STEP) for i in range(count)] + [length]
    return list(zip(edges, edges[1:]))


def count(shape, side):
    """The number of tiles."""
    return -(-shape[0] // side) * -(-shape[1] // side) if side else 1


@dataclass(frozen=True)
class Tile:
    """Where a tile's pixels are (rows, columns: pairs of start and end) and its stream: stored or coded, CRC-32 of the stream and of the pixels."""

    rows: tuple
    columns: tuple
    payload: bytes
    stored: bool
    stream_crc: int
    pixel_crc: int

    def shape(self, image_shape):
        """(height, width, channels) of the tile."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0], (*image_shape, 1)[2]

    def checked(self):
        """The payload. Raises CorruptFile when its checksum does not match."""
        if crc32(self.payload) != self.stream_crc:
            raise CorruptFile(f"the tile at row {self.rows[0]}, column {self.columns[0]} is damaged: its checksum does not match its bytes")
        return self.payload


@dataclass(frozen=True)
class Tiled:
    """What a file with tiles says of itself. `shape` is (H, W) or (H, W, C); `depth` 8 or 16 bits; `side` as in the table above; `tiles` in order."""

    model: str
    revision: int
    shape: tuple
    depth: int
    side: int
    tiles: list


def places(shape, side):
    """[(rows, columns), ...] of all tiles of an image."""
    return [(rows, columns) for rows in pieces(shape[0], side) for columns in pieces(shape[1], side)]


def pack(model, revision, shape, depth, side, streams):
    """The file's bytes. streams: for every tile (payload, stored, CRC-32 of its pixels)."""
    name = model.encode("ascii")
    flags = _FLAT * (len(shape) == 2) | _DEEP * (depth == 16)
    height, width, channels = (*shape, 1)[:3]
    index = [_ENTRY.pack(len(payload) | _STORED * stored, crc32(payload), pixel_crc) for payload, stored, pixel_crc in streams]
    head = b"".join([MAGIC, struct.pack("<BBB", VERSION, flags, len(name)), name, struct.pack("<I", revision), varint(height), varint(width),
                     struct.pack("<B", channels), varint(side), *index])
    return b"".join([head, struct.pack("<I", crc32(head)), *(payload for payload, _, _ in streams)])


def unpack(data):
    """The Tiled of a file's bytes, which may be a memoryview: streams are not copied and not looked at. Raises CorruptFile and TruncatedFile."""
    reader = Reader(data)
    reader.take(5)
    flags, name = reader.number("B"), bytes(reader.take(reader.number("B")))
    revision = reader.number("I")
    shape, side = (reader.varint(), reader.varint(), reader.number("B")), reader.varint()
    if not 0 < shape[0] * shape[1] * shape[2] <= MAX_PIXELS or not name.isascii() or flags > 3 or flags & _FLAT and shape[2] != 1 or side % STEP:
        raise CorruptFile("the header describes no image that this program can write")
    if count(shape, side) * _ENTRY.size > len(data) - reader.at:
        raise TruncatedFile("the file ends before the index of its tiles is complete")
    where = places(shape, side)
    entries = list(_ENTRY.iter_unpack(reader.take(len(where) * _ENTRY.size)))
    head_end = reader.at
    if reader.number("I") != crc32(data[:head_end]):
        raise CorruptFile("the file's header is damaged: its checksum does not match its bytes")
    tiles = [Tile(rows, columns, reader.take(length & ~_STORED), bool(length & _STORED), stream_crc, pixel_crc)
             for (rows, columns), (length, stream_crc, pixel_crc) in zip(where, entries)]
    if reader.at != len(data):
        raise CorruptFile(f"the file is {len(data) - reader.at} bytes longer than its index says")
    return Tiled(name.decode("ascii"), revision, shape[:2] if flags & _FLAT else shape, 16 if flags & _DEEP else 8, side, tiles)
