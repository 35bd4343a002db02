"""Piles: groups of images on one stack under a network that draws nothing, each mirrored the way that is shortest, in albums of version 3."""

from pathlib import Path

import numpy as np
import pytest

from shvc_lib import album, album_file, album_pile, coders, data, zoo
from shvc_lib.bench_arib import edge_images
from shvc_lib.coding import BitStack
from shvc_lib.errors import CorruptFile, InvalidInput, TruncatedFile, UnknownModel
from shvc_lib.models.shvc_chain import any_size

GOLDEN = Path(__file__).resolve().parent / "golden" / "album_v3_piles.shva"
PIXELS, ARIB = "shvc-pixels-cifar10", "shvc-short-arib"  # networks that stay as they are
SIDE = (12, 10)


def tiles(count=11, seed=5):
    """Photographs, and a group whose second image is noise, and one of noise alone, which is stored."""
    found = data.patches([data.photograph(name) for name in ("coffee", "astronaut")], 12, count, seed=seed)[:, :SIDE[0], :SIDE[1]].copy()
    found[5] = edge_images(12)["noise"][:SIDE[0], :SIDE[1]]
    found[8:] = np.random.default_rng(seed).integers(0, 256, found[8:].shape)
    return found


@pytest.fixture(scope="module")
def written():
    return album.encode(tiles(), PIXELS, names=[f"ö {i}.png" for i in range(11)], chain=4)


def test_any_number_of_processes_writes_the_same_bytes(written):
    assert album.encode(tiles(), PIXELS, 2, [f"ö {i}.png" for i in range(11)], 4) == written
    assert np.array_equal(album.Album(written).images(workers=2), tiles())


def test_what_is_in_it(written):
    facts = album.info(written)
    assert (facts["version"], facts["models"], facts["chain"], facts["streams"], facts["stored"]) == (3, (PIXELS,), 4, 3, 1)
    assert len(written) < 4 * 4 * 12 * 10 * 3 and facts["bytes"] == len(written) and facts["named"]


def test_images_come_back_in_any_order(written):
    pictures = album.Album(written)
    for i in (0, 3, 5, 4, 10, -2):
        assert np.array_equal(pictures[i], tiles()[i])
    assert np.array_equal(pictures.images([7, 2, 9, 2]), tiles()[[7, 2, 9, 2]])
    assert np.array_equal(album.Album(album.encode(tiles(), PIXELS)).images(), tiles())


def test_a_group_has_the_stream_that_it_would_have_alone(written):
    assert album.Album(album.encode(tiles()[4:8], PIXELS, chain=4))._stream(0) == album.Album(written)._stream(1)


@pytest.mark.parametrize("side", [10, 12])
def test_an_image_costs_its_shortest_way_and_two_or_three_bits(side):
    """Counted against the codec of single images, whose bits are known to a fraction. Square ones are lain on their side, too."""
    twin, images = zoo.load(PIXELS), data.patches([data.photograph("coffee")], 12, 4, seed=2)[:, :, :side].copy()
    count, said = (8, 3) if side == 12 else (4, 2)

    def turned(image, way):
        return coders.turned(image.swapaxes(0, 1) if way > 3 else image, way % 4)[None]

    pile, own, ways = album_pile.Pile(twin, images.shape[1:]), any_size(twin, (1, *images.shape[1:])), []
    for image in images:
        lengths = [own.bits(turned(image, way)) for way in range(count)]
        stack = BitStack()
        way, = pile.push([stack], image[None])
        assert lengths[way] < min(lengths) + 1 and abs(stack.bits - min(lengths) - said) < 2
        assert np.array_equal(pile.pop([stack]), image[None]) and stack == BitStack()
        ways.append(way)
    stacks = [BitStack.random(k, k) for k in (0, 7, 900, 40)]
    before = [stack.copy() for stack in stacks]
    assert pile.push(stacks, images).dtype == np.int32 and [stack.bits - old.bits for stack, old in zip(stacks, before)] == pytest.approx(
        [min(own.bits(turned(image, way)) for way in range(count)) + said for image in images], abs=2)
    assert np.array_equal(pile.pop(stacks), images) and stacks == before
    assert len(set(ways)) > 1 and (side < 12 or max(ways) > 3)  # or this test says nothing of mirrors


def test_a_group_costs_less_than_its_images_by_themselves():
    images = tiles()[:4]
    alone, together = album.encode(images, PIXELS), album.encode(images, PIXELS, chain=4)
    assert sum(len(album.Album(alone)._stream(i)) for i in range(4)) - len(album.Album(together)._stream(0)) in range(3 * 4, 3 * 6)


def test_every_flipped_byte_is_found(written):
    for at in range(len(written)):
        damaged = bytearray(written)
        damaged[at] ^= 1 << at % 8
        with pytest.raises((CorruptFile, UnknownModel)):
            pictures = album.Album(bytes(damaged))
            assert pictures.names is not None
            pictures.images()


def test_every_truncation_is_refused(written):
    for keep in range(0, len(written), 11):
        with pytest.raises(TruncatedFile):
            album.info(written[:keep])


def test_networks_that_write_no_piles():
    layout = ((ARIB, 0),), 0, 1, (8, 8, 3), [bytes(8) + b"\1"]
    with pytest.raises(CorruptFile, match="draws latents"):
        album.Album(album_file.pack(*layout, version=album_file.PILES))[0]
    with pytest.raises(InvalidInput, match="two networks"):
        album.encode(tiles(), ARIB, chain=2)
    with pytest.raises(InvalidInput, match="got 3"):
        album.encode(tiles(), (ARIB, "shvc-short", PIXELS), chain=2)


def test_version_3_is_what_it_was():
    """Byte for byte, in groups, one of which is smaller."""
    kept = GOLDEN.read_bytes()
    assert album.encode(tiles(6, 1), PIXELS, chain=4) == kept and np.array_equal(album.Album(kept).images(), tiles(6, 1))
