"""Image files with 16 bits per sample, written and read: exact, or refused by name."""

import io
import struct
import subprocess
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shvc_lib import images16
from shvc_lib.errors import CorruptFile, InvalidInput, UnsupportedImage
from shvc_lib.images import check_image, read_image, write_image

imagecodecs = pytest.importorskip("imagecodecs")
RNG = np.random.default_rng(7)
GREY, GREY_ALPHA, RGB, RGBA = (RNG.integers(0, 65536, (13, 9, *channels), dtype=np.uint16) for channels in [(), (2,), (3,), (4,)])
RGBA[3:6, :, 3] = 0
KINDS = {"grey": GREY, "grey and alpha": GREY_ALPHA, "rgb": RGB, "rgba": RGBA}


def expected(image):
    return image[:, :, [0, 0, 0, 1]] if image.shape[2:] == (2,) else image


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(image, extra=b"", colour=None):
    """A 16-bit PNG by hand, its rows filtered in turn by all five filters: for readers that may not be checked by their own writer."""
    height, width, channels = image.reshape(*image.shape[:2], -1).shape
    size, above, rows = 2 * channels, np.zeros(2 * width * channels, dtype=np.int64), b""
    for i, row in enumerate(image.astype(">u2")):
        row = np.frombuffer(row.tobytes(), np.uint8).astype(np.int64)
        left, corner = (np.concatenate([np.zeros(size, dtype=np.int64), one])[:row.size] for one in (row, above))
        slope = left + above - corner
        near = np.stack([abs(slope - left), abs(slope - above), abs(slope - corner)]).argmin(0)  # argmin takes the first of equals, as Paeth does
        guess = [0, left, above, (left + above) // 2, np.choose(near, [left, above, corner])][i % 5]
        rows += bytes([i % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def tiff(image, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **{"photometric": "rgb" if image.shape[2:] in ((3,), (4,)) else "minisblack", "planarconfig": "contig", **options})
    return buffer.getvalue()


def pnm(image, top=65535, comment=b""):
    return b"P%d\n%s%d %d\n%d\n" % (image.ndim + 3, comment, image.shape[1], image.shape[0], top) + image.astype(">u2").tobytes()


def read(tmp_path, data, suffix):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(data)
    return read_image(path)


@pytest.mark.parametrize("suffix", [".png", "", ".tif", ".tiff", ".ppm", ".pgm"])
@pytest.mark.parametrize("image", [GREY, RGB, RGBA, GREY[:1, :1], RGB[:1], RGBA[:, :1]], ids=["grey", "rgb", "rgba", "one pixel", "row", "column"])
def test_write_then_read_changes_no_pixel(tmp_path, suffix, image):
    path = tmp_path / f"image{suffix}"
    cannot = {".ppm": [2, 4], ".pgm": [3, 4]}.get(suffix, [])
    if (2 if image.ndim == 2 else image.shape[2]) in cannot:
        with pytest.raises(InvalidInput, match="cannot hold"):
            write_image(path, image)
        assert not list(tmp_path.iterdir())
    else:
        assert write_image(path, image) == path
        back = read_image(path)
        assert back.dtype == np.uint16 and np.array_equal(back, image) and back.flags.c_contiguous
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        with pytest.raises(InvalidInput, match="exists"):
            write_image(path, image)


def test_strided_arrays_and_one_channel(tmp_path):
    for suffix in images16.SUFFIXES:
        image = GREY[::2, ::-1] if suffix == ".pgm" else RGB[::2, ::-1]
        assert np.array_equal(read_image(write_image(tmp_path / f"a{suffix}", image)), image)
    assert np.array_equal(read_image(write_image(tmp_path / "b.png", GREY[:, :, None])), GREY)


@pytest.mark.parametrize("suffix", [".bmp", ".webp"])
def test_formats_of_8_bits_refuse_16(tmp_path, suffix):
    with pytest.raises(InvalidInput, match="cannot hold 16 bits") as error:
        write_image(tmp_path / f"a{suffix}", RGB)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_encoders_come_back_exactly(tmp_path, kind):
    image = KINDS[kind]
    files = [(png(image), ".png"), (bytes(imagecodecs.spng_encode(image)), ".png")]
    files += [(tiff(image, extrasamples=["unassalpha"] if image.shape[2:] in ((2,), (4,)) else None, **options), ".tif") for options in
              [{}, {"byteorder": ">"}, {"bigtiff": True}, {"compression": "lzw"}, {"compression": "zlib", "predictor": True}, {"rowsperstrip": 2},
               {"tile": (16, 16), "byteorder": ">"}]]
    if kind in ("grey", "rgb"):
        files.append((pnm(image, comment=b"# a comment\n"), ".pnm"))
    if kind == "grey":
        buffers = {name: io.BytesIO() for name in ("PNG", "TIFF", "PPM")}
        for name, buffer in buffers.items():
            Image.fromarray(image).save(buffer, name)
            files.append((buffer.getvalue(), ".x"))
    for data, suffix in files:
        back = read(tmp_path, data, suffix)
        assert back.dtype == np.uint16 and np.array_equal(back, expected(image))


def test_planes_apart_and_maximum_below_65535(tmp_path):
    assert np.array_equal(read(tmp_path, tiff(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"), ".tif"), RGB)
    assert np.array_equal(read(tmp_path, pnm(GREY >> 6, 1023), ".pgm"), GREY >> 6)  # as stored, not stretched


def test_ffmpeg_agrees_about_the_byte_order(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    for suffix, kind in [(".png", "rgb48be"), (".tiff", "rgb48le"), (".ppm", "rgb48be")]:
        path = tmp_path / f"a{suffix}"
        subprocess.run([ffmpeg, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "9x13", "-i", "-", "-frames:v", "1", "-pix_fmt", kind, path],
                       input=RGB.astype("<u2").tobytes(), check=True)
        assert np.array_equal(read_image(path), RGB)


def refused():
    yield "float tiff", "32 bits per sample .floating", ".tif", tiff(RGB.astype(np.float32))
    yield "half-float tiff", "16 bits per sample .floating", ".tif", tiff(RGB.astype(np.float16))
    yield "32-bit tiff", "32 bits per sample", ".tif", tiff(GREY.astype(np.uint32))
    yield "signed tiff", "signed", ".tif", tiff(GREY.astype(np.int16))
    yield "cmyk tiff", "photometric kind 5", ".tif", tiff(RGBA, photometric="separated")
    yield "white is 0", "photometric kind 0", ".tif", tiff(GREY, photometric="miniswhite")
    yield "premultiplied alpha", "extra samples", ".tif", tiff(RGBA, extrasamples=["assocalpha"])
    yield "five channels", "extra samples", ".tif", tiff(RNG.integers(0, 65536, (5, 4, 5), dtype=np.uint16), photometric="rgb", extrasamples=[2, 0])
    yield "pages", "2 frames", ".tif", tiff(np.stack([GREY, GREY]), planarconfig=None)
    yield "transparent colour", "one transparent colour", ".png", png(RGB, chunk(b"tRNS", bytes(6)))
    yield "animation", "animation", ".png", png(RGB, chunk(b"acTL", bytes(8)))
    yield "two pnm", "follows", ".pgm", pnm(GREY) + pnm(GREY)
    yield "text pnm", "more than 8 bits", ".pgm", b"P2 2 1 65535\n1 65535\n"


@pytest.mark.parametrize("message, suffix, data", [case[1:] for case in refused()], ids=[case[0] for case in refused()])
def test_other_kinds_are_refused_by_name(tmp_path, message, suffix, data):
    with pytest.raises(UnsupportedImage, match=message) as error:
        read(tmp_path, data, suffix)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("image, data", [(RGB, png(RGB)), (RGB, tiff(RGB)), (RGB, tiff(RGB, compression="zlib")), (RGB, tiff(RGB, rowsperstrip=2)), (RGB, pnm(RGB))],
                         ids=["png", "tiff", "deflate tiff", "strips tiff", "ppm"])
def test_damaged_files_raise_and_are_never_filled_up(tmp_path, image, data):
    for length in sorted({*range(9, len(data) - 1, 41), len(data) - 1}):
        try:
            back = read(tmp_path, data[:length], ".x")
        except (CorruptFile, UnsupportedImage) as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(back, image)  # only what lies behind the pixels is missing
    for position in range(0, len(data), 13):
        changed = bytearray(data)
        changed[position] ^= 129
        try:
            read(tmp_path, bytes(changed), ".x")
        except (CorruptFile, UnsupportedImage) as error:
            assert "\n" not in str(error)


def test_a_strip_left_out_is_not_filled_with_zeros(tmp_path):
    """TIFF allows strips of no bytes, which readers fill in; here the pixels must be in the file."""
    data = bytearray(tiff(RGB, rowsperstrip=2))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        counts = file.pages[0].tags["StripByteCounts"]
    data[counts.valueoffset:counts.valueoffset + 2] = bytes(2)
    with pytest.raises(CorruptFile, match="not all there"):
        read(tmp_path, bytes(data), ".tif")


def test_a_sample_above_the_maximum_is_damage(tmp_path):
    with pytest.raises(CorruptFile, match="above its maximum"):
        read(tmp_path, pnm(GREY, 1023), ".pgm")


def test_huge_sizes_are_refused_before_anything_is_decoded(tmp_path):
    data = bytearray(png(GREY))
    data[16:24] = struct.pack(">II", 1 << 20, 1 << 20)
    with pytest.raises(UnsupportedImage, match="more than .* pixels"):
        read(tmp_path, bytes(data), ".png")


def test_without_imagecodecs_png_is_refused_by_name_and_the_rest_works(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    for call in (lambda: read(tmp_path, png(RGB), ".png"), lambda: write_image(tmp_path / "new.png", RGB)):
        with pytest.raises(UnsupportedImage, match="needs imagecodecs: pip install"):
            call()
    assert np.array_equal(read_image(write_image(tmp_path / "a.ppm", RGB)), RGB)


def test_check_image_can_ask_for_8_bits():
    assert check_image(RGB) is RGB and check_image(RGB.astype(np.uint8), depths=(8,)).dtype == np.uint8
    with pytest.raises(UnsupportedImage, match="uint8 array here, this one is uint16"):
        check_image(RGB, depths=(8,))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from([(), (1,), (3,), (4,)]), st.integers(0, 2**32 - 1), st.sampled_from([".png", ".tif"]))
def test_any_small_image(tmp_path_factory, height, width, channels, seed, suffix):
    image = np.random.default_rng(seed).choice([0, 1, 255, 256, 65535], (height, width, *channels)).astype(np.uint16)
    back = read_image(write_image(tmp_path_factory.mktemp("any") / f"a{suffix}", image))
    assert np.array_equal(back, image.reshape(back.shape))
