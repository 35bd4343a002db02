"""Reading and writing image files: exact, or refused by name."""

import io
import os

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from shvc_lib.errors import CorruptFile, InvalidInput, MissingData, UnsupportedImage
from shvc_lib.images import check_image, not_kept, read_image, write_bytes, write_image

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (13, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 9, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (13, 9, 4), dtype=np.uint8)
RGBA[3:6, :, 3] = 0  # a codec may drop the colours of transparent pixels; a lossless one must not


@pytest.mark.parametrize("suffix", [".png", "", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm"])
@pytest.mark.parametrize("image", [GREY, RGB, RGBA], ids=["grey", "rgb", "rgba"])
def test_write_then_read_changes_no_pixel(tmp_path, suffix, image):
    path = tmp_path / f"image{suffix}"
    cannot = {".webp": [2], ".bmp": [4], ".ppm": [2, 4], ".pgm": [3, 4]}.get(suffix, [])
    if (2 if image.ndim == 2 else image.shape[2]) in cannot:
        with pytest.raises(InvalidInput, match="cannot hold"):
            write_image(path, image)
        assert not list(tmp_path.iterdir())
    else:
        assert write_image(path, image) == path
        assert np.array_equal(read_image(path), image)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_one_channel_is_grey(tmp_path):
    assert np.array_equal(read_image(write_image(tmp_path / "a.png", GREY[:, :, None])), GREY)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jxl", ".avif", ".gif", ".txt"])
def test_lossy_and_unknown_suffixes_are_refused(tmp_path, suffix):
    with pytest.raises(InvalidInput, match="not a lossless format"):
        write_image(tmp_path / f"a{suffix}", RGB)


def test_nothing_is_overwritten_unless_forced(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(b"precious")
    with pytest.raises(InvalidInput, match="exists.*--force"):
        write_image(path, RGB)
    assert path.read_bytes() == b"precious"
    write_image(path, RGB, force=True)
    assert np.array_equal(read_image(path), RGB)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(InvalidInput, match="No space left"):
        write_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_writing_into_nowhere_is_one_line(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_image(tmp_path / "no" / "such" / "a.png", RGB)
    with pytest.raises(InvalidInput, match="folder"):
        write_bytes(tmp_path, b"")


@pytest.mark.parametrize("bad", [RGB.astype(np.float32), RGB.astype(np.int16), RGB.astype(np.uint32), RGB[0, 0], RGB[:, :, :2], RGB[:0]],
                         ids=["float", "int16", "uint32", "1-D", "two channels", "empty"])
def test_other_arrays_are_refused(bad, tmp_path):
    with pytest.raises(UnsupportedImage):
        check_image(bad)
    with pytest.raises(UnsupportedImage):
        write_image(tmp_path / "a.png", bad)


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_exact_conversions(tmp_path):
    palette = Image.fromarray(GREY).copy()
    palette = Image.frombytes("P", (9, 13), GREY.tobytes())
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    palette.putpalette(colours.tobytes())
    assert np.array_equal(read_image(save(tmp_path / "p.png", palette)), colours[GREY])
    assert np.array_equal(read_image(save(tmp_path / "p.gif", palette)), colours[GREY])
    transparent = read_image(save(tmp_path / "pt.png", palette, transparency=bytes(range(256))))
    assert np.array_equal(transparent, np.dstack([colours[GREY], GREY]))
    grey_alpha = np.dstack([GREY, GREY[::-1]])
    expected = np.dstack([GREY, GREY, GREY, GREY[::-1]])
    assert np.array_equal(read_image(save(tmp_path / "la.png", Image.fromarray(grey_alpha))), expected)
    assert np.array_equal(read_image(save(tmp_path / "1.png", Image.fromarray(GREY > 127))), (GREY > 127) * 255)
    keyed = read_image(save(tmp_path / "key.png", Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[2, 3])))
    assert np.array_equal(keyed[:, :, :3], RGB) and keyed[2, 3, 3] == 0 and keyed[0, 0, 3] == 255


def refused():
    yield "32-bit tiff", "32 bits per sample", ".tif", lambda path: Image.new("I", (4, 5)).save(path)
    yield "float tiff", "32 bits per sample .floating", ".tif", lambda path: Image.new("F", (4, 5)).save(path)
    yield "cmyk jpeg", "mode CMYK", ".jpg", lambda path: Image.new("CMYK", (4, 5)).save(path)
    frames = [Image.new("RGB", (4, 5), colour) for colour in ("red", "green", "blue")]
    for suffix in (".gif", ".png", ".webp"):
        yield f"animated {suffix}", "3 frames", suffix, \
            lambda path: frames[0].save(path, save_all=True, append_images=frames[1:], duration=10)
    yield "jpeg 2000", "JPEG2000 files are not read", ".jp2", lambda path: Image.fromarray(RGB).save(path)
    yield "transparent grey", "transparent level", ".png", lambda path: Image.fromarray(GREY).save(path, transparency=3)


@pytest.mark.parametrize("message, suffix, make", [case[1:] for case in refused()], ids=[case[0] for case in refused()])
def test_inexact_kinds_are_refused_by_name(tmp_path, message, suffix, make):
    path = tmp_path / f"image{suffix}"
    make(path)
    with pytest.raises(UnsupportedImage, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damaged_and_missing_files(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    whole = buffer.getvalue()
    flipped = bytearray(whole)
    flipped[60] ^= 255
    cases = {"empty": b"", "text": b"hello, world", "cut": whole[:100], "flipped": bytes(flipped),
             "jpeg": b"\xff\xd8\xff\xe0" + bytes(50), "half": whole[: len(whole) // 2]}
    for name, content in cases.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        with pytest.raises(CorruptFile) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(MissingData, match="no such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(MissingData, match="folder"):
        read_image(tmp_path)


def test_a_link_to_nowhere_is_something_that_exists(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InvalidInput, match="exists"):
        write_image(link, RGB)
    assert link.is_symlink() and not link.exists()


def test_what_is_no_ordinary_file_is_never_replaced(tmp_path):
    """Else --force and /dev/null would leave a machine without one."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="ordinary"):
        write_bytes(tmp_path / "pipe", b"new", force=True)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(MissingData, match="ordinary"):
        read_image(tmp_path / "pipe")


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    assert np.array_equal(read_image(write_image(path, RGB)), RGB) and list(tmp_path.iterdir()) == [path]


def test_an_empty_file_is_called_so(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(CorruptFile, match="a.png: .*empty"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_pixels_are_read_as_they_are_stored_whatever_the_orientation(tmp_path, depth, orientation):
    path, image = tmp_path / "a.tif", RGB if depth == 8 else RGB.astype(np.uint16) * 200
    tifffile.imwrite(path, image, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    assert np.array_equal(read_image(path), image)
    assert any("orientation" in what for what in not_kept(path)) == (orientation > 1)


def test_what_is_not_kept_is_told(tmp_path):
    wide, narrow = (ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes() for kind in ("LAB", "sRGB"))
    for name, options, said in (("a.png", {}, []), ("b.png", {"icc_profile": narrow}, []), ("c.png", {"icc_profile": wide}, ["its colour profile"])):
        Image.fromarray(RGB).save(tmp_path / name, **options)
        assert not_kept(tmp_path / name) == said
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(RGB).save(tmp_path / "d.jpg", exif=turned)
    assert not_kept(tmp_path / "d.jpg") == ["the EXIF orientation 6 (viewers show it turned)"]
    assert not_kept(tmp_path / "nothing.png") == []


def test_large_images_are_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    """Above Pillow's limit it warns of bombs, above twice that all readers here refuse."""
    path = write_image(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)
    assert np.array_equal(read_image(path), GREY) and not_kept(path) == [] and not recwarn.list
