"""Ten thousand damaged files, each an error of ours or the right pixels: no other exception, no wrong pixels, no wait, no gigabyte.

Most damage is met by a checksum before anything is decoded. So in every sixth file the checksums around the damage are made right again, as somebody
would who means harm, and the decoders inside see streams and headers that no encoder wrote. All of it follows from `SEED`."""

import itertools
import resource
import signal
import struct
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple
from zlib import crc32

import numpy as np
import pytest
import torch

import shvc_lib
from shvc_lib import album, album_file, album_streams, coders, container, container_small, container_tiles, data, zoo
from shvc_lib import lossy as lossies
from shvc_lib.coding import BitStack, Uniform
from shvc_lib.errors import ShvcError
from shvc_lib.models import linear_wide

torch.set_num_threads(1)
SEED, ROOM, SECONDS = 7, 1 << 30, 20.0  # bytes and processor seconds that one file may take beyond what the process has taken already
ARIB, PLAIN, BEST, FITTED, PIXELS = "shvc-short-arib", "shvc-short", "shvc-short-deterministic", "linear-net", "shvc-cifar10"
ALBUM_NETWORKS = (ARIB, PLAIN)


class Sample(NamedTuple):
    """A file, what it holds (an array) and how it is read: bytes -> array."""

    name: str
    content: bytes
    pixels: Any
    read: Callable


def photograph(height, width, channels=3):
    image = data.photograph("coffee")[100:100 + height, 200:200 + width]
    alpha = 255 - np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
    return np.ascontiguousarray(image[..., 0] if channels == 1 else np.dstack([image, alpha])[..., :channels])


def read_image(content):
    return shvc_lib.decode(content, workers=1)


def read_album(content):
    with album.Album(content) as pictures:
        assert pictures.names is None or len(pictures.names) == len(pictures)
        return pictures.images()


def first_version(content):
    """An album of version 1: the same streams under the header that used to be written."""
    layout, read = album.Album(content).layout, album.Album(content)._read
    (name, revision), = layout.networks
    head = b"SHVA\1" + bytes([len(name)]) + name.encode() + struct.pack("<HIII", revision, layout.count, layout.height, layout.width)
    ends = [end for _, end, _ in album_file.spans(layout, read, 0, layout.groups)]
    return head + struct.pack("<I", crc32(head)) + struct.pack(f"<{len(ends)}I", *ends) + content[layout.data:]


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(SEED)
    grey, colour, clear, noise = photograph(4, 7, 1), photograph(4, 4), photograph(4, 3, 4), rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    deep = (photograph(7, 4, 1).astype(np.uint16) * 257) ^ rng.integers(0, 9, (7, 4), dtype=np.uint16)
    ten = photograph(4, 4).astype(np.uint16) << 6
    images = data.patches([data.photograph("coffee")], 16, 3, seed=1)
    with_noise = np.concatenate([images[:2], rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)])
    plain = album.encode(with_noise, model=ARIB, names=["a.png", "b.png", "c.png"])
    encode = shvc_lib.encode
    files = {
        "1, grey": (encode(grey, model="linear"), grey), "1, RGB": (encode(colour, model="linear"), colour),
        "1, RGBA": (encode(clear, model="linear"), clear), "1, stored": (encode(noise, model="linear"), noise),
        "tiles, linear": (encode(photograph(20, 5), model="linear", tile=16), photograph(20, 5)),
        "tiles, 16 bits": (encode(deep, model="linear"), deep), "tiles, 10 bits": (encode(ten, model="linear", tile=16), ten),
        "tiles, network": (encode(photograph(17, 16), model=ARIB, tile=16), photograph(17, 16)),
        "tiles, best guess": (encode(photograph(16, 24, 4), model=BEST, tile=16), photograph(16, 24, 4)),
        "tiles, fitted": (encode(photograph(17, 12), model=FITTED), photograph(17, 12)),
        "tiles, stored": (encode(noise, model="linear", tile=16), noise),
        "small": (encode(photograph(13, 16), model=ARIB), photograph(13, 16)),
        "small, RGBA": (encode(photograph(10, 12, 4), model=ARIB), photograph(10, 12, 4)),
        "small, stored": (encode(noise, model=ARIB), noise),
        "small, pixels": (encode(photograph(11, 14), model=PIXELS), photograph(11, 14)),
        "tiles, pixels": (encode(photograph(19, 18), model=PIXELS, tile=16), photograph(19, 18)),
    }
    for name, model in (("1, ladder", "pln"), ("1, discretised", "dvae-1")):
        content = encode(colour, model=model)
        files[name] = content, read_image(content)
    found = {name: Sample(name, content, pixels, read_image) for name, (content, pixels) in files.items()}
    for name, content, pixels in (("album", plain, with_noise), ("album, 1", first_version(plain), with_noise),
                                  ("album, chain", album.encode(images, model=ALBUM_NETWORKS, chain=2), images),
                                  ("album, piles", album.encode(images, model="shvc-pixels-cifar10", chain=2), images)):
        found[name] = Sample(name, content, pixels, read_album)
    for sample in found.values():
        assert np.array_equal(sample.read(sample.content), sample.pixels), sample.name
    return found


