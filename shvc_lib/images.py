"""Image files in, arrays out, and back, without changing a pixel.

A lossless codec is only as honest as the way its pixels are read. Image libraries are generous: a 16-bit PNG is
quietly cut to 8 bits, an animation becomes its first frame, CMYK is turned into some RGB. Here 16 bits are read as
16 bits (`images16`), the others are refused by name, and what is accepted is exact. Writing is careful in the other
direction: the new file appears whole or not at all, nothing is overwritten unless asked, and a lossy suffix is refused.

One image type everywhere: a uint8 or uint16 array (H, W) for grey, (H, W, 3) for RGB, (H, W, 4) for RGBA.
"""

import io
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import images16
from .errors import CorruptFile, InvalidInput, MissingData, UnsupportedImage

READABLE = ("PNG", "PPM", "BMP", "TIFF", "WEBP", "JPEG", "GIF")
SUFFIXES = (".png", ".ppm", ".pgm", ".pnm", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".gif")
_WRITABLE = {  # suffix: (Pillow's name, the options that make it lossless, channels it can hold)
    ".png": ("PNG", {"optimize": True}, (1, 3, 4)),
    ".webp": ("WEBP", {"lossless": True, "exact": True, "method": 4}, (3, 4)),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}, (1, 3, 4)),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}, (1, 3, 4)),
    ".bmp": ("BMP", {}, (1, 3)),
    ".ppm": ("PPM", {}, (3,)),
    ".pgm": ("PPM", {}, (1,)),
}
_ORIENTATION = 274  # the tag
_TURNED_BACK = dict(zip(range(2, 9), (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
                                      Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270)))


