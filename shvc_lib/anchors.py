"""Classical codecs, to be held against on the same images in the same run.

Published numbers for PNG or JPEG XL belong to some version, some effort, some set of images. So the book measures:
each codec here encodes the image, decodes its own bytes, and only then reports their number. A codec that calls itself
lossless is not believed; its output is compared. All bits here are *actual*: 8 times the length of the file, headers
included, which for HEVC is the raw bitstream without a container.

Lossless: PNG, WebP, JPEG-LS, JPEG 2000, JPEG XL. Lossy: JPEG, WebP, JPEG 2000, JPEG XL, AVIF, HEVC intra. PNG, WebP, JPEG
and AVIF come with Pillow, the others with the extra `pip install 'shvc_lib[anchors]'` (imagecodecs, imageio-ffmpeg).
Taught in chapter 1.
"""

import importlib
import io
import time
import warnings
from dataclasses import dataclass
from typing import Callable

import numpy as np
from PIL import Image

from . import hevc
from .errors import InvalidInput, MissingData, ShvcError, UnsupportedImage
from .images import check_image
from .metrics import MS_SSIM_SMALLEST, bits_per_dim, ms_ssim, psnr


@dataclass(frozen=True)
class Anchor:
    """What a lossless codec made of one image: `bits_per_dim` is actual bits per sub-pixel."""

    name: str
    bytes: int
    bits_per_dim: float
    seconds_encode: float
    seconds_decode: float


@dataclass(frozen=True)
class Lossy:
    """A lossy codec: what its `quality` means and its range, its chroma sampling, and qualities that make a good curve."""

    encode: Callable  # (image, quality) -> bytes
    decode: Callable  # (bytes, shape) -> image
    needs: str
    worst: float
    best: float
    quality: str
    chroma: str
    qualities: tuple


