"""The .shvc file with one stream, byte by byte (version 1). Tiles and 16-bit samples are version 2 (`container_tiles`), small images `container_small`.

| bytes | meaning |
| --- | --- |
| 4 | magic: the ASCII letters SHVC |
| 1 | version of this format: 1 |
| 1 | flags: bit 0 the payload is the raw pixels (where coding would not have paid), bit 1 the image has no channel axis (H, W), bit 2 coded with loss |
| 1 + n | length and ASCII letters of the model's name |
| 2 | revision of the model |
| varint, varint, 1 | height, width, channels |
| varint | length of the payload |
| 4 | CRC-32 of the pixels (uint8, rows, columns, channels), with loss of the latents (`lossy`) |
| 4 | CRC-32 of every byte before this field and of the payload |
| rest | payload: the stack's bytes, or the raw pixels |

Integers are little-endian; a varint has seven bits per byte, lowest first, and the top bit set on all bytes but its last. The second
checksum finds a damaged file before it is decoded; the first one proves that decoding gave back the pixels that were encoded.
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from .errors import CorruptFile, TruncatedFile

MAGIC, VERSION = b"SHVC", 1
MAX_PIXELS = 1 << 31  # sub-pixels; a header that claims more is damaged, and must not reserve the memory
_RAW, _FLAT, _LOSSY = 1, 2, 4


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `shape` is (H, W) or (H, W, C); `raw`: the payload is the pixels themselves; `lossy`: the
    checksum is that of a lossy model's latents."""

    model: str
    revision: int
    shape: tuple
    raw: bool
    payload_bytes: int
    pixel_crc: int
    lossy: bool = False


def varint(number):
    """A whole number >= 0 as bytes, seven bits each, lowest first."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def pack(header, payload):
    """The file's bytes for a Header (its `payload_bytes` is not read) and its payload."""
    name = header.model.encode("ascii")
    flags = _RAW * header.raw | _FLAT * (len(header.shape) == 2) | _LOSSY * header.lossy
    height, width, channels = (*header.shape, 1)[:3]
    head = b"".join([
        MAGIC, struct.pack("<BBB", VERSION, flags, len(name)), name, struct.pack("<H", header.revision),
        varint(height), varint(width), struct.pack("<B", channels), varint(len(payload)), struct.pack("<I", header.pixel_crc),
    ])
    return head + struct.pack("<I", crc32(payload, crc32(head))) + payload


class Reader:
    """Reads fields of bytes (or of a memoryview) in order; running out of them is a TruncatedFile."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise TruncatedFile(f"the file ends after {len(self.data)} bytes, before its header or payload is complete")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 35:
                raise CorruptFile("the header holds a number that is too long: the file is damaged")


def unpack(data):
    """(Header, payload) of a file's bytes. Raises CorruptFile (no .shvc file, damaged, newer format) or TruncatedFile."""
    data = bytes(data)
    if data[:4] != MAGIC[:len(data)] or not data:
        raise CorruptFile("this is no .shvc file: it does not start with the letters SHVC")
    reader = Reader(data)
    reader.take(4)
    version = reader.number("B")
    if version != VERSION:
        raise CorruptFile(f"the file has format version {version}, this program reads version {VERSION}")
    flags = reader.number("B")
    name = bytes(reader.take(reader.number("B")))
    revision = reader.number("H")
    shape = (reader.varint(), reader.varint(), reader.number("B"))
    length = reader.varint()
    pixel_crc = reader.number("I")
    head_end = reader.at
    crc = reader.number("I")
    payload = reader.take(length)
    if reader.at != len(data):
        raise CorruptFile(f"the file is {len(data) - reader.at} bytes longer than its header says")
    if crc32(payload, crc32(data[:head_end])) != crc:
        raise CorruptFile("the file is damaged: its checksum does not match its bytes")
    if not 0 < shape[0] * shape[1] * shape[2] <= MAX_PIXELS or flags > 6 or flags & 5 == 5 or (flags & _FLAT and shape[2] != 1) or not name.isascii():
        raise CorruptFile("the header describes no image that this program can write")
    shape = shape[:2] if flags & _FLAT else shape
    return Header(name.decode("ascii"), revision, shape, bool(flags & _RAW), length, pixel_crc, bool(flags & _LOSSY)), payload
