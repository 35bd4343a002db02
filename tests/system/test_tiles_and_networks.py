"""Images through networks: tiles, small files, crops, threads and ranks, 16 bits, and the commands that do it."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import shvc_lib
from shvc_lib import cli, coders, container, container_small, container_tiles, data, zoo
from shvc_lib.errors import CorruptFile, InvalidInput, TruncatedFile, UnknownModel, UnsupportedImage

NETWORK = "shvc-short-arib"  # the smallest network; its weights are what the golden files need
PHOTO = data.photograph("astronaut")[60:260, 150:400]
GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)


def there_and_back(image, **options):
    file = shvc_lib.encode(image, **options)
    back = shvc_lib.decode(file)
    assert back.dtype == image.dtype and back.shape == image.shape and np.array_equal(back, image) and back.flags.writeable
    return file, shvc_lib.info(file)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (33, 7), (8, 8), (50, 41)])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_size_and_alpha_come_back(height, width, channels):
    image = np.concatenate([PHOTO, PHOTO[::-1, :, :1]], 2)[:height, :width, :channels]
    _, facts = there_and_back(image, model=NETWORK)
    assert facts["version"] == 0 and facts["shape"] == image.shape
    _, facts = there_and_back(image, model=NETWORK, tile=16)
    assert facts["version"] == 2 and facts["tiles"] == -(-height // 16) * -(-width // 16)


def test_tiles_are_independent_and_any_number_of_threads_writes_the_same_file():
    one, two = (shvc_lib.encode(PHOTO, model=NETWORK, tile=64, workers=workers) for workers in (1, 2))
    assert one == two and shvc_lib.info(one)["tiles"] == 16
    assert all(np.array_equal(shvc_lib.decode(one, workers=workers), PHOTO) for workers in (1, 2))
    parts = container_tiles.unpack(one)
    for tile in parts.tiles[::5]:
        pixels = np.ascontiguousarray(PHOTO[slice(*tile.rows), slice(*tile.columns)])
        assert bytes(tile.payload) == coders.stream(coders.get(NETWORK), pixels)


@given(st.integers(1, 3000), st.sampled_from([0, 16, 48, 256, 1008]))
def test_pieces_cover_a_side_once_and_differ_by_sixteen_at_most(length, side):
    found = container_tiles.pieces(length, side)
    assert found[0][0] == 0 and found[-1][1] == length and all(a[1] == b[0] for a, b in zip(found, found[1:]))
    assert all(a % 16 == 0 and a < b for a, b in found)
    if side:
        sizes = [b - a for a, b in found]
        assert len(found) == -(-length // side) and max(sizes) <= side and max(sizes[:-1], default=0) - min(sizes[:-1], default=0) <= 16


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_a_crop_is_that_part_of_the_image_and_touches_no_other_tile(draw):
    file = CROPPED
    x, y = draw.draw(st.integers(0, 79)), draw.draw(st.integers(0, 59))
    width, height = draw.draw(st.integers(1, 80 - x)), draw.draw(st.integers(1, 60 - y))
    assert np.array_equal(shvc_lib.decode(file, crop=(x, y, width, height), workers=1), PHOTO[y:y + height, x:x + width])
    damaged, parts = bytearray(file), container_tiles.unpack(file)
    at = len(file) - sum(len(tile.payload) for tile in parts.tiles)
    for tile in parts.tiles:  # ruin every tile that the crop does not need
        away = tile.rows[1] <= y or tile.rows[0] >= y + height or tile.columns[1] <= x or tile.columns[0] >= x + width
        damaged[at + 3] ^= 255 * away
        at += len(tile.payload)
    assert np.array_equal(shvc_lib.decode(bytes(damaged), crop=(x, y, width, height), workers=1), PHOTO[y:y + height, x:x + width])


CROPPED = shvc_lib.encode(PHOTO[:60, :80], model=NETWORK, tile=32)


@pytest.mark.parametrize("crop, what", [((0, 0, 81, 1), "beyond"), ((0, 60, 1, 1), "beyond"), ((-1, 0, 2, 2), "x"), ((0, 0, 0, 1), "width"),
                                        ((0, 0, 1), "four numbers"), ((0.5, 0, 1, 1), "x")])
def test_crops_outside_are_refused(crop, what):
    with pytest.raises(InvalidInput, match=what):
        shvc_lib.decode(CROPPED, crop=crop)


def test_one_damaged_tile_is_named_and_found():
    damaged = bytearray(CROPPED)
    damaged[-1] ^= 1
    with pytest.raises(CorruptFile, match="row 32, column 64"):
        shvc_lib.decode(bytes(damaged))
    for cut in (1, 50, len(CROPPED) - 40):
        with pytest.raises(TruncatedFile):
            shvc_lib.decode(CROPPED[:-cut])
    with pytest.raises(CorruptFile, match="longer"):
        shvc_lib.decode(CROPPED + b"\0")


def test_a_tile_whose_pixels_are_others_is_found():
    """The stream and all of its checksums are right, but it is another tile's."""
    parts = container_tiles.unpack(CROPPED)
    streams = [(bytes(tile.payload), tile.stored, tile.pixel_crc) for tile in parts.tiles]
    swapped = [(streams[1][0], False, streams[0][2]), *streams[1:]]
    with pytest.raises(CorruptFile, match="row 0, column 0 do not match"):
        shvc_lib.decode(container_tiles.pack(parts.model, parts.revision, parts.shape, 8, parts.side, swapped))