# --- damage -----------------------------------------------------------------------------------------------------------------------------------

def flipped(rng, content, _):
    damaged = bytearray(content)
    for at in rng.integers(0, len(content), rng.integers(1, 9)):
        damaged[at] ^= 1 << rng.integers(8)
    return bytes(damaged)


def cut(rng, content, _):
    return content[:rng.integers(len(content))]


def lengthened(rng, content, _):
    at = rng.integers(len(content) + 1)
    return content[:at] + rng.bytes(rng.integers(1, 40)) + content[at:]


def shortened(rng, content, _):
    at, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:at] + content[end:]


def overwritten(rng, content, _):
    at, count = rng.integers(len(content)), int(rng.integers(1, 30))
    filling = (bytes(count), b"\xff" * count, rng.bytes(count))[rng.integers(3)]
    return content[:at] + filling[:len(content) - at] + content[at + count:]


def spliced(rng, content, other):
    return content[:rng.integers(len(content) + 1)] + other[rng.integers(len(other) + 1):]


def grafted(rng, content, other):
    """A piece of another file in the same place."""
    at, end = sorted(rng.integers(0, min(len(content), len(other)) + 1, 2))
    return content[:at] + other[at:end] + content[end:]


def moved(rng, content, _):
    a, b, c = sorted(rng.integers(0, len(content) + 1, 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


DAMAGE = (flipped, cut, lengthened, shortened, overwritten, spliced, grafted, moved)
NUMBERS = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 64, 127, 128, 255, 256, 257, 1000, 4095, 4096, 4097, 1 << 14, 65535, 65536, 1 << 20, (1 << 24) - 1,
           1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 34]
NAMES = ["linear", FITTED, PIXELS, ARIB, PLAIN, BEST, "pln", "dvae-1", "vae-photo", "vae-stochastic-1", "shvc-photo", "shvc-arib-photo", "auto", "", "no-such", "../shvc-photo", "x" * 255]


def number(rng, own):
    """A number in place of another: near it, or one that programs trip over."""
    return max(0, own + int(rng.integers(-9, 10))) if rng.random() < 0.5 else int(rng.choice(NUMBERS))


def changed_stream(rng, stream, other):
    """A stream damaged anyhow, most often as little as can be."""
    return flipped(rng, stream, other) if rng.random() < 0.4 and stream else DAMAGE[rng.integers(len(DAMAGE))](rng, stream or b"\0", other or b"\0")


def forged_whole(rng, content, other):
    """Version 1 with a header or a payload changed and the checksums over both made right."""
    header, payload = container.unpack(content)
    fields = {**vars(header), "payload_bytes": 0}
    what = rng.integers(6)
    if what == 0:
        shape = list(header.shape)
        shape[rng.integers(len(shape[:2]))] = number(rng, shape[0])
        fields["shape"] = tuple(shape)
    elif what == 1:
        fields["shape"] = (*header.shape[:2], *((), (1,), (2,), (3,), (4,), (5,), (255,))[rng.integers(7)])
    elif what == 2:
        fields["model"] = NAMES[rng.integers(len(NAMES))]
    elif what == 3:
        fields["raw"], fields["lossy"] = ((True, False), (False, False), (False, True))[rng.integers(3)]
    if what > 3 or rng.random() < 0.2:
        payload = changed_stream(rng, payload, other[-60:])
    return container.pack(container.Header(**fields), payload)


def forged_tiles(rng, content, other):
    """Version 2 the same way: header, index or streams; lengths and checksums of streams are made right, those of pixels are not."""
    parts = container_tiles.unpack(content)
    streams = [(bytes(tile.payload), tile.stored, tile.pixel_crc) for tile in parts.tiles]
    fields = dict(model=parts.model, revision=parts.revision, shape=parts.shape, depth=parts.depth, side=parts.side)
    what = rng.integers(7)
    if what == 0:
        shape = list(parts.shape)
        shape[rng.integers(len(shape[:2]))] = number(rng, shape[0])
        fields["shape"] = tuple(shape)
    elif what == 1:
        fields["shape"] = (*parts.shape[:2], *((), (1,), (2,), (3,), (4,), (255,))[rng.integers(6)])
    elif what == 2:
        fields["model"] = NAMES[rng.integers(len(NAMES))]
    elif what == 3:
        fields["depth"], fields["side"] = int(rng.choice([8, 16])), number(rng, parts.side) // 16 * 16
    elif what == 4:
        streams = [streams[i] for i in rng.permutation(len(streams))] if rng.random() < 0.5 else streams * 2
        streams = [(stream, bool(rng.integers(2)), crc) for stream, _, crc in streams]
    else:
        which = rng.integers(len(streams))
        streams[which] = (changed_stream(rng, streams[which][0], other[-60:]), *streams[which][1:])
    return container_tiles.pack(streams=streams, **fields)


def forged_album(rng, content, other):
    """An album with another header, index or stream; the checksums of header, index and chained streams are made right."""
    pictures = album.Album(content)
    layout = pictures.layout
    found = album_file.spans(layout, pictures._read, 0, layout.groups)
    streams = [content[layout.data + start:layout.data + end] for start, end, _ in found]
    fields = dict(networks=layout.networks, chain=layout.chain, count=layout.count, shape=layout.shape, names=pictures.names,
                  version=max(layout.version, album_file.VERSION))
    what = rng.integers(8)
    if what == 0:
        shape = list(layout.shape)
        shape[rng.integers(2)] = min(number(rng, 8), (1 << 32) - 1)
        fields["shape"] = tuple(shape)
    elif what == 1:
        fields["count"] = min(number(rng, layout.count), (1 << 32) - 1)
    elif what == 2 and layout.version > 1:
        fields["chain"] = min(number(rng, layout.chain), 65535)
        fields["networks"] = (layout.networks * 2)[:2 if fields["chain"] and layout.version < album_file.PILES else 1]
    elif what == 3:
        fields["networks"] = tuple((NAMES[rng.integers(len(NAMES))], revision) for _, revision in layout.networks)
    else:
        which = rng.integers(len(streams))
        streams[which] = changed_stream(rng, streams[which], other[-60:])
    forged = album_file.pack(streams=streams, **fields)
    return first_version(forged) if layout.version == 1 and fields["count"] == layout.count and len(fields["networks"]) == 1 and what > 0 else forged


def forged(rng, content, other):
    if content[:4] == album_file.MAGIC:
        return forged_album(rng, content, other)
    if content[:4] != container.MAGIC:  # small images have no checksum on the outside
        return content[:5] + changed_stream(rng, content[5:], other[5:]) if rng.random() < 0.7 else flipped(rng, content[:6], b"") + content[6:]
    return (forged_whole if content[4] == 1 else forged_tiles)(rng, content, other)


# --- what becomes of it -----------------------------------------------------------------------------------------------------------------------

def memory():
    """Bytes of addresses that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.fixture
def limited():
    """A gigabyte more than now and no further, and an alarm where something waits for ever."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("what a process takes is read from /proc")
    before = resource.getrlimit(resource.RLIMIT_AS)

    def too_long(*_):
        raise TimeoutError(f"a file took more than {SECONDS} s of the processor")

    old = signal.signal(signal.SIGPROF, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (memory() + ROOM, before[1]))
    yield
    signal.signal(signal.SIGPROF, old)
    resource.setrlimit(resource.RLIMIT_AS, before)


class Tally:
    """How many files were read, how many of them reached a decoder, and what came of them."""

    def __init__(self):
        self.files, self.inside, self.right, self.slowest = 0, 0, 0, 0.0


def outcome(tally, sample, content, *rights):
    """One damaged file, read as `sample` is. rights: the arrays of which it may be one; None: any."""
    tally.files += 1
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        pixels = sample.read(content)
    except ShvcError as error:
        assert "\n" not in str(error)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}, from {sample.name}: {content[:3000].hex()}") from error
    else:
        tally.right += 1
        if not any(right is None or pixels.tobytes() == right.tobytes() for right in rights):
            raise AssertionError(f"wrong pixels, shape {pixels.shape}, from {sample.name}: {content[:3000].hex()}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    tally.slowest = max(tally.slowest, time.process_time() - started)


@pytest.fixture(scope="module")
def tally():
    return Tally()


@pytest.fixture(autouse=True)
def counted(monkeypatch, tally):
    """Counts the streams that get as far as a decoder."""
    def counting(module, name):
        inner = getattr(module, name)

        def count(*arguments, **keywords):
            tally.inside += 1
            return inner(*arguments, **keywords)
        monkeypatch.setattr(module, name, count)

    counting(coders, "tile")
    counting(album_streams, "_coder")


BLIND, REPAIRED = 290, 110  # of each sample
SLOW = {"1, ladder": 60, "1, discretised": 60, "tiles, network": 50, "tiles, best guess": 50, "small": 80, "small, RGBA": 60, "album": 40, "album, 1": 40,
        "album, chain": 30, "album, piles": 30, "tiles, fitted": 40, "small, pixels": 60, "tiles, pixels": 40}  # repaired, of those whose decoders take long
SAMPLES = ["1, grey", "1, RGB", "1, RGBA", "1, stored", "1, ladder", "1, discretised", "tiles, linear", "tiles, 16 bits", "tiles, 10 bits", "tiles, network",
           "tiles, best guess", "tiles, stored", "small", "small, RGBA", "small, stored", "album", "album, 1", "album, chain", "album, piles",
           "tiles, fitted", "small, pixels", "tiles, pixels"]


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_that_checksums_meet(name, samples, tally, limited):
    """Flips, cuts, pieces too many or too few, pieces of other files. Small images have no checksum on the outside: their decoder sees all of it."""
    rng, sample = np.random.default_rng([SEED, SAMPLES.index(name)]), samples[name]
    for k in range(BLIND if name not in ("small", "small, RGBA", "small, pixels", "album, 1") else SLOW[name]):
        other = samples[SAMPLES[rng.integers(len(SAMPLES))]]
        outcome(tally, sample, DAMAGE[k % len(DAMAGE)](rng, sample.content, other.content), sample.pixels, other.pixels)


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_that_checksums_vouch_for(name, samples, tally, limited):
    """Where only pixels are checked. A lossy file's last checksum is that of its latents, and whoever forges the others may have fewer rows made of these."""
    rng, sample, before = np.random.default_rng([SEED, 100 + SAMPLES.index(name)]), samples[name], tally.inside
    rights = [None] if name in ("1, ladder", "1, discretised") else [sample.pixels[:k] for k in range(len(sample.pixels) + 1)]  # fewer images
    for k in range(SLOW.get(name, REPAIRED)):
        try:
            content = forged(rng, sample.content, samples[SAMPLES[rng.integers(len(SAMPLES))]].content)
        except (ShvcError, struct.error, OverflowError, ValueError, UnicodeError):
            continue  # nothing like it can be written down
        outcome(tally, sample, content, *rights)
    if "stored" not in name and "ladder" not in name and "discretised" not in name:
        assert tally.inside - before > SLOW.get(name, REPAIRED) / 4, "too little of it reaches a decoder"


def test_every_version_and_every_first_byte(samples, tally, limited):
    """Versions 0 to 255 of .shvc and .shva, all flags of the other forms; files of a few bytes."""
    for name, at in [("1, RGB", 4), ("1, RGB", 5), ("tiles, linear", 4), ("tiles, linear", 5), ("small, stored", 2), ("album", 4), ("album, chain", 4)]:
        sample = samples[name]
        for value in range(256):
            outcome(tally, sample, sample.content[:at] + bytes([value]) + sample.content[at + 1:], sample.pixels)
    for start, value in itertools.product((b"", b"SHVC", b"SHVA", b"\xb2S", b"SHVC\1", b"SHVC\2"), range(256)):
        outcome(tally, samples["album" if start == b"SHVA" else "small"], start + bytes([value]))
        outcome(tally, samples["album" if start == b"SHVA" else "small"], start + bytes([value]) * 60)


# --- claims -----------------------------------------------------------------------------------------------------------------------------------

def whole(model, shape, payload, lossy=False):
    revision = coders.get(model).revision if not lossy else lossies.get(model).revision
    return container.pack(container.Header(model, revision, shape, False, 0, 0, lossy), payload)


def tiled(model, shape, depth, payload, side=0):
    return container_tiles.pack(model, coders.get(model).revision, shape, depth, side, [(payload, False, 0)])


def albumed(names, chain, count, shape, payload):
    networks = tuple((name, int(zoo.card(name)["sha256"][:4], 16)) for name in names)
    return album_file.pack(networks, chain, count, shape, [payload])


def true_payload(model):
    """The beginning of a payload that a lossy model wrote, so that the claim around it is believed."""
    return container.unpack(shvc_lib.encode(photograph(16, 16), model=model))[1]


def random_payload(count):
    return np.random.default_rng(SEED).bytes(count - 1) + b"\1"


CLAIMS = {
    "grey": lambda: whole("linear", (16384, 16384), random_payload(60)),
    "RGBA": lambda: whole("linear", (8192, 8192, 4), random_payload(60)),
    "one column": lambda: whole("linear", (1 << 28, 1), random_payload(60)),
    "beyond what is decoded": lambda: whole("linear", (1 << 15, 1 << 15), random_payload(60)),
    "beyond what is written": lambda: whole("linear", (1 << 34, 1 << 34, 255), random_payload(60)),
    "16 bits": lambda: tiled("linear", (8192, 8192), 16, random_payload(60)),
    "tiles that are not there": lambda: tiled("linear", (16384, 16384), 8, random_payload(60), 16),
    "a tile for best guesses": lambda: tiled(BEST, (2048, 2048, 3), 8, random_payload(60)),
    "a small image": lambda: container_small.header(ARIB, (128, 128, 3)) + random_payload(2000),
    "a small image of pixels": lambda: container_small.header(PIXELS, (128, 128, 3)) + random_payload(2000),
    "a tile of pixels": lambda: tiled(PIXELS, (512, 512, 3), 8, random_payload(60000)),
    "a row of pixels": lambda: tiled(PIXELS, (1, 1 << 18, 3), 8, random_payload(60000)),
    "an album of pixels": lambda: albumed([PIXELS], 0, 1, (1024, 1024, 3), random_payload(60)),
    "an album": lambda: albumed([ARIB], 0, 1, (1024, 1024, 3), random_payload(60)),
    "an album of millions": lambda: albumed([ARIB], 0, (1 << 24) - 1, (32, 32, 3), random_payload(60)),
    "a chain": lambda: albumed(ALBUM_NETWORKS, 100, 100, (1024, 1024, 3), random_payload(60)),
    "a chain of thousands": lambda: albumed(ALBUM_NETWORKS, 65535, 65535, (16, 16, 3), random_payload(600)),
    "lossy": lambda: whole("pln", (2048, 2048, 3), true_payload("pln"), True),
    "lossy, deep": lambda: whole("dvae-12", (8192, 8192, 3), true_payload("dvae-12"), True),
    "16 bits, more": lambda: tiled("linear", (16384, 16384), 16, random_payload(60)),
    "16 bits, RGB": lambda: tiled("linear", (9459, 9459, 3), 16, random_payload(60)),
    "one row": lambda: whole("linear", (1, 1 << 28), random_payload(60000)),
    "a tile for a network": lambda: tiled(ARIB, (9456, 9456, 3), 8, random_payload(60)),
    "fitted": lambda: tiled(FITTED, (2048, 2048, 3), 8, random_payload(60)),
    "fitted, a row": lambda: tiled(FITTED, (1, 1 << 22), 8, random_payload(60000)),
    "more than is fitted at once": lambda: tiled(FITTED, (6688, 6688, 3), 8, random_payload(60)),
    "a row for a network": lambda: tiled(BEST, (1, 1 << 26, 3), 8, random_payload(60)),
    "an album, 1": lambda: first_version(albumed([ARIB], 0, 1, (1024, 1024, 3), random_payload(60))),
    "lossy, a row": lambda: whole("pln", (1, 1 << 26, 3), true_payload("pln"), True),
    "lossy, one layer": lambda: whole("dvae-1", (8192, 8192, 3), true_payload("dvae-1"), True),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_gigantic_images(name, samples, tally, limited):
    """Right checksums around a header that promises more than its few bytes can hold."""
    sample = samples["album" if "album" in name or "chain" in name else "small"]
    outcome(tally, sample, CLAIMS[name]())


def test_levels_that_nobody_wrote(samples, tally, limited):
    """16-bit channels whose tables of levels are empty, full or reach beyond 65535."""
    for first, factor, top, count, mean, scale in itertools.product([0, 65535], [0, 65535], [0, 65535], [0, 1, 40], [0, 65535], [0, 65535]):
        for kind in (1, 2):
            stack = BitStack.random(3000, first + top)
            if kind == 2:
                if count:
                    linear_wide._gaps(count, mean, scale).push(stack, np.full(count, 65535))
                stack.push(np.array([count, mean, scale]), Uniform(1 << 16))
            stack.push(np.array([first, factor, top]), Uniform(1 << 16))
            stack.push(np.array([kind]), Uniform(3))
            outcome(tally, samples["tiles, 16 bits"], tiled("linear", (3, 2), 16, stack.to_bytes()))


def test_it_was_ten_thousand(tally, request):
    """Runs last, and only says something when all the others ran."""
    if len([item for item in request.session.items if item.fspath == request.node.fspath]) < 2 * len(SAMPLES) + 20:
        pytest.skip("only a part of this file was run")
    print(f"{tally.files} files, {tally.inside} reached a decoder, {tally.right} gave the right pixels, the slowest took {tally.slowest:.1f} s")
    assert tally.files >= 10_000 and tally.inside > 1000 and tally.right < 0.05 * tally.files
