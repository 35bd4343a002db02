"""Albums: the same bytes whatever the number of processes, each image or group read alone, folders in and out, and damage found where it is."""

import hashlib
import io
import struct
import tracemalloc
import zlib
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from shvc_lib import album, album_file, album_streams, bench_arib, data, zoo
from shvc_lib.bench_arib import edge_images
from shvc_lib.coding import BitStack
from shvc_lib.errors import CorruptFile, InvalidInput, MissingData, ShvcError, TruncatedFile, UnknownModel, UnsupportedImage
from shvc_lib.images import read_image, write_image
from shvc_lib.models import shvc_codec
from shvc_lib.models.shvc_chain import Chain

GOLDEN = Path(__file__).resolve().parent / "golden"
ARIB, PAIR = "shvc-short-arib", ("shvc-short-arib", "shvc-short")  # networks that stay as they are


def photographs(side, count, seed):
    return data.patches([data.photograph(name) for name in ("coffee", "astronaut")], side, count, seed=seed)


def golden_images():
    """Six images of 16 x 16: photographs, a black one that lends too little, noise that is stored."""
    tiles, edges = photographs(16, 6, seed=11), edge_images(16)
    tiles[2], tiles[4] = edges["black"], edges["noise"]
    return tiles


@pytest.fixture(scope="module")
def images():
    """40 tiles of photographs, more than one batch, and two images that are none: black lends too little, noise is stored as it is."""
    tiles, edges = photographs(32, 40, seed=3), edge_images()
    tiles[7], tiles[9] = edges["black"], edges["noise"]
    return tiles


@pytest.fixture(scope="module")
def encoded(images):
    return album.encode(images, ARIB)


@pytest.fixture(scope="module")
def flat():
    """13 images of 16 x 16 in groups of 5: two black ones in a row at the start of the first, noise in the second, a third that is smaller and only black."""
    tiles, edges = photographs(16, 13, seed=7), edge_images(16)
    tiles[[0, 1, 10, 11, 12]], tiles[6] = edges["black"], edges["noise"]
    return tiles


@pytest.fixture(scope="module")
def chained(flat):
    return album.encode(flat, PAIR, names=[f"é {i}.png" for i in range(13)], chain=5)


class Recording(io.BytesIO):
    """A file that remembers which bytes were read."""

    def __init__(self, content):
        super().__init__(content)
        self.spans = []

    def read(self, size=-1):
        start, content = self.tell(), super().read(size)
        self.spans.append((start, start + len(content)))
        return content


def test_every_image_comes_back_alone_in_any_order(images, encoded):
    pictures = album.Album(encoded)
    assert len(pictures) == len(images) and pictures.shape == (32, 32, 3) and pictures.names is None
    for i in np.random.default_rng(0).permutation(len(images))[:12]:
        assert np.array_equal(pictures[int(i)], images[i])
    assert np.array_equal(pictures[-1], images[-1]) and np.array_equal(pictures.images(), images)
    assert np.array_equal(pictures.images([9, 7, 9]), images[[9, 7, 9]]) and pictures.images([]).shape == (0, 32, 32, 3)


def test_any_number_of_processes_writes_the_same_bytes(images, encoded, flat, chained):
    assert album.encode(images, ARIB, workers=2) == encoded
    assert np.array_equal(album.Album(encoded).images(workers=2), images)
    assert album.encode(flat, PAIR, 2, [f"é {i}.png" for i in range(13)], 5) == chained


def test_an_image_has_the_stream_that_it_would_have_alone(images, encoded):
    """No neighbour in the batch leaves a trace."""
    alone, together = album.Album(album.encode(images[12:13], ARIB)), album.Album(encoded)
    assert alone._stream(0) == together._stream(12)


def test_a_group_has_the_stream_that_it_would_have_alone(flat, chained):
    alone = album.Album(album.encode(flat[5:10], PAIR, chain=5))
    assert alone._stream(0) == album.Album(chained)._stream(1)


