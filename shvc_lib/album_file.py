"""The .shva file, byte by byte (version 3; integers are little-endian). `album` fills it; nothing here knows of networks.

| bytes | meaning |
| --- | --- |
| 4 | magic: the ASCII letters SHVA |
| 1 | version of this format: 2, or 3 if groups are piles (`album_pile`) |
| 2 | c, the images of a group, 2 or more; 0: every image is a group of its own |
| 1 + n, 2 | length and ASCII letters of the name of the network, of a chain's ArIB network; its revision, the first two bytes of the SHA-256 of its weights, the second first |
| 1 + n, 2 | the same of the network of plain SHVC, in version 2, if c is not 0 |
| 4, 4, 4 | N, the number of images; height, width: 1 ... 4096, at most 2^20 pixels |
| 1 | e, bytes of an entry of the index, 1 ... 6 |
| 4 | length of the names' block, 0 when the images have no names |
| 4 | CRC-32 of every byte before this field |
| e, or e + 4, for each group | the index: where the group's stream ends, from where the first one begins; if c is not 0, the CRC-32 of the stream |
| 4 | CRC-32 of the index |
| n + 4 | if the images have names: the block (zlib, of the names in UTF-8 with a zero byte between two), and its CRC-32 |
| rest | the streams: stacks of bits, or, where that is no longer, the pixels of the group's images and their CRC-32 |

The number of groups is N / c, rounded up; the last one may be smaller. The stack of a group starts at 2^32 + the CRC-32 of its pixels (see `album`). Without
groups that checksum is enough: an image is right or it raises. In a group it is only reached by decoding the first image too, so streams of groups have one
of their own, which is looked at before anything is decoded. An image by itself is read without looking at the checksum of the index.

Version 1 differs in the header, whose fields after the version are one network's name and revision, N, height, width (4 bytes each, sides up to 4096) and
the CRC-32; e is 4, c is 0, there are no names, and the index has no checksum. It is read and no longer written.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import PureWindowsPath
from zlib import crc32

from .errors import CorruptFile, InvalidInput, TruncatedFile
from .images import SUFFIXES

MAGIC, VERSION, PILES = b"SHVA", 2, 3
MAX_IMAGES, MAX_SIDE, MAX_PIXELS, MAX_GROUP = 1 << 24, 1 << 12, 1 << 20, (1 << 16) - 1  # an image of 2^20 pixels takes 2 GB while a network codes it
MAX_NAME, MAX_NAMES = 255, 1 << 26  # bytes of one name and of all
_SIZES, _NUMBER, _CHECKED = struct.Struct("<III"), struct.Struct("<I"), 4


@dataclass(frozen=True)
class Layout:
    """What the header says, and where things are. networks: ((name, revision), ...), one or, for chains, two; entry: bytes of an end in the index;
    names_bytes: of the names' block; head: bytes of the header, its checksum included."""

    version: int
    chain: int
    networks: tuple
    count: int
    height: int
    width: int
    entry: int
    names_bytes: int
    head: int = 0

    @property
    def shape(self):
        return self.height, self.width, 3

    @property
    def groups(self):
        """Number of streams."""
        return -(-self.count // max(self.chain, 1))

    def size(self, group):
        """Images in a group."""
        return min(max(self.chain, 1), self.count - group * max(self.chain, 1))

    @property
    def row(self):
        """Bytes of the index for each stream."""
        return self.entry + _CHECKED * (self.chain > 0)

    @property
    def names_at(self):
        return self.head + self.groups * self.row + _CHECKED * (self.version > 1)

    @property
    def data(self):
        """Where the streams begin."""
        return self.names_at + (self.names_bytes + _CHECKED if self.names_bytes else 0)

    def check(self):
        """Raises CorruptFile for what no album says."""
        pixels = self.height * self.width
        if not (0 < self.count < MAX_IMAGES and 0 < pixels and max(self.height, self.width) <= MAX_SIDE and pixels <= MAX_PIXELS
                and self.chain != 1 and 1 <= self.entry <= 6 and self.names_bytes <= MAX_NAMES and all(name.isascii() for name, _ in self.networks)):
            raise CorruptFile("the header describes no album that this program can write")
        return self


def check_size(height, width):
    """Raises InvalidInput for images that no album takes."""
    if not (0 < min(height, width) <= max(height, width) <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise InvalidInput(f"an album takes images of 1 ... {MAX_SIDE} pixels a side and at most {MAX_PIXELS} in all, "
                           f"got {height} x {width}: encode large images one by one")


def read_layout(read):
    """The Layout of a file; read(at, count) returns that many bytes or raises TruncatedFile. Raises CorruptFile."""
    head = read(0, 5)
    if head[:4] != MAGIC:
        raise CorruptFile("this is no album: it does not start with the letters SHVA")
    version = head[4]
    if version not in (1, VERSION, PILES):
        raise CorruptFile(f"the album has format version {version}, this program reads versions 1 to {PILES}")

    def take(count):
        nonlocal head
        new = read(len(head), count)
        head += new
        return new

    chain = int.from_bytes(take(2), "little") if version > 1 else 0
    networks = []
    for _ in range(2 if chain and version == VERSION else 1):
        name = take(take(1)[0])
        networks.append((name.decode("latin1"), int.from_bytes(take(2), "little")))
    sizes = _SIZES.unpack(take(12))
    entry, names_bytes = (take(1)[0], int.from_bytes(take(4), "little")) if version > 1 else (4, 0)
    if read(len(head), 4) != _NUMBER.pack(crc32(head)):
        raise CorruptFile("the album's header is damaged: its checksum does not match its bytes")
    return Layout(version, chain, tuple(networks), *sizes, entry, names_bytes, len(head) + 4).check()


def pack(networks, chain, count, shape, streams, names=None, version=VERSION):
    """The bytes of an album: streams in order, names None or a list of str (see `check_names`); version: `VERSION` or `PILES`. Raises InvalidInput."""
    ends, total = [], 0
    for stream in streams:
        total += len(stream)
        ends.append(total)
    entry = max(1, (total.bit_length() + 7) // 8)
    block = b"" if names is None else zlib.compress("\0".join(names).encode("utf-8"), 9)
    head = b"".join([MAGIC, struct.pack("<BH", version, chain)]
                    + [bytes([len(name)]) + name.encode("ascii") + struct.pack("<H", revision) for name, revision in networks]
                    + [_SIZES.pack(count, *shape[:2]), struct.pack("<BI", entry, len(block))])
    index = b"".join(end.to_bytes(entry, "little") + (_NUMBER.pack(crc32(stream)) if chain else b"") for end, stream in zip(ends, streams))
    return b"".join([head, _NUMBER.pack(crc32(head)), index, _NUMBER.pack(crc32(index)), block, _NUMBER.pack(crc32(block)) if block else b"", *streams])


def spans(layout, read, first, last):
    """[(start, end, checksum or None)] of the streams first ... last - 1, start and end counted from `layout.data`. Raises CorruptFile."""
    before = max(first - 1, 0)
    rows = read(layout.head + before * layout.row, (last - before) * layout.row)
    entries = [rows[at:at + layout.row] for at in range(0, len(rows), layout.row)]
    ends = [int.from_bytes(own[:layout.entry], "little") for own in entries]
    starts = [0, *ends] if not first else ends
    own, found = entries[first - before:], []
    for group, start, end, bare in zip(range(first, last), starts, ends[first - before:], own):
        if not 0 < end - start <= stored_bytes(layout, group):
            raise CorruptFile(f"the index entry of stream {group} is damaged")
        found.append((start, end, _NUMBER.unpack(bare[layout.entry:])[0] if layout.chain else None))
    return found


def stored_bytes(layout, group):
    """Length of a group that is stored as it is: its pixels and a checksum. No stream is longer."""
    return layout.size(group) * layout.height * layout.width * 3 + _CHECKED


def check_index(layout, read, file_bytes):
    """All `spans`, after a look at the index' checksum and at the length of the file. Raises CorruptFile, TruncatedFile."""
    size = layout.groups * layout.row
    if layout.version > 1 and _NUMBER.pack(crc32(read(layout.head, size))) != read(layout.head + size, _CHECKED):
        raise CorruptFile("the album's index is damaged: its checksum does not match its bytes")
    found = spans(layout, read, 0, layout.groups)
    end = layout.data + found[-1][1]
    if end > file_bytes:
        raise TruncatedFile("the album ends before what its header or its index promises")
    if end < file_bytes:
        raise CorruptFile(f"the album is {file_bytes - end} bytes longer than its index says")
    return found


def read_names(layout, read):
    """The names of the images, or None. Raises CorruptFile; a name that could lead out of a folder counts as damage."""
    if not layout.names_bytes:
        return None
    block = read(layout.names_at, layout.names_bytes)
    if _NUMBER.pack(crc32(block)) != read(layout.names_at + layout.names_bytes, _CHECKED):
        raise CorruptFile("the album's names are damaged: their checksum does not match their bytes")
    try:
        opened = zlib.decompressobj()
        text = opened.decompress(block, min(MAX_NAMES, layout.count * (MAX_NAME + 1)))
        if not opened.eof or opened.unused_data:
            raise CorruptFile("the album's names do not end where they must")
        return check_names(text.decode("utf-8").split("\0"), layout.count)
    except (zlib.error, UnicodeDecodeError, InvalidInput) as error:
        raise CorruptFile(f"the album's names are none that this program writes ({error})") from None


def png_name(name):
    """Under what name an image is written: with the suffix .png instead of that of another image format."""
    stem, suffix = os.path.splitext(name)
    return (stem if suffix.lower() in SUFFIXES else name) + ".png"


def check_names(names, count):
    """The names as a list, if they are `count` names of files, without folders, no two of which would be written as the same .png. Raises InvalidInput."""
    names = list(names)
    if len(names) != count:
        raise InvalidInput(f"{len(names)} names for {count} images")
    seen, total = {}, 0
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(f"a name must be a str, got {type(name).__name__}")
        try:
            target = png_name(name)
            total += len(name.encode("utf-8")) + 1
            if len(target.encode("utf-8")) > MAX_NAME or name in ("", ".", "..") or "/" in name or PureWindowsPath(name).name != name:
                raise InvalidInput(f"{name[:80]!r} is no name of a file, or too long")
        except UnicodeEncodeError:
            raise InvalidInput(f"{name[:80]!r} cannot be written in UTF-8: rename the file") from None
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
            raise InvalidInput(f"{name[:80]!r} holds control characters: rename the file")
        if target in seen:
            raise InvalidInput(f"{seen[target]!r} and {name!r} would both come back as {target!r}: rename one of them")
        seen[target] = name
    if total > MAX_NAMES:
        raise InvalidInput(f"the names take {total} bytes, at most {MAX_NAMES} fit into an album")
    return names
