"""Data sets: both layouts, counts that are told and not guessed, and errors that say both ways out."""

import os

import numpy as np
import pytest
from PIL import Image

from shvc_lib import data
from shvc_lib.errors import CorruptFile, InvalidInput, MissingData

RNG = np.random.default_rng(11)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder and an empty cache."""
    monkeypatch.setenv("SHVC_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def write_binary(path, images):
    """CIFAR-10's binary version: per image one label byte, then the red, green and blue planes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = RNG.integers(0, 10, (len(images), 1), dtype=np.uint8)
    path.write_bytes(np.hstack([labels, images.transpose(0, 3, 1, 2).reshape(len(images), -1)]).tobytes())


def write_mosaic(path, images, across=4):
    rows = images.reshape(-1, across, 32, 32, 3).swapaxes(1, 2).reshape(-1, across * 32, 3)
    save(path, rows, lossless=True)


def tiny_cifar(number):
    return RNG.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name, shape", [("astronaut", (512, 512, 3)), ("coffee", (400, 600, 3)),
                                         ("chelsea", (300, 451, 3)), ("immunohistochemistry", (512, 512, 3)),
                                         ("motorcycle", (500, 741, 3))])
def test_photographs_are_in_the_package(name, shape, home):
    image = data.photograph(name)
    assert image.shape == shape and image.dtype == np.uint8 and image.std() > 20


def test_a_changed_photograph_is_noticed(monkeypatch):
    monkeypatch.setitem(data._EMBEDDED, "coffee", ("coins.png", data._EMBEDDED["coffee"][1]))
    with pytest.raises(CorruptFile, match="sha256"):
        data.photograph("coffee")
    with pytest.raises(InvalidInput, match="astronaut, coffee"):
        data.photograph("lena")


def test_patches_are_crops_and_repeatable():
    images = [data.photograph("chelsea"), data.photograph("coffee")]
    crops = data.patches(images, 16, 40, seed=3)
    assert crops.shape == (40, 16, 16, 3) and crops.dtype == np.uint8
    assert np.array_equal(crops, data.patches(images, 16, 40, seed=3))
    assert not np.array_equal(crops, data.patches(images, 16, 40, seed=4))
    for crop in crops[:5]:
        windows = [np.lib.stride_tricks.sliding_window_view(image[:, :, 0], (16, 16)) for image in images]
        assert any((window == crop[:, :, 0]).all((2, 3)).any() for window in windows)
    whole = data.patches([images[0][:16, :16]], 16, 2)
    assert np.array_equal(whole[0], images[0][:16, :16])
    for bad in ([], [images[0][:8]], [images[0][:, :, 0]], [images[0], images[0][:, :, :1]]):
        with pytest.raises(InvalidInput):
            data.patches(bad, 16, 1)


@pytest.mark.parametrize("below", ["sets", "sets/cifar10", "cache/shvc_lib", "cache/shvc_lib/cifar10"])
def test_cifar10_in_the_binary_layout(home, below):
    batches = [tiny_cifar(3) for _ in range(5)]
    for k, batch in enumerate(batches, 1):
        write_binary(home / below / f"cifar-10-batches-bin/data_batch_{k}.bin", batch)
    write_binary(home / below / "cifar-10-batches-bin/test_batch.bin", test := tiny_cifar(2))
    assert np.array_equal(data.cifar10("train", 15), np.concatenate(batches))
    assert np.array_equal(data.cifar10("train", 4), np.concatenate(batches)[:4])
    assert np.array_equal(data.cifar10("test", 2), test)


def test_cifar10_in_the_mosaic_layout(home):
    batches = [tiny_cifar(8) for _ in range(5)]
    for k, batch in enumerate(batches, 1):
        write_mosaic(home / f"sets/cifar10/train_{k}of5.webp", batch)
    write_mosaic(home / "sets/cifar10/test_first1000.webp", test := tiny_cifar(12))
    assert np.array_equal(data.cifar10("train", 40), np.concatenate(batches))
    assert np.array_equal(data.cifar10("train", 9), np.concatenate(batches)[:9])
    assert np.array_equal(data.cifar10("test", 12), test)


def test_a_part_of_a_set_is_never_taken_for_the_whole(home):
    write_mosaic(home / "sets/cifar10/test_first1000.webp", tiny_cifar(12))
    for count in (None, 13):
        with pytest.raises(MissingData, match="only 12 of the 10000 images of cifar10 test are here"):
            data.cifar10("test", count)
    # A larger copy elsewhere serves the larger request.
    write_binary(home / "cache/shvc_lib/cifar10/cifar-10-batches-bin/test_batch.bin", larger := tiny_cifar(13))
    assert np.array_equal(data.cifar10("test", 13), larger)
    assert not data.available("cifar10") and not data.available("cifar10", "test")