def test_noise_is_stored_and_costs_no_more_than_its_pixels(images, encoded):
    assert album.Album(encoded)._stream(9) == images[9].tobytes() + struct.pack("<I", crc32(images[9]))


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (19, 3)])
def test_no_album_is_longer_than_its_pixels_and_its_header(shape):
    noise = np.random.default_rng(2).integers(0, 256, (6, *shape, 3)).astype(np.uint8)
    for chain, model in ((0, ARIB), (4, PAIR)):
        written = album.encode(noise, model, chain=chain)
        pictures = album.Album(written)
        assert len(written) <= noise.nbytes + pictures.layout.data + 4 * pictures.layout.groups and np.array_equal(pictures.images(), noise)
        assert np.array_equal(pictures[4], noise[4])


def test_one_image_touches_only_its_own_bytes(images, encoded):
    file = Recording(encoded)
    pictures = album.Album(file)
    assert max(end for _, end in file.spans) == pictures.layout.head
    file.spans.clear()
    assert np.array_equal(pictures[20], images[20])
    layout = pictures.layout
    start = layout.data + sum(len(pictures._stream(i)) for i in range(20))
    index, stream = file.spans[:2]
    assert layout.entry == 2 and index == (layout.head + 2 * 19, layout.head + 2 * 21)
    assert stream[0] == start and stream[1] - start == len(pictures._stream(20)) < len(encoded) / 20


def test_the_checksum_costs_nothing(images):
    """A stack that starts with a checksum in its head ends no longer than one that starts empty, but for a byte now and then. (Shown where no latent is drawn
    by the bits that happen to be there.)"""
    name = "shvc-short-deterministic"
    plain, _ = bench_arib.alone(zoo.load(name), images[20:30])
    pictures = album.Album(album.encode(images[20:30], model=name))
    assert max(abs(len(stream) - len(pictures._stream(i))) for i, stream in enumerate(plain)) <= 1
    assert np.array_equal(pictures.images(), images[20:30])


def test_the_usual_networks_are_those_of_chapter_7(images):
    assert album.Album(album.encode(images[:1])).models == ("shvc-cifar10",)
    written = album.encode(images[:3], chain=2)
    assert album.Album(written).models == ("shvc-cifar10",) and np.array_equal(album.Album(written).images(), images[:3])


@pytest.mark.parametrize("height, width", [(1, 1), (3, 17), (16, 15), (40, 33)])
def test_any_size(height, width):
    tiles = photographs(40, 3, seed=4)[:, :height, :width]
    for chain, model in ((0, ARIB), (2, PAIR)):
        pictures = album.Album(album.encode(tiles, model, chain=chain))
        assert pictures.shape == (height, width, 3) and np.array_equal(pictures.images(), tiles)


def test_padding_is_the_edge_and_checked(monkeypatch):
    """A stream whose padding is something else is refused: there is one stream for an image, not many."""
    tiles = photographs(15, 1, seed=4)
    with monkeypatch.context() as patch:
        whole = np.pad(tiles, ((0, 0), (0, 1), (0, 1), (0, 0)))
        patch.setattr(np, "pad", lambda *_: whole)
        written = album.encode(tiles, ARIB)
    with pytest.raises(CorruptFile, match="padding"):
        album.Album(written)[0]


# Groups

def test_modes_of_a_group(flat, chained):
    """Two black images: the second finds too little under it and is coded with ArIB; noise as its pixels."""
    from shvc_lib.album_streams import _coder, _start

    push, groups = _coder(PAIR, (16, 16, 3), False)[0], [flat[:5], flat[5:10], flat[10:]]
    modes = [own.tolist() for own in push([_start(group) for group in groups], groups)]
    assert modes[0] == [1, 1, 0, 0, 0] and modes[1] == [1, 2, 0, 0, 0] and modes[2][0] == 1
    assert np.array_equal(album.Album(chained).images(), flat)