def test_noise_is_stored_tile_by_tile():
    mixed = PHOTO[:40, :96].copy()
    mixed[:, :48] = NOISE
    file, facts = there_and_back(mixed, model=NETWORK, tile=48)
    parts = container_tiles.unpack(file)
    assert [tile.stored for tile in parts.tiles] == [True, False] and not facts["stored"]
    file, facts = there_and_back(NOISE, model=NETWORK, tile=32)
    assert facts["stored"] and len(file) <= NOISE.size + 40 + 12 * facts["tiles"]
    file, facts = there_and_back(NOISE, model=NETWORK)
    assert facts["stored"] and len(file) <= NOISE.size + 9


def test_the_small_form_is_four_bytes_and_a_stream_and_its_checksum_costs_nothing():
    image = PHOTO[:32, :32]
    file, _ = there_and_back(image, model=NETWORK)
    assert file[:2] == b"\xb2S" and file[2] & 63 == 1 | 16 and file[3] == 31
    longer, saved = [], []
    for tile in data.patches([PHOTO], 16, 24, seed=3):  # z is drawn by other bits each time, so that single streams differ by some bytes either way
        plain = len(coders.stream(coders.get(NETWORK), tile))
        draws = [coders.small_start(container_small.header(NETWORK, tile.shape, draw), coders.get(NETWORK), tile)[0] for draw in container_small.DRAWS]
        sizes = [len(coders.stream(coders.get(NETWORK), tile, start)) for start in draws]
        file = shvc_lib.encode(tile, model=NETWORK)
        assert len(file) == 4 + min(sizes) and file[2] >> 6 == sizes.index(min(sizes)) and np.array_equal(shvc_lib.decode(file), tile)
        longer.append(np.mean(sizes) - plain)
        saved.append(np.mean(sizes) - min(sizes))
    assert abs(np.mean(longer)) < 2 and np.mean(saved) > 1


def test_every_damaged_byte_of_a_small_file_is_found():
    file = shvc_lib.encode(PHOTO[:16, :16], model=NETWORK)
    for at in range(len(file)):
        damaged = bytearray(file)
        damaged[at] ^= 1 + at % 255
        with pytest.raises((CorruptFile, UnknownModel)):
            shvc_lib.decode(bytes(damaged))
    for length in range(0, len(file), 7):
        with pytest.raises(CorruptFile):
            shvc_lib.decode(file[:length])


def test_another_revision_of_the_network_is_refused(monkeypatch):
    small = shvc_lib.encode(PHOTO[:16, :16], model=NETWORK)
    other = coders.get(NETWORK)._replace(revision=7)
    monkeypatch.setattr(coders, "_network", lambda name: other)
    with pytest.raises(UnknownModel, match="revision 7"):
        shvc_lib.decode(CROPPED)
    with pytest.raises(CorruptFile, match="another revision"):
        shvc_lib.decode(small)


def test_golden_files_are_read_and_written():
    """Files that were written when these forms were new: the formats are promises, and so are the network's numbers."""
    image = PHOTO[:40, :56]
    for name, options in {"tiles_v2.shvc": {"tile": 32}, "small.shvc": {}}.items():
        file = (GOLDEN / name).read_bytes()
        assert np.array_equal(shvc_lib.decode(file), image)
        assert shvc_lib.encode(image, model=NETWORK, **options) == file


