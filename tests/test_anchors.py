"""The classical codecs: decoded, compared, counted, and refused by name when they cannot serve."""

import importlib

import numpy as np
import pytest

from shvc_lib import anchors, data
from shvc_lib.errors import InvalidInput, MissingData, ShvcError, UnsupportedImage
from shvc_lib.metrics import psnr

CROP = data.photograph("astronaut")[40:168, 180:340]
needs_extra = pytest.mark.skipif(not anchors._installed("imagecodecs"), reason="imagecodecs is not installed")
needs_ffmpeg = pytest.mark.skipif(not anchors._installed("imageio_ffmpeg"), reason="imageio-ffmpeg is not installed")
LOSSY = [pytest.param(name, marks={"imagecodecs": needs_extra, "imageio_ffmpeg": needs_ffmpeg}.get(entry.needs, ()))
         for name, entry in anchors.LOSSY.items()]


@needs_extra
@pytest.mark.parametrize("image", [CROP, CROP[:, :, 1], np.dstack([CROP, CROP[:, :, :1]]), CROP[:1, :1], CROP[:7, :33]],
                         ids=["rgb", "grey", "rgba", "one pixel", "odd size"])
def test_every_lossless_codec_is_lossless(image):
    measured = anchors.lossless(image, anchors.LOSSLESS)  # raises if one is not
    assert [one.name for one in measured] == list(anchors.LOSSLESS)
    for one in measured:
        assert one.bits_per_dim == 8 * one.bytes / image.size and one.seconds_encode > 0 and one.seconds_decode > 0


@needs_extra
def test_levels_that_wrap_around_survive_the_colour_step():
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    anchors.lossless(noise, anchors.LOSSLESS)


@needs_extra
@pytest.mark.parametrize("name, expected", [
    ("astronaut", {"PNG": 4.296, "JPEG-LS": 3.460, "JPEG 2000": 3.602}),
    ("chelsea", {"PNG": 4.315, "JPEG-LS": 3.082, "JPEG 2000": 3.176})])
def test_known_numbers(name, expected):
    """Bits per sub-pixel measured independently with the same codecs, driven directly."""
    measured = {one.name: one.bits_per_dim for one in anchors.lossless(data.photograph(name), list(expected))}
    assert measured == pytest.approx(expected, rel=0.004)


def test_a_codec_that_changes_one_pixel_is_caught(monkeypatch):
    def decode(coded, shape):
        image = anchors._open(coded)
        image[3, 4, 1] ^= 1
        return image

    monkeypatch.setitem(anchors._LOSSLESS, "PNG", (anchors._LOSSLESS["PNG"][0], decode, "PIL"))
    with pytest.raises(ShvcError, match="PNG calls itself lossless"):
        anchors.lossless(CROP, ["PNG"])
    monkeypatch.setitem(anchors._LOSSLESS, "PNG", (anchors._LOSSLESS["PNG"][0], lambda *_: CROP[:-1], "PIL"))
    with pytest.raises(ShvcError, match="PNG calls itself lossless"):
        anchors.lossless(CROP, ["PNG"])


@pytest.mark.parametrize("codec", LOSSY)
def test_lossy_codecs_trade_rate_for_quality(codec):
    entry = anchors.LOSSY[codec]
    points = []
    for quality in (entry.qualities[1], entry.qualities[3], entry.qualities[-1]):
        coded, decoded = anchors.lossy(CROP, codec, quality)
        assert decoded.shape == CROP.shape and decoded.dtype == np.uint8 and isinstance(coded, bytes)
        points.append((len(coded), psnr(CROP, decoded)))
    assert points == sorted(points) and points[0][1] > 20 and points[-1][1] > 33
    with pytest.raises(InvalidInput, match=f"{codec}.*{entry.worst}"):
        anchors.lossy(CROP, codec, 101)


@pytest.mark.parametrize("codec", LOSSY)
def test_lossy_codecs_keep_an_odd_size(codec):
    image = CROP[:57, :83]
    assert anchors.lossy(image, codec, anchors.LOSSY[codec].qualities[-1])[1].shape == image.shape


@needs_ffmpeg
def test_hevc_is_a_raw_intra_stream_of_the_right_colours():
    coded, decoded = anchors.lossy(CROP, "HEVC", 10)
    assert coded[:4] == b"\0\0\0\1" and coded[4] >> 1 & 63 == 32  # Annex B, a video parameter set comes first
    assert np.abs(decoded.astype(int) - CROP).mean((0, 1)).max() < 2  # no channel drifts
    assert len(anchors.lossy(np.full((64, 64, 3), 90, np.uint8), "HEVC", 40)[0]) < 200  # and no banner of the encoder's


def test_curve_is_the_mean_over_images():
    first, second = CROP[:96, :96], CROP[-96:, -96:]
    both = anchors.curve([first, second], "JPEG", [20, 80])
    one, two = anchors.curve(first, "JPEG", [20, 80]), anchors.curve([second], "JPEG", [20, 80])
    for key in ("rate", "psnr"):
        assert both[key] == pytest.approx(np.mean([one[key], two[key]], axis=0))
    assert both["quality"] == [20, 80] and np.isnan(both["ms_ssim"]).all()
    assert one["rate"][0] == 8 * len(anchors.lossy(first, "JPEG", 20)[0]) / 96**2
    large = anchors.curve(data.photograph("chelsea"), "JPEG", [30])
    assert 0.9 < large["ms_ssim"][0] < 1


def test_what_cannot_be_done_is_said(monkeypatch):
    for call in (lambda: anchors.lossless(CROP, ["FLIF"]), lambda: anchors.lossy(CROP, "BPG", 30),
                 lambda: anchors.curve(CROP, "BPG"), lambda: anchors.curve([], "JPEG"), lambda: anchors.curve(CROP, "JPEG", []),
                 lambda: anchors.lossy(CROP, "JPEG", float("nan"))):
        with pytest.raises(InvalidInput):
            call()
    for bad in (CROP[:, :, 0], CROP / 255.0):
        with pytest.raises(UnsupportedImage):
            anchors.lossy(bad, "JPEG", 50)

    real = importlib.import_module

    def absent(name, *rest):
        if name in ("imagecodecs", "imageio_ffmpeg"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.warns(UserWarning, match=r"JPEG-LS, JPEG 2000, JPEG XL not installed: pip install 'shvc_lib\[anchors\]'"):
        assert [one.name for one in anchors.lossless(CROP)] == ["PNG", "WebP"]
    for call in (lambda: anchors.lossless(CROP, ["JPEG XL"]), lambda: anchors.lossy(CROP, "JPEG XL", 70),
                 lambda: anchors.lossy(CROP, "HEVC", 30), lambda: anchors.curve(CROP, "JPEG 2000")):
        with pytest.raises(MissingData, match="anchors"):
            call()