def test_stacks_that_are_too_short_stop_no_others(flat):
    """On empty stacks, among others that are not: ArIB there, bits-back where it is possible, and every stack is what it would be alone."""
    chain = Chain(zoo.load(PAIR[0]), zoo.load(PAIR[1]), (16, 16, 3))
    begun = [BitStack(), BitStack.random(5000, 1), BitStack(), BitStack.random(100, 2), BitStack.random(9000, 3)]
    stacks, tiles = [stack.copy() for stack in begun], flat[2:7]  # the last is noise
    assert chain.push(stacks, tiles, False).tolist() == [1, 0, 1, 1, 2]
    for i, stack in enumerate(begun):
        alone = stack.copy()
        chain.push([alone], tiles[i:i + 1], False)
        assert alone == stacks[i]
    plain = begun[1].copy()
    shvc_codec.codec(zoo.load(PAIR[1]), (16, 16, 3)).push(plain, tiles[1])
    assert 0 <= stacks[1].bits - plain.bits <= 1  # the mode
    assert np.array_equal(chain.pop(stacks, False), tiles) and stacks == begun and not any(stack.overdraft for stack in stacks)


def test_images_of_groups_come_back_in_any_order(flat, chained):
    pictures = album.Album(chained)
    for i in (0, 4, 7, 9, 12, -1):
        assert np.array_equal(pictures[i], flat[i])
    assert np.array_equal(pictures.images([8, 2, 12, 3, 2]), flat[[8, 2, 12, 3, 2]])


def test_an_image_is_decoded_with_those_above_it_and_no_others(chained, monkeypatch):
    from shvc_lib.models import shvc_chain

    steps, pop = [], shvc_chain.Chain.pop
    monkeypatch.setattr(shvc_chain.Chain, "pop", lambda self, stacks, first: steps.append((len(stacks), first)) or pop(self, stacks, first))
    album.Album(chained)[7]
    assert steps == [(1, False)] * 3  # images 9, 8, 7
    steps.clear()
    album.Album(chained).images([3, 12, 5])
    assert steps == [(2, False), (2, False), (2, False), (1, False), (1, True)]  # images 4 and 9, 3 and 8, 12 and 7, 6, 5


def test_a_group_costs_less_than_its_images_by_themselves(images):
    assert len(album.encode(images[10:], PAIR, chain=15)) < len(album.encode(images[10:], ARIB))


def test_every_flipped_byte_of_a_chained_album_is_found(chained, flat):
    """Header, index, names and streams, before a network sees anything (but of the index one entry alone would not be looked at)."""
    rng = np.random.default_rng(1)
    for at in range(len(chained)):
        damaged = bytearray(chained)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises((CorruptFile, UnknownModel)):
            album.Album(bytes(damaged)).images()


def test_a_damaged_group_spares_the_others(chained, flat):
    pictures = album.Album(chained)
    damaged = bytearray(chained)
    damaged[pictures.layout.data + len(pictures._stream(0)) + 9] ^= 1
    pictures = album.Album(bytes(damaged))
    with pytest.raises(CorruptFile, match="group 1"):
        pictures[9]
    assert np.array_equal(pictures.images([0, 12]), flat[[0, 12]])


def test_a_group_that_decodes_to_other_pixels_is_found(chained, monkeypatch):
    """Should the checksum of a damaged stream fit, the one in the stack's head does not."""
    stream = bytearray(album.Album(chained)._stream(0))
    stream[1] ^= 1
    monkeypatch.setattr(album.Album, "_stream", lambda self, group: bytes(stream))
    with pytest.raises(CorruptFile, match="checksum|cannot be decoded"):
        album.Album(chained)[0]


# Damage

def test_every_flipped_byte_of_an_album_is_found():
    written = album.encode(golden_images()[[2, 4]], ARIB, names=["a.png", "b.png"])  # black, and noise
    pictures, rng = album.Album(written), np.random.default_rng(1)
    ends = pictures.layout.data + np.cumsum([len(pictures._stream(i)) for i in range(2)])
    for at in range(len(written)):
        damaged = bytearray(written)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises((CorruptFile, UnknownModel)):
            own = album.Album(bytes(damaged))
            own.images() if at < pictures.layout.data else own[int(np.searchsorted(ends, at, "right"))]