def test_the_documented_layout_is_the_layout():
    """Read a file with tiles with nothing but the table in the module's docstring."""
    file, name = CROPPED, NETWORK.encode()
    at = 7 + len(name)
    assert file[:7 + len(name)] == b"SHVC\2\0" + bytes([len(name)]) + name
    assert file[at:at + 4] == bytes.fromhex(zoo.card(NETWORK)["sha256"][:8])
    assert tuple(file[at + 4:at + 8]) == (60, 80, 3, 32)
    index, tiles = file[at + 8:at + 8 + 12 * 6], []
    end = at + 8 + len(index)
    assert struct.unpack("<I", file[end:end + 4]) == (crc32(file[:end]),)
    where = end + 4
    for k, (length, stream_crc, pixel_crc) in enumerate(struct.iter_unpack("<III", index)):
        rows, columns = [(0, 32), (32, 60)][k // 3], [(0, 32), (32, 64), (64, 80)][k % 3]
        tiles.append((rows, columns))
        assert crc32(file[where:where + length]) == stream_crc and crc32(PHOTO[slice(*rows), slice(*columns)].tobytes()) == pixel_crc
        where += length
    assert where == len(file) and tiles == container_tiles.places((60, 80), 32)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)])
def test_sixteen_bits(shape):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=shape), 0), 1)
    image = np.interp(smooth, (smooth.min(), smooth.max()), (0, 65535)).astype(np.uint16)
    file, facts = there_and_back(image)
    assert facts["depth"] == 16 and facts["model"] == "linear" and len(file) < image.nbytes
    assert np.array_equal(shvc_lib.decode(shvc_lib.encode(image, tile=16), crop=(3, 4, 20, 10)), image[4:14, 3:23])
    there_and_back(rng.integers(0, 65536, shape).astype(np.uint16))
    there_and_back(np.asfortranarray(image))
    there_and_back(image.astype(">u2").astype(np.uint16))


def test_what_a_network_does_not_code_is_refused_by_name():
    for image, kind in ((PHOTO[..., 0], "8-bit grey"), (PHOTO.astype(np.uint16), "16-bit RGB")):
        with pytest.raises(UnsupportedImage, match=kind):
            shvc_lib.encode(image, model=NETWORK)
    with pytest.raises(UnknownModel, match="initial bits"):
        shvc_lib.encode(PHOTO, model="shvc-short")
    with pytest.raises(InvalidInput, match="multiple of 16"):
        shvc_lib.encode(PHOTO, tile=20)
    with pytest.raises(InvalidInput, match="lossless"):
        shvc_lib.encode(PHOTO, quality=2)


def test_auto_takes_the_smallest_file():
    for image in (PHOTO[:32, :32], PHOTO[:70, :90], PHOTO[:70, :90, 0]):
        candidates = coders.names() if image.ndim == 3 else ["linear", coders.FITTED]
        sizes = {name: len(shvc_lib.encode(image, model=name)) for name in candidates if name in ("linear", coders.FITTED, coders.LEARNED, coders.SMALL)}
        if max(image.shape) > 64:
            sizes.pop(coders.SMALL, None)
        assert len(shvc_lib.encode(image)) == min(sizes.values())


def test_images_that_claim_to_be_gigantic_are_refused_before_memory_is():
    header = container.Header("linear", 1, (60_000, 30_000), False, 9, 0)
    for file in (container.pack(header, b"123456789"), container_tiles.pack("linear", 1, (60_000, 30_000), 8, 0, [(b"123456789", False, 0)])):
        with pytest.raises(InvalidInput, match="--large"):
            shvc_lib.decode(file)


# the command line ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(PHOTO[:60, :80]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def command(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    streams = capsys.readouterr()
    assert status == 0, streams.err
    return streams.out


def refused(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1 and streams.err.startswith("shvc: "), streams
    return streams.err


def test_tiles_and_crops_from_the_command_line(photo, capsys, tmp_path):
    assert NETWORK in command(capsys, "encode", photo, "--model", NETWORK, "--tile", "32", "--workers", "2")
    assert photo.with_suffix(".shvc").read_bytes() == CROPPED
    shown = command(capsys, "info", photo.with_suffix(".shvc"))
    assert "tiles     6, at most 32 pixels a side" in shown and "60 x 80 x 3" in shown and "checksums match" in shown
    command(capsys, "decode", photo.with_suffix(".shvc"), tmp_path / "part.png", "--crop", "10,20,30,40")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "part.png")), PHOTO[20:60, 10:40])
    for crop, word in (("1,2,3", "four numbers"), ("a", "x,y,width,height"), ("0,0,99,1", "beyond")):
        assert word in refused(capsys, "decode", photo.with_suffix(".shvc"), tmp_path / "other.png", "--crop", crop)
    assert "multiple of 16" in refused(capsys, "encode", photo, tmp_path / "x.shvc", "--tile", "20")
    assert "folder" in refused(capsys, "encode", photo, tmp_path / "x.shvc", "--chain", "4")
    assert not (tmp_path / "other.png").exists() and not (tmp_path / "x.shvc").exists()