def test_damaged_sets_are_named(home):
    path = home / "sets/cifar-10-batches-bin/test_batch.bin"
    write_binary(path, tiny_cifar(2))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CorruptFile, match="3073-byte"):
        data.cifar10("test", 2)
    (home / "sets/cifar10").mkdir()
    (home / "sets/cifar10/train_1of5.webp").write_bytes(b"RIFF")
    with pytest.raises(MissingData):
        data.cifar10("train", 1)
    save(home / "sets/cifar10/train_1of5.webp", np.zeros((64, 40, 3), np.uint8), lossless=True)
    with pytest.raises(CorruptFile, match="mosaic"):
        data.cifar10("train", 1)


@pytest.mark.parametrize("below", ["sets/kodak", "sets", "cache/shvc_lib/kodak"])
def test_kodak_in_both_places(home, below):
    images = [RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(24)]
    for k, image in enumerate(images, 1):
        save(home / below / f"kodim{k:02}.png", image)
    assert all(np.array_equal(a, b) for a, b in zip(data.kodak(), images, strict=True))
    assert len(data.kodak(3)) == 3 and data.available("kodak")
    os.remove(home / below / "kodim24.png")
    assert len(data.kodak(23)) == 23 and not data.available("kodak")
    with pytest.raises(MissingData, match="only 23 of the 24"):
        data.kodak()


@pytest.mark.parametrize("below", ["sets/bsds500", "sets/BSR/BSDS500/data/images",
                                   "cache/shvc_lib/bsds500/BSR/BSDS500/data/images"])
def test_bsds500_in_both_layouts(home, below):
    for split, number in (("train", 200), ("val", 100)):
        for k in range(number):
            save(home / below / split / f"{1000 + k}.jpg", np.full((8, 8, 3), k, np.uint8), quality=95)
    assert len(data.bsds500("train")) == 200 and len(data.bsds500("val")) == 100 and data.available("bsds500")
    assert abs(int(data.bsds500("val", 10)[9].mean()) - 9) <= 1  # in the order of the file names


def test_missing_sets_name_both_ways_in_one_line(home):
    for call in (data.cifar10, data.kodak, data.bsds500, lambda: data.cifar10("test", 5)):
        with pytest.raises(MissingData) as error:
            call()
        message = str(error.value)
        assert "shvc data get" in message and "SHVC_DATA" in message and "\n" not in message
    assert not any(data.available(name) for name in data.DATASETS)


def test_requests_that_no_copy_could_serve(home):
    for call in (lambda: data.cifar10("validation"), lambda: data.cifar10("train", 50_001), lambda: data.kodak(0),
                 lambda: data.kodak(-1), lambda: data.available("imagenet")):
        with pytest.raises(InvalidInput):
            call()


def test_the_table_says_what_is_where(home):
    for k in range(1, 25):
        save(home / f"sets/kodak/kodim{k:02}.png", np.zeros((4, 6, 3), np.uint8))
    write_mosaic(home / "sets/cifar10/test_first1000.webp", tiny_cifar(12))
    text = data.table()
    assert f"all: 24 of 24 in {home / 'sets/kodak'}" in text and "test: 12 of 10000" in text
    assert "train: not here (shvc data get bsds500)" in text
    for item in data.DATASETS.values():
        assert item.terms in text and item.home in text


def test_folder(tmp_path):
    image = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    save(tmp_path / "b.PNG", image)
    save(tmp_path / "a.png", image[::-1].copy())
    (tmp_path / "notes.txt").write_text("not an image")
    found = data.folder(tmp_path)
    assert [name for name, _ in found] == ["a.png", "b.PNG"] and np.array_equal(found[1][1], image)
    with pytest.raises(MissingData, match="no such folder"):
        data.folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="no image files"):
        data.folder(tmp_path / "empty")


needs_sets = pytest.mark.skipif(not os.environ.get("SHVC_DATA"), reason="SHVC_DATA is not set: no real data sets here")


@needs_sets
def test_the_real_cifar10():
    if not data.available("cifar10", "train"):
        pytest.skip("cifar10 is not under SHVC_DATA")
    train = data.cifar10("train")
    assert train.shape == (50_000, 32, 32, 3)
    # The channel means that everybody publishes for the training set.
    means = train.reshape(-1, 3).mean(0, dtype=np.float64)
    assert np.allclose(means, [125.306918046875, 122.950394140625, 113.86538318359375], rtol=0, atol=1e-9)
    assert data.cifar10("test", 1000).shape == (1000, 32, 32, 3)


@needs_sets
def test_the_real_kodak_and_bsds500():
    if not (data.available("kodak") and data.available("bsds500")):
        pytest.skip("kodak or bsds500 is not under SHVC_DATA")
    assert sorted({image.shape for image in data.kodak()}) == [(512, 768, 3), (768, 512, 3)]
    for split in ("train", "val"):
        assert {image.shape for image in data.bsds500(split, 20)} <= {(321, 481, 3), (481, 321, 3)}