def _pillow(image, name, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return buffer.getvalue()


def _open(data, *_):
    return np.array(Image.open(io.BytesIO(data)))


def _as_colour(image):
    """WebP knows no grey: three equal planes stand in for one."""
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _webp(image, **effort):
    """For lossless WebP `quality` is the effort spent (Pillow's default 80), and 100 with method 6 tries everything."""
    return _pillow(_as_colour(image), "WEBP", lossless=True, exact=True, **effort)


def _from_colour(data, shape):
    return _open(data)[:, :, 0] if len(shape) == 2 else _open(data)


def _imagecodecs(name):
    """A function of imagecodecs, imported when first called."""
    return lambda *arguments, **options: getattr(importlib.import_module("imagecodecs"), name)(*arguments, **options)


def _differences(image, sign):
    """R, G, B -> R - G + 128, G, B - G + 128 modulo 256 (sign -1), or back (sign +1)."""
    out = image.copy()
    if image.ndim == 3:
        out[:, :, [0, 2]] += np.uint8(sign % 256) * image[:, :, 1:2] + np.uint8(128)  # uint8 wraps around, on purpose
    return out


def _jpegls(image):
    """JPEG-LS has no colour transform: the difference planes are three streams, each after its length in 4 bytes."""
    planes = _differences(image, -1).reshape(*image.shape[:2], -1).transpose(2, 0, 1)
    streams = [_imagecodecs("jpegls_encode")(np.ascontiguousarray(plane)) for plane in planes]
    return b"".join(len(stream).to_bytes(4, "big") + stream for stream in streams)


def _jpegls_decode(data, shape):
    planes = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        planes.append(_imagecodecs("jpegls_decode")(data[4:end]))
        data = data[end:]
    return _differences(np.stack(planes, axis=-1).reshape(shape), 1)


def _jpegxl(image, effort):
    return _imagecodecs("jpegxl_encode")(image, lossless=True, effort=effort, usecontainer=False, numthreads=1)


_jpeg2k, _jpegxl_lossy, _jpegxl_decode = (_imagecodecs(name) for name in ("jpeg2k_encode", "jpegxl_encode", "jpegxl_decode"))
_LOSSLESS = {  # name: (encode(image) -> bytes, decode(bytes, shape) -> image, the package that must be installed)
    "PNG": (lambda x: _pillow(x, "PNG", optimize=True), _open, "PIL"),
    "WebP": (lambda x: _webp(x, method=4), _from_colour, "PIL"),
    "WebP slowest": (lambda x: _webp(x, method=6, quality=100), _from_colour, "PIL"),
    "JPEG-LS": (_jpegls, _jpegls_decode, "imagecodecs"),
    "JPEG 2000": (lambda x: _jpeg2k(x, level=0, reversible=True, codecformat="j2k", numthreads=1),
                  lambda data, _: _imagecodecs("jpeg2k_decode")(data), "imagecodecs"),
    "JPEG XL": (lambda x: _jpegxl(x, 7), lambda data, _: _jpegxl_decode(data), "imagecodecs"),
    "JPEG XL effort 9": (lambda x: _jpegxl(x, 9), lambda data, _: _jpegxl_decode(data), "imagecodecs"),
}
LOSSLESS = tuple(_LOSSLESS)  # every name that `lossless` knows
QUICK = ("PNG", "WebP", "JPEG-LS", "JPEG 2000", "JPEG XL")  # what it measures unasked: each under a second a photograph


def _installed(package):
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def lossless(image, codecs=None):
    """Measure lossless codecs on a uint8 image (H, W), (H, W, 3) or (H, W, 4): a list of `Anchor`.

    codecs: names from `LOSSLESS`; by default `QUICK`, without those that are not installed (a warning names them).
    JPEG-LS gets the planes R - G, G, B - G, as it has no colour transform of its own. Raises `InvalidInput`
    for an unknown name, `MissingData` for a codec asked for that is not installed, and `ShvcError` if what a codec
    decodes is not the image.
    """
    image = check_image(image, depths=(8,))
    names = QUICK if codecs is None else tuple(codecs)
    if unknown := [name for name in names if name not in _LOSSLESS]:
        raise InvalidInput(f"no lossless codec {unknown[0]!r}; there are {', '.join(LOSSLESS)}")
    absent = [name for name in names if not _installed(_LOSSLESS[name][2])]
    if absent:
        message = f"{', '.join(absent)} not installed: pip install 'shvc_lib[anchors]'"
        if codecs is not None:
            raise MissingData(message)
        warnings.warn(message, stacklevel=2)
    return [_measure(name, image) for name in names if name not in absent]


def _measure(name, image):
    encode, decode, _ = _LOSSLESS[name]
    start = time.perf_counter()
    data = bytes(encode(image))
    middle = time.perf_counter()
    decoded = decode(data, image.shape)
    end = time.perf_counter()
    if not np.array_equal(np.reshape(decoded, image.shape) if np.size(decoded) == image.size else decoded, image):
        raise ShvcError(f"{name} calls itself lossless, but what it decoded is not this image")
    return Anchor(name, len(data), bits_per_dim(8 * len(data), image), middle - start, end - middle)


def _jpegxl_distance(quality):
    """libjxl's map from a JPEG-like quality to its own distance (1: just noticeable, 0: lossless), for 30 to 99."""
    return 0.1 + (100 - quality) * 0.09


LOSSY = {
    "JPEG": Lossy(lambda x, q: _pillow(x, "JPEG", quality=q, optimize=True), _open, "PIL",
                  1, 100, "libjpeg's quality", "4:2:0", (5, 10, 20, 35, 50, 65, 80, 90, 95)),
    "JPEG standard tables": Lossy(lambda x, q: _pillow(x, "JPEG", quality=q), _open, "PIL",
                                  1, 100, "libjpeg's quality, without Huffman tables of the image's own", "4:2:0", (5, 10, 20, 35, 50, 65, 80, 90, 95)),
    "JPEG 4:4:4": Lossy(lambda x, q: _pillow(x, "JPEG", quality=q, optimize=True, subsampling="4:4:4"), _open, "PIL",
                        1, 100, "libjpeg's quality", "4:4:4", (5, 10, 20, 35, 50, 65, 80, 90, 95)),
    "WebP": Lossy(lambda x, q: _pillow(x, "WEBP", quality=q, method=4), _open, "PIL",
                  0, 100, "libwebp's quality", "4:2:0", (0, 10, 25, 50, 75, 90, 95)),
    "AVIF": Lossy(lambda x, q: _pillow(x, "AVIF", quality=q, speed=6, subsampling="4:4:4", max_threads=1), _open, "PIL",
                  0, 100, "libavif's quality", "4:4:4", (10, 25, 40, 55, 70, 80, 90)),
    "JPEG 2000": Lossy(lambda x, q: _jpeg2k(x, level=q, reversible=False, codecformat="j2k", numthreads=1),
                       lambda data, _: _imagecodecs("jpeg2k_decode")(data), "imagecodecs",
                       10, 80, "the PSNR aimed at, in decibels", "4:4:4", (24, 27, 30, 33, 36, 40, 44)),
    "JPEG XL": Lossy(lambda x, q: _jpegxl_lossy(x, distance=_jpegxl_distance(q), effort=7, usecontainer=False, numthreads=1),
                     lambda data, _: _jpegxl_decode(data), "imagecodecs",
                     30, 99, "JPEG-like quality", "4:4:4 (XYB)", (30, 40, 55, 70, 80, 90, 95)),
    "HEVC": Lossy(hevc.encode, hevc.decode, "imageio_ffmpeg",
                  51, 1, "the quantiser step QP (smaller is better)", "4:4:4", (47, 42, 37, 32, 27, 22, 17)),
}


def _lossy_entry(codec):
    if codec not in LOSSY:
        raise InvalidInput(f"no lossy codec {codec!r}; there are {', '.join(LOSSY)}")
    if not _installed(LOSSY[codec].needs):
        raise MissingData(f"{codec} is not installed: pip install 'shvc_lib[anchors]'")
    return LOSSY[codec]


def lossy(image, codec, quality):
    """(data: bytes, reconstruction: uint8 of the image's shape) of a lossy codec from `LOSSY` on an image (H, W, 3).

    The meaning of `quality` is the codec's own: see `LOSSY[codec].quality`. The reconstruction is decoded from the
    bytes. Raises `InvalidInput` (unknown codec, quality out of range), `UnsupportedImage` (not RGB), `MissingData`
    (codec not installed).
    """
    image, entry = check_image(image, depths=(8,)), _lossy_entry(codec)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UnsupportedImage(f"lossy codecs are measured on RGB images (H, W, 3), this one has shape {image.shape}")
    if not min(entry.worst, entry.best) <= quality <= max(entry.worst, entry.best):
        raise InvalidInput(f"{codec}: {entry.quality} goes from {entry.worst} (worst) to {entry.best}, got {quality}")
    data = bytes(entry.encode(np.ascontiguousarray(image), quality))
    decoded = np.asarray(entry.decode(data, image.shape))
    if decoded.shape != image.shape or decoded.dtype != np.uint8:
        raise ShvcError(f"{codec} decoded to {decoded.dtype} {decoded.shape}, not to an image of shape {image.shape}")
    return data, decoded


def curve(images, codec, qualities=None):
    """The rate-distortion curve of a lossy codec: means over one RGB image or a list of them.

    Returns a dict of lists, one entry per quality (by default `LOSSY[codec].qualities`): "quality", "rate" (actual bits
    per pixel, not per sub-pixel), "psnr" (decibels), "ms_ssim" (NaN if an image is smaller than 161 pixels).
    """
    qualities = list(_lossy_entry(codec).qualities if qualities is None else qualities)
    images = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
    if not images or not qualities:
        raise InvalidInput("curve needs at least one image and one quality")
    points = [np.mean([_point(image, codec, quality) for image in images], axis=0).tolist() for quality in qualities]
    rate, quality_psnr, similarity = map(list, zip(*points))
    return {"quality": qualities, "rate": rate, "psnr": quality_psnr, "ms_ssim": similarity}


def _point(image, codec, quality):
    data, decoded = lossy(image, codec, quality)
    large = min(image.shape[:2]) >= MS_SSIM_SMALLEST
    return (8 * len(data) / (image.shape[0] * image.shape[1]), psnr(image, decoded),
            ms_ssim(image, decoded) if large else np.nan)