def test_ranks_of_torchrun_write_the_same_file(photo, tmp_path):
    """Two processes share the tiles; the first one writes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "shvc_lib.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(shvc_lib.__file__).parents[1])}
    done = subprocess.run([*start, "encode", photo, "--model", NETWORK, "--tile", "32"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.count("bits per sub-pixel") == 1, done.stderr
    assert photo.with_suffix(".shvc").read_bytes() == CROPPED
    done = subprocess.run([*start, "decode", photo.with_suffix(".shvc"), tmp_path / "back.png"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and np.array_equal(np.asarray(Image.open(tmp_path / "back.png")), PHOTO[:60, :80]), done.stderr


def test_a_folder_becomes_an_album_and_a_folder_again(capsys, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(PHOTO[8 * k:8 * k + 32, :32]).save(folder / f"tile {k}.png")
    models = f"{NETWORK},shvc-short"
    assert "4 images of 32 x 32 x 3" in command(capsys, "encode", folder, "--model", NETWORK, "--workers", "1")
    command(capsys, "encode", folder, tmp_path / "chain.shva", "--chain", "4", "--model", models, "--workers", "1")
    assert "exists" in refused(capsys, "encode", folder, "--model", NETWORK, "--workers", "1")
    shown = command(capsys, "info", tmp_path / "chain.shva")
    assert "images    4" in shown and f"models    {NETWORK}, shvc-short\n" in shown
    (tmp_path / "albums").mkdir()
    command(capsys, "encode", folder, tmp_path / "albums", "--model", NETWORK, "--workers", "1")
    assert (tmp_path / "albums" / "tiles.shva").read_bytes() == (tmp_path / "tiles.shva").read_bytes()
    assert "image" in refused(capsys, "encode", folder, tmp_path / "album.png", "--force")
    for name in ("tiles", "chain"):
        command(capsys, "decode", tmp_path / f"{name}.shva", tmp_path / f"{name} out", "--workers", "1")
        assert all(np.array_equal(np.asarray(Image.open(tmp_path / f"{name} out" / f"tile {k}.png")), PHOTO[8 * k:8 * k + 32, :32]) for k in range(4))
    command(capsys, "decode", tmp_path / "tiles.shva", tmp_path / "one", "--only", "tile 2.png", "--workers", "1")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["tile 2.png"]
    assert "--only" in refused(capsys, "decode", tmp_path / "tiles.shva", "--crop", "0,0,1,1")


def test_networks_that_make_no_albums_are_named_in_a_line(capsys, tmp_path):
    Image.fromarray(PHOTO[:32, :32]).save(tmp_path / "tile.png")
    for model, why in (("linear-net", "is no network for albums"), ("dvae-1", "is no network for albums"), ("linear", "no network for albums is called"),
                       ("shvc-short", "initial bits"), (f"{NETWORK},shvc-short", "--chain")):
        said = refused(capsys, "encode", tmp_path, tmp_path / "album.shva", "--model", model, "--workers", "1")
        assert why in said and len(said) < 250, said
    assert [path.name for path in tmp_path.iterdir()] == ["tile.png"]


def test_the_output_may_come_after_options(capsys, tmp_path):
    Image.fromarray(PHOTO[:9, :9]).save(tmp_path / "in.png")
    command(capsys, "encode", tmp_path / "in.png", "--model", "linear", tmp_path / "out.shvc")
    command(capsys, "decode", tmp_path / "out.shvc", "--workers", "1", tmp_path / "out.png", "--force")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), PHOTO[:9, :9])
    for rest in (["--model", "linear", "a", "b"], ["b", "--model", "linear", "a"], ["--no-such"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["encode", str(tmp_path / "in.png"), *rest])
        assert stopped.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["info", str(tmp_path / "out.shvc"), "more"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png", "out.shvc"]


def test_sixteen_bits_from_the_command_line(capsys, tmp_path):
    pytest.importorskip("imagecodecs")
    from shvc_lib.images import read_image, write_image

    deep = (PHOTO[:24, :24].astype(np.uint16) << 8) + np.arange(24, dtype=np.uint16)[:, None]
    write_image(tmp_path / "deep.png", deep)
    command(capsys, "encode", tmp_path / "deep.png")
    assert "16 bits per sub-pixel raw" in command(capsys, "info", tmp_path / "deep.shvc")
    command(capsys, "decode", tmp_path / "deep.shvc", tmp_path / "back.tif")
    assert np.array_equal(read_image(tmp_path / "back.tif"), deep)


def test_models_and_training_from_the_command_line(capsys, tmp_path):
    shown = command(capsys, "models")
    assert all(name in shown for name in ("linear", NETWORK, "auto", "dvae-12")) and "shvc-short:" not in shown
    assert cli.main(["train", "no-such-recipe"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["train", "shvc-tiny", "--steps", "1", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "checkpoint" / "state.json").exists()