def read_image(path):
    """The pixels of an image file as a uint8 array, or uint16 if it has 16 bits per sample, (H, W), (H, W, 3) or (H, W, 4).

    Reads PNG, PPM/PGM, BMP, TIFF, WebP, JPEG and single-frame GIF, of these with 16 bits PNG (needs imagecodecs, of the extra
    `shvc_lib[anchors]`), TIFF and PPM/PGM. Grey, RGB and RGBA come back as stored. Three more kinds are converted
    because the conversion is exact: a palette becomes RGB (RGBA if it has transparency), grey with alpha becomes RGBA,
    and black-and-white becomes grey with levels 0 and 255.
    Only pixels are read: colour profiles, gamma and the EXIF orientation are ignored (`not_kept` tells of them).

    Raises `MissingData` (no such file), `CorruptFile` (damaged, or no image at all) and `UnsupportedImage` (floating
    point, 32-bit samples, CMYK, animations, and every other kind, by name).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"{path}: " + ("this is a folder, not an image" if path.is_dir() else "no ordinary file" if path.exists() else "no such file"))
    try:
        data = path.read_bytes()
        if not data:
            raise CorruptFile(f"{path}: this file is empty")
        deep = images16.read(path, data, 2 * Image.MAX_IMAGE_PIXELS)
        if deep is not None:
            return deep
        with _opened(path) as image:
            _refuse_inexact(path, image)
            mode, transparent = image.mode, "transparency" in image.info
            turned = image.getexif().get(_ORIENTATION) if image.format == "TIFF" else None
            if turned in _TURNED_BACK:  # of TIFF files alone Pillow heeds it, as soon as it decodes them
                image.load()
                image = image.transpose(_TURNED_BACK[turned])
            if mode == "P":
                image = image.convert("RGBA" if transparent else "RGB")
            elif mode == "LA" or (mode == "RGB" and transparent):
                image = image.convert("RGBA")
            elif mode == "1":
                image = image.convert("L")
            return np.array(image)
    except UnidentifiedImageError:
        raise CorruptFile(f"{path}: not an image, or damaged at its start") from None
    except Image.DecompressionBombError:
        raise UnsupportedImage(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS} pixels") from None
    except (CorruptFile, UnsupportedImage):
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises on damaged files
        raise CorruptFile(f"{path}: damaged image file ({error})") from None


@contextmanager
def _opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of twice as many pixels it makes an error
        with Image.open(path) as image:
            yield image


def not_kept(path):
    """What an image file says beside its pixels on how to show them, a few words each: a list, empty where nothing is lost. (A profile of sRGB is
    what everybody assumes.)"""
    found = []
    try:
        with _opened(path) as image:
            if (turned := image.getexif().get(_ORIENTATION)) in _TURNED_BACK:
                found.append(f"the EXIF orientation {turned} (viewers show it turned)")
            profile = image.info.get("icc_profile")
            if profile and b"sRGB" not in profile.replace(b"\0", b""):
                found.append("its colour profile")
    except Exception:  # damaged EXIF data raise anything; what this cannot read, it cannot tell of
        pass
    return found


def _refuse_inexact(path, image):
    """Refuse what Pillow would read with a loss, before it decodes a pixel."""
    if image.format not in READABLE:
        raise UnsupportedImage(f"{path}: {image.format} files are not read; convert to PNG first")
    if getattr(image, "n_frames", 1) > 1:
        raise UnsupportedImage(f"{path}: {image.n_frames} frames (an animation or several pages); save one as PNG")
    # Pillow opens a 16-bit RGB file in mode "RGB" and drops the low bytes; only the decoder's arguments betray it.
    arguments = str([tile[3] for tile in image.tile])
    deep_pnm = image.format == "PPM" and any(number > 255 for tile in image.tile for number in _integers(tile[3]))
    deep_tiff = image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8
    if image.mode.startswith(("I", "F")) or ";16" in arguments or deep_pnm or deep_tiff:
        raise UnsupportedImage(f"{path}: more than 8 bits per sample, and of a kind that is not read; save it as 16-bit PNG first")
    if image.mode not in ("L", "RGB", "RGBA", "P", "LA", "1"):
        raise UnsupportedImage(f"{path}: colour mode {image.mode} is not supported; convert to RGB first")
    if image.mode in ("L", "1") and "transparency" in image.info:
        raise UnsupportedImage(f"{path}: grey with one transparent level is not supported; convert to RGBA first")


def _integers(arguments):
    return [item for item in arguments if isinstance(item, int)] if isinstance(arguments, tuple) else []


def write_image(path, image, force=False):
    """Write a uint8 or uint16 image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) losslessly; returns the path.

    The suffix chooses the format: .png (also when there is none), .webp (lossless), .tif, .bmp, .ppm or .pgm; with 16 bits
    .png (needs imagecodecs), .tif, .ppm or .pgm. The file appears whole or not at all. Raises `InvalidInput` for a
    suffix that is lossy or unknown or cannot hold these samples or channels, and for an existing file unless `force`;
    `UnsupportedImage` for any other array, and for a 16-bit PNG without imagecodecs.
    """
    path, suffix = Path(path), check_suffix(path)
    image = check_image(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    name, options, channels = _WRITABLE[suffix]
    if image.dtype == np.uint16 and suffix not in images16.SUFFIXES:
        raise InvalidInput(f"{path}: {suffix} cannot hold 16 bits per sample; use one of {' '.join(images16.SUFFIXES)}")
    if (1 if image.ndim == 2 else image.shape[2]) not in channels:
        raise InvalidInput(f"{path}: {suffix} cannot hold an image of shape {image.shape}; use .png")
    if image.dtype == np.uint16:
        return write_bytes(path, images16.encode(path, np.ascontiguousarray(image)), force)
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, name, **options)
    except (OSError, ValueError) as error:  # for example WebP's limit of 16383 pixels a side
        raise InvalidInput(f"{path}: cannot be written as {name} ({error})") from None
    return write_bytes(path, buffer.getvalue(), force)


def check_suffix(path):
    """The suffix, in small letters, of a path that an image can be written to without loss. Raises InvalidInput."""
    suffix = Path(path).suffix.lower() or ".png"
    if suffix not in _WRITABLE:
        raise InvalidInput(f"{path}: {suffix} is not a lossless format written here; use one of {' '.join(_WRITABLE)}")
    return suffix


def check_image(image, depths=(8, 16)):
    """The array itself if it is a uint8 or uint16 image (H, W) or (H, W, 1 | 3 | 4) with at least one pixel, else
    `UnsupportedImage` saying what it is instead. depths=(8,): uint8 only."""
    image = np.asarray(image)
    wanted = [f"uint{depth}" for depth in depths]
    if image.dtype not in wanted:
        raise UnsupportedImage(f"an image is a {' or '.join(wanted)} array here, this one is {image.dtype}")
    if not (image.ndim == 2 or image.ndim == 3 and image.shape[2] in (1, 3, 4)) or image.size == 0:
        raise UnsupportedImage(f"an image has shape (H, W) or (H, W, 1 | 3 | 4), this one has {image.shape}")
    return image


def check_target(path, force=False):
    """The Path, if a file may be written there. Raises InvalidInput for a folder, a path in no folder, a file or link that exists (unless `force`), and
    whatever is no ordinary file (a device, say), which is never replaced."""
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path}: this is a folder; name a file")
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path}: this is no ordinary file, and is not replaced by one")
    if os.path.lexists(path) and not force:
        raise InvalidInput(f"{path}: this file exists; say force=True (on the command line --force) to replace it")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"{path}: cannot be written, for its folder does not exist")
    return path


def write_bytes(path, data, force=False):
    """Write bytes so that the file appears whole or not at all; returns the path.

    The bytes go to a temporary neighbour first, which then takes the name in one step. Raises `InvalidInput` for what
    `check_target` refuses, and if the folder cannot be written.
    """
    path = check_target(path, force)
    temporary = path.with_name(f".shvc-{os.getpid()}-{crc32(os.fsencode(path.name)):08x}.part")  # however long the name is
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def turned(pixels, draw):
    """Pixels (..., H, W, C) mirrored as the number of a small image's draw says, a copy; its own inverse."""
    return np.ascontiguousarray(pixels[..., ::-1 if draw & 2 else 1, ::-1 if draw & 1 else 1, :])
