"""Albums: the same bytes whatever the number of processes, each image read alone, and damage found where it is."""

import hashlib
import io
import struct
from zlib import crc32

import numpy as np
import pytest

from shvc_lib import album, bench_arib, data, zoo
from shvc_lib.bench_arib import edge_images
from shvc_lib.errors import CorruptFile, InvalidInput, TruncatedFile, UnknownModel


@pytest.fixture(scope="module")
def images():
    """40 tiles of photographs, more than one batch, and two images that are none: black lends too little, noise is stored as it is."""
    tiles = data.patches([data.photograph(name) for name in ("coffee", "astronaut")], 32, 40, seed=3)
    edges = edge_images()
    tiles[7], tiles[9] = edges["black"], edges["noise"]
    return tiles


@pytest.fixture(scope="module")
def encoded(images):
    return album.encode(images)


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
    assert len(pictures) == len(images) and pictures.shape == (32, 32, 3)
    for i in np.random.default_rng(0).permutation(len(images))[:12]:
        assert np.array_equal(pictures[int(i)], images[i])
    assert np.array_equal(pictures[-1], images[-1]) and np.array_equal(pictures.images(), images)
    assert np.array_equal(pictures.images([9, 7, 9]), images[[9, 7, 9]])


def test_any_number_of_processes_writes_the_same_bytes(images, encoded):
    assert album.encode(images, workers=2) == encoded
    assert np.array_equal(album.Album(encoded).images(workers=2), images)


def test_an_image_has_the_stream_that_it_would_have_alone(images, encoded):
    """No neighbour in the batch leaves a trace."""
    alone, together = album.Album(album.encode(images[12:13])), album.Album(encoded)
    assert alone._stream(0) == together._stream(12)


def test_noise_is_stored_and_costs_no_more_than_its_pixels(images, encoded):
    assert album.Album(encoded)._stream(9) == images[9].tobytes() + struct.pack("<I", crc32(images[9]))


def test_one_image_touches_only_its_own_bytes(images, encoded):
    file = Recording(encoded)
    pictures = album.Album(file)
    header_end = max(end for _, end in file.spans)
    file.spans.clear()
    assert np.array_equal(pictures[20], images[20])
    start = pictures._index + 4 * len(images) + sum(len(pictures._stream(i)) for i in range(20))
    index, stream = file.spans[:2]
    assert index == (header_end + 4 * 19, header_end + 4 * 21) and stream[0] == start and stream[1] - start == len(pictures._stream(20))
    assert stream[1] - stream[0] < len(encoded) / 20


def test_the_checksum_costs_nothing(images):
    """A stack that starts with a checksum in its head ends no longer than one that starts empty, but for a byte now and then. (Shown where no latent is drawn
    by the bits that happen to be there.)"""
    name = "shvc-short-deterministic"
    plain, _ = bench_arib.alone(zoo.load(name), images[20:30])
    pictures = album.Album(album.encode(images[20:30], model=name))
    assert max(abs(len(stream) - len(pictures._stream(i))) for i, stream in enumerate(plain)) <= 1
    assert np.array_equal(pictures.images(), images[20:30])


def test_damage_to_one_stream_spares_the_others(images, encoded):
    pictures = album.Album(encoded)
    at = pictures._data + len(pictures._stream(0)) + 100
    damaged = bytearray(encoded)
    damaged[at] ^= 4
    pictures = album.Album(bytes(damaged))
    with pytest.raises(CorruptFile):
        pictures[1]
    assert np.array_equal(pictures[0], images[0]) and np.array_equal(pictures[2], images[2])


def test_every_flipped_bit_of_header_and_index_is_found(images, encoded):
    size = album.Album(encoded)._data
    rng = np.random.default_rng(1)
    for at in [*range(0, size - 4 * len(images)), *rng.integers(size - 4 * len(images), size, 12)]:
        damaged = bytearray(encoded)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises((CorruptFile, UnknownModel)):
            album.Album(bytes(damaged)).images(range(max(0, (at - size) // 4 + len(images)), len(images))[:2])


@pytest.mark.parametrize("keep", [0, 3, 6, 30, 41, 100, -1])
def test_a_truncated_album_is_refused(encoded, keep):
    with pytest.raises(TruncatedFile):
        pictures = album.Album(encoded[:keep])
        pictures[len(pictures) - 1]


def test_headers_that_nobody_wrote():
    with pytest.raises(CorruptFile, match="no album"):
        album.Album(b"SHVC" + bytes(60))
    with pytest.raises(CorruptFile, match="version 9"):
        album.Album(b"SHVA\x09" + bytes(60))
    name = b"shvc-arib-cifar10"
    for fields in [(1, 0, 32, 32), (1, 5, 0, 32), (1, 5, 32, 1 << 20)]:
        head = b"SHVA\x01" + bytes([len(name)]) + name + struct.pack("<HIII", *fields)
        with pytest.raises(CorruptFile, match="no album that"):
            album.Album(head + struct.pack("<I", crc32(head)) + bytes(100))


def test_another_revision_is_named(encoded):
    head = bytearray(encoded[:album.Album(encoded)._index - 4])
    at = 6 + head[5]
    head[at] ^= 1
    changed = bytes(head) + struct.pack("<I", crc32(head)) + encoded[len(head) + 4:]
    with pytest.raises(UnknownModel, match="written by revision"):
        album.Album(changed)[0]


@pytest.mark.parametrize("images", [np.zeros((2, 30, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((0, 32, 32, 3), np.uint8),
                                    np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32, 4), np.uint8)])
def test_what_an_album_does_not_take(images):
    with pytest.raises(InvalidInput):
        album.encode(images)


def test_networks_that_need_initial_bits_are_refused(images):
    with pytest.raises(InvalidInput, match="initial bits"):
        album.encode(images[:1], model="shvc-short")
    with pytest.raises(UnknownModel):
        album.encode(images[:1], model="nobody")
    with pytest.raises(InvalidInput, match="workers"):
        album.encode(images[:1], workers=0)


def test_files_are_written_whole_and_never_over_others(images, tmp_path):
    path = album.write(tmp_path / "tiles.shva", images[:2])
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(InvalidInput, match="exists"):
        album.write(path, images[:1])
    assert hashlib.sha256(path.read_bytes()).digest() == before and [p.name for p in tmp_path.iterdir()] == ["tiles.shva"]
    with album.Album(path) as pictures:
        assert np.array_equal(pictures.images(), images[:2])
        with pytest.raises(IndexError):
            pictures[2]
        assert len(list(pictures)) == 2