def test_damage_to_one_stream_spares_the_others(images, encoded):
    pictures = album.Album(encoded)
    at = pictures.layout.data + len(pictures._stream(0)) + 100
    damaged = bytearray(encoded)
    damaged[at] ^= 4
    pictures = album.Album(bytes(damaged))
    with pytest.raises(CorruptFile):
        pictures[1]
    assert np.array_equal(pictures[0], images[0]) and np.array_equal(pictures[2], images[2])


def test_a_damaged_index_entry_never_gives_other_pixels(images, encoded):
    """One image is read without the index' checksum: it is right, or it raises."""
    head, rng = album.Album(encoded).layout.head, np.random.default_rng(1)
    for at in rng.integers(head, head + 2 * len(images), 12):
        damaged = bytearray(encoded)
        damaged[at] ^= 1 << rng.integers(8)
        for i in {min((at - head) // 2, 39), min((at - head) // 2 + 1, 39)}:
            with pytest.raises(CorruptFile):
                album.Album(bytes(damaged))[int(i)]


@pytest.mark.parametrize("keep", [0, 3, 6, 30, 41, 100, -1])
def test_a_truncated_album_is_refused(encoded, keep):
    with pytest.raises(TruncatedFile):
        pictures = album.Album(encoded[:keep])
        pictures[len(pictures) - 1]


def test_every_truncation_and_a_longer_file_are_refused(chained, encoded):
    for keep in range(0, len(chained), 7):
        with pytest.raises(TruncatedFile):
            album.info(chained[:keep])
    for written in (chained, encoded, (GOLDEN / "album_v1.shva").read_bytes()):
        with pytest.raises(CorruptFile, match="1 bytes longer"):
            album.Album(written + b"\0").images()


def sealed(body):
    return body + struct.pack("<I", crc32(body))


def header(count=1, height=32, width=32, entry=2, names=0, chain=0, networks=(ARIB,)):
    return sealed(b"SHVA\x02" + struct.pack("<H", chain) + b"".join(bytes([len(own)]) + own.encode("latin1") + b"\0\0" for own in networks)
                  + struct.pack("<IIIBI", count, height, width, entry, names))


def test_headers_that_nobody_wrote():
    with pytest.raises(CorruptFile, match="no album"):
        album.Album(b"SHVC" + bytes(60))
    with pytest.raises(CorruptFile, match="version 9"):
        album.Album(b"SHVA\x09" + bytes(60))
    for fields in [{"count": 0}, {"count": 1 << 24}, {"height": 0}, {"width": 1 << 20}, {"height": 4096, "width": 257}, {"entry": 0}, {"entry": 7},
                   {"names": (1 << 26) + 1}, {"chain": 1, "networks": PAIR}, {"networks": ("shvc-ärib",)}]:
        with pytest.raises(CorruptFile, match="no album that"):
            album.Album(header(**fields) + bytes(200))


def test_nothing_is_as_large_as_a_header_says_before_the_file_is(monkeypatch):
    tracemalloc.start()
    for fields in [{"count": (1 << 24) - 1, "entry": 6}, {"names": 1 << 26}, {"count": 1 << 23, "height": 1024, "width": 1024, "chain": 2, "networks": PAIR}]:
        with pytest.raises(TruncatedFile):
            album.Album(header(**fields) + bytes(200))
    bomb = zlib.compress(bytes(1 << 24), 9)
    with pytest.raises(CorruptFile, match="do not end"):
        album.Album(header(names=len(bomb)) + sealed(b"\x09\0") + sealed(bomb) + bytes(9)).names
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


def test_networks_that_write_no_albums():
    body = sealed(b"\x09\0") + bytes(8) + b"\1"
    for networks, error in [(("shvc-short",), CorruptFile), (("vae-stochastic-1",), CorruptFile), (("nobody",), UnknownModel), (("../x",), UnknownModel)]:
        with pytest.raises(error):
            album.Album(header(networks=networks) + body)[0]
    with pytest.raises(InvalidInput, match="two networks"):
        album.encode(golden_images(), ARIB, chain=2)
    with pytest.raises(InvalidInput, match="plain SHVC"):
        album.encode(golden_images(), (ARIB, ARIB), chain=2)


def test_another_revision_is_named(encoded):
    layout = album.Album(encoded).layout
    head = bytearray(encoded[:layout.head - 4])
    head[8 + len(ARIB)] ^= 1
    with pytest.raises(UnknownModel, match="written by revision"):
        album.Album(sealed(bytes(head)) + encoded[layout.head:])[0]


def test_version_1_is_read():
    written = (GOLDEN / "album_v1.shva").read_bytes()
    assert hashlib.sha256(written).hexdigest() == "991327ce6d02b658575f8e677365ea069b99f12773c032f5b01b9c8b469d3e71"
    pictures, tiles = album.Album(written), golden_images()
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == "c1f0422dc1c443c08905703959b8f5727ca5ea5c0906233769c122c914567a0a"
    assert np.array_equal(pictures.images(), tiles) and np.array_equal(pictures[3], tiles[3]) and album.info(written)["version"] == 1
    for at in [*range(pictures.layout.data), pictures.layout.data + 700]:
        damaged = bytearray(written)
        damaged[at] ^= 8
        with pytest.raises((CorruptFile, UnknownModel)):
            album.Album(bytes(damaged)).images()


def test_version_2_is_what_it_was():
    """Byte for byte, alone and in groups, one of which is smaller."""
    names = [f"{i}.webp" for i in range(6)]
    for file, written in (("album_v2.shva", album.encode(golden_images(), ARIB, names=names)),
                          ("album_v2_chain.shva", album.encode(golden_images(), PAIR, chain=4))):
        kept = (GOLDEN / file).read_bytes()
        assert written == kept and np.array_equal(album.Album(kept).images(), golden_images())


# What an album takes

@pytest.mark.parametrize("images", [np.zeros((32, 32, 3), np.uint8), np.zeros((0, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32),
                                    np.zeros((1, 32, 32, 4), np.uint8), np.zeros((2, 0, 32, 3), np.uint8), np.zeros((1, 1, 4097, 3), np.uint8),
                                    np.zeros((1, 1025, 1024, 3), np.uint8)])
def test_what_an_album_does_not_take(images):
    with pytest.raises(InvalidInput):
        album.encode(images, ARIB)


def test_arguments_that_make_no_sense(images):
    for arguments in ({"model": "shvc-short"}, {"workers": 0}, {"chain": 1}, {"chain": -2}, {"chain": 1 << 16}, {"chain": 2.0}, {"model": PAIR},
                      {"names": ["a", "b"]}, {"names": [3]}):
        with pytest.raises(InvalidInput):
            album.encode(images[:1], **{"model": ARIB, **arguments})
    with pytest.raises(InvalidInput, match="initial bits"):
        album.encode(images[:1], model="shvc-short")
    with pytest.raises(UnknownModel):
        album.encode(images[:1], model="nobody")


HOSTILE = ["../x", "/etc/x", "a/b", "a\\b", "C:x", "..", ".", "", "a\nb", "a\x7f", "x" * 256, "x" * 252, "\udc80"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_not_written_and_not_read(name):
    tiles = golden_images()[2:3]
    with pytest.raises(InvalidInput):
        album.encode(tiles, ARIB, names=[name])
    if name.isprintable() or name.isascii():
        forged = album_file.pack(((ARIB, 0),), 0, 1, (16, 16, 3), [bytes(9)], [name])
        with pytest.raises(CorruptFile, match="names"):
            album.extract(forged, "nowhere")


@pytest.mark.parametrize("names", [["a.png", "a.png"], ["a.png", "a.jpg"], ["a", "a.png"], ["a"], ["a", "b", "c"]])
def test_names_that_would_meet(names):
    with pytest.raises(InvalidInput):
        album.encode(golden_images()[:2], ARIB, names=names)
    with pytest.raises(CorruptFile):
        album.Album(album_file.pack(((ARIB, 0),), 0, 2, (16, 16, 3), [bytes(9), bytes(9)], names)).names


def test_names_that_are_not_utf8():
    block = zlib.compress(b"\xff")
    with pytest.raises(CorruptFile, match="names"):
        album.Album(header(names=len(block)) + sealed(b"\x09\0") + sealed(block) + bytes(9)).check()


# Files and folders

def test_files_are_written_whole_and_never_over_others(images, tmp_path):
    path = album.write(tmp_path / "tiles.shva", images[:2], ARIB)
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(InvalidInput, match="exists"):
        album.write(path, images[:1], ARIB)
    assert hashlib.sha256(path.read_bytes()).digest() == before and [p.name for p in tmp_path.iterdir()] == ["tiles.shva"]
    with album.Album(path) as pictures:
        assert np.array_equal(pictures.images(), images[:2])
        with pytest.raises(IndexError):
            pictures[2]
        assert len(list(pictures)) == 2
    with pytest.raises(MissingData):
        album.Album(tmp_path / "none.shva")
    with pytest.raises(InvalidInput):
        album.Album(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Five images of 16 x 16 under names of several kinds, and a file that is none."""
    target = tmp_path / "in"
    target.mkdir()
    for name, image in zip(["b.png", "a.ppm", "ü 1.bmp", "c.v2.webp", "D.PNG"], golden_images()):
        write_image(target / name, image)
    (target / "notes.txt").write_text("no image")
    return target


@pytest.mark.parametrize("chain, model", [(0, ARIB), (2, PAIR)])
def test_a_folder_and_back(folder, tmp_path, chain, model):
    path = album.write_folder(folder, tmp_path / "a.shva", model, chain)
    assert album.Album(path).names == sorted(file.name for file in folder.iterdir() if file.suffix != ".txt")
    written = album.extract(path, tmp_path / "out")
    assert [file.name for file in written] == ["D.png", "a.png", "b.png", "c.v2.png", "ü 1.png"] and len(list((tmp_path / "out").iterdir())) == 5
    for file, name in zip(written, album.Album(path).names):
        assert np.array_equal(read_image(file), read_image(folder / name))


def test_some_images_of_a_folder(folder, tmp_path):
    path = album.write_folder(folder, tmp_path / "a.shva", PAIR, 3)
    written = album.extract(path, tmp_path / "out", only=["c.v2.webp", "a", 0])
    assert [file.name for file in written] == ["D.png", "a.png", "c.v2.png"]
    assert np.array_equal(read_image(written[2]), read_image(folder / "c.v2.webp"))
    for only in (["nobody"], [5], [1.5]):
        with pytest.raises(InvalidInput):
            album.extract(path, tmp_path / "out 2", only=only)
    assert not (tmp_path / "out 2").exists()


def test_images_without_names_are_numbered(images, encoded, tmp_path):
    written = album.extract(encoded, tmp_path / "out", only=[7, "9", "20.png"])
    assert [file.name for file in written] == ["07.png", "09.png", "20.png"] and np.array_equal(read_image(written[0]), images[7])


def test_nothing_is_written_over_or_in_part(folder, tmp_path):
    path, out = album.write_folder(folder, tmp_path / "a.shva", ARIB), tmp_path / "out"
    out.mkdir()
    (out / "ü 1.png").write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        album.extract(path, out)
    assert [file.name for file in out.iterdir()] == ["ü 1.png"] and (out / "ü 1.png").read_text() == "mine"
    assert len(album.extract(path, out, force=True)) == 5 and len(list(out.iterdir())) == 5
    damaged = bytearray(path.read_bytes())
    damaged[-9] ^= 1
    with pytest.raises(CorruptFile):
        album.extract(bytes(damaged), tmp_path / "out 2")
    assert not (tmp_path / "out 2").exists()
    for target in (path, tmp_path / "no" / "where"):
        with pytest.raises(InvalidInput, match="no folder"):
            album.extract(path, target)
    with pytest.raises(InvalidInput, match="exists"):
        album.write_folder(folder, path, ARIB)
    before = path.read_bytes()
    assert album.write_folder(folder, path, ARIB, force=True).read_bytes() == before


def test_links_are_not_followed(folder, tmp_path):
    path, out = album.write_folder(folder, tmp_path / "a.shva", ARIB), tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InvalidInput, match="exists"):
        album.extract(path, out)
    album.extract(path, out, force=True)
    assert not (tmp_path / "elsewhere.png").exists() and not (out / "a.png").is_symlink()


def test_two_names_that_are_one_to_a_file_system(folder, tmp_path, monkeypatch):
    """As on a disk that does not tell a from A: the second of them is not written over the first."""
    path = album.write_folder(folder, tmp_path / "a.shva", ARIB)
    monkeypatch.setattr(album.album_file, "png_name", lambda name: "same.png")
    monkeypatch.setattr(album.Album, "check", lambda self: None)
    monkeypatch.setattr(album.Album, "names", list("abcde"))
    with pytest.raises(InvalidInput, match="exists"):
        album.extract(path, tmp_path / "out")


@pytest.mark.parametrize("image, match", [(np.zeros((16, 16), np.uint8), "grey"), (np.zeros((16, 16, 4), np.uint8), "alpha"),
                                          (np.zeros((16, 16, 3), np.uint16), "16 bits"),
                                          (np.zeros((16, 17, 3), np.uint8), "16 x 17 pixels, and D.PNG has 16 x 16")])
def test_the_first_file_that_does_not_fit_is_named(folder, tmp_path, image, match):
    write_image(folder / ("az.tif" if image.dtype == np.uint16 else "az.png"), image)
    write_image(folder / "zz.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(UnsupportedImage, match=f"az.(png|tif): .*{match}.*shvc encode FILE"):
        album.write_folder(folder, tmp_path / "a.shva", ARIB)
    assert not (tmp_path / "a.shva").exists()


def test_folders_that_hold_no_album(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(MissingData):
            album.write_folder(source, tmp_path / "a.shva", ARIB)
    (folder / "b.jpg").write_bytes((folder / "b.png").read_bytes())
    with pytest.raises(InvalidInput, match="b.jpg.*b.png.*b.png"):
        album.write_folder(folder, tmp_path / "a.shva", ARIB)
    (folder / "b.jpg").write_text("no image")
    (folder / "b.png").unlink()
    with pytest.raises(ShvcError, match="b.jpg"):
        album.write_folder(folder, tmp_path / "a.shva", ARIB)


def test_info(images, encoded, chained, tmp_path):
    path = album.write(tmp_path / "a.shva", images[7:10], ARIB)
    facts = album.info(path)
    assert facts == {"version": 2, "images": 3, "shape": (32, 32, 3), "models": (ARIB,), "revisions": facts["revisions"], "chain": 0, "streams": 3, "stored": 1,
                     "named": False, "bytes": path.stat().st_size, "bits_per_dim": 8 * path.stat().st_size / (3 * 3072)}
    facts = album.info(chained)
    assert facts["models"] == PAIR and facts["chain"] == 5 and facts["streams"] == 3 and facts["named"] and facts["images"] == 13
    assert facts["revisions"] == tuple(int(zoo.card(name)["sha256"][:4], 16) for name in PAIR)


def test_a_worker_that_dies_is_one_error(monkeypatch):
    """For example when memory ends; a traceback of the pool's would not say so."""
    class Pool(album_streams.ProcessPoolExecutor):
        def map(self, *_):
            raise BrokenProcessPool("terminated abruptly")

    monkeypatch.setattr(album_streams, "ProcessPoolExecutor", Pool)
    with pytest.raises(ShvcError, match="memory"):
        album.encode(np.repeat(golden_images()[:1], 4, 0), ARIB, workers=2)
