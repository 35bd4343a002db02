"""Image files with 16 bits per sample: what `images` reads and writes with them.

Pillow has no 16-bit colour: it opens such files as 8-bit ones and drops half of every sample. So they are recognised by their first bytes
before Pillow sees them. PNG is decoded and encoded by libpng (imagecodecs, of the extra `shvc_lib[anchors]`), TIFF by tifffile, which
comes with scikit-image (compressions other than Deflate need imagecodecs too), PGM and PPM here. Samples come back as stored: the
10 bits of a PGM with maximum 1023 are 0 ... 1023.
"""

import importlib
import io
import logging
import re
import struct

import numpy as np

from .errors import CorruptFile, UnsupportedImage

_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNM = re.compile(rb"P([56])G(\d+)G(\d+)G(\d+)\s".replace(b"G", rb"(?:\s|#[^\n]*\n)+"))
SUFFIXES = (".png", ".tif", ".tiff", ".ppm", ".pgm")  # what can be written


def read(path, data, most):
    """The pixels of a file with 16 bits per sample, uint16 (H, W), (H, W, 3) or (H, W, 4), or None if `data`, its bytes, is no such file.

    Grey with alpha becomes RGBA. most: the most pixels that are decoded. Raises CorruptFile, and UnsupportedImage for kinds that are not
    read, by name.
    """
    if data.startswith(_PNG) and data[24:25] == b"\x10":
        image = _read_png(path, data, most)
    elif data.startswith(_TIFF):
        image = _read_tiff(path, data, most)
    elif (header := _PNM.match(data[:4096])) and int(header[4]) > 255:
        image = _read_pnm(path, data, header)
    else:
        return None
    if image is not None and image.ndim == 3 and image.shape[2] < 3:
        image = image[:, :, 0] if image.shape[2] == 1 else image[:, :, [0, 0, 0, 1]]
    return None if image is None else np.ascontiguousarray(image, dtype=np.uint16)  # also the processor's own byte order


def _small(path, pixels, most):
    if pixels > most:
        raise UnsupportedImage(f"{path}: more than {most} pixels")


def _imagecodecs(what):
    try:
        return importlib.import_module("imagecodecs")
    except ImportError:
        raise UnsupportedImage(f"{what} needs imagecodecs: pip install 'shvc_lib[anchors]'") from None


def _read_png(path, data, most):
    width, height, _, colour = struct.unpack(">IIBB", data[16:26].ljust(10, b"\0"))
    _small(path, width * height, most)
    at, kinds = 8, set()
    while b"IEND" not in kinds:
        if at + 12 > len(data):
            raise CorruptFile(f"{path}: damaged image file (it ends before its last chunk)")
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        kinds.add(kind)
        at += 12 + length
    if at > len(data):
        raise CorruptFile(f"{path}: damaged image file (it ends within its last chunk)")
    if b"acTL" in kinds:
        raise UnsupportedImage(f"{path}: an animation; save one frame as PNG")
    if b"tRNS" in kinds:
        raise UnsupportedImage(f"{path}: 16 bits per sample with one transparent colour is not supported; convert to RGBA first")
    codecs = _imagecodecs(f"{path}: reading a PNG with 16 bits per sample")
    try:
        image = codecs.png_decode(data)
    except (codecs.PngError, ValueError) as error:
        raise CorruptFile(f"{path}: damaged image file ({error})") from None
    if image.dtype != np.uint16 or image.shape[:2] != (height, width) or image.size != height * width * {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 0):
        raise UnsupportedImage(f"{path}: the decoder made {image.dtype} {image.shape} of a PNG of colour type {colour}")
    return image


def _read_tiff(path, data, most):
    """Pixels (H, W, channels), or None for a file that does not have 16 bits per sample and goes to Pillow."""
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings about damage are our errors
    try:
        file = TiffFile(io.BytesIO(data))
        pages, page = len(file.pages), file.pages[0]
        depths, kinds = np.ravel(page.bitspersample), np.ravel(page.sampleformat)
    except Exception:  # tifffile has no exception of its own for most kinds of damage
        return None
    if depths.max() <= 8 or pages > 1:
        return None
    if (depths != 16).any() or (kinds != 1).any():
        what = "floating point" if (kinds == 3).any() else "signed" if (kinds == 2).any() else "unsigned"
        raise UnsupportedImage(f"{path}: {depths.max()} bits per sample ({what}) are not supported; only 8 and 16 bits per sample, unsigned")
    colour, extra = int(page.photometric), [int(kind) for kind in page.extrasamples]
    if colour not in (1, 2) or extra not in ([], [2]) or page.imagedepth != 1:
        raise UnsupportedImage(f"{path}: 16 bits per sample of photometric kind {colour} with extra samples {extra} are not supported; convert to "
                               "grey or RGB, perhaps with unassociated alpha, first")
    shape = (page.imagelength, page.imagewidth, {1: 1, 2: 3}[colour] + len(extra))
    _small(path, shape[0] * shape[1], most)
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts)]
    if not ends or max(ends) > len(data) or min(page.databytecounts) < 1 or page.compression == 1 and sum(page.databytecounts) < 2 * np.prod(shape):
        raise CorruptFile(f"{path}: damaged image file (its pixels are not all there)")  # tifffile would fill in zeros
    try:
        image = page.asarray()
    except Exception as error:
        if "imagecodecs" in str(error):
            _imagecodecs(f"{path}: a TIFF with 16 bits per sample and compression {int(page.compression)}")
        raise CorruptFile(f"{path}: damaged image file ({' '.join(str(error).split())})") from None
    image = np.moveaxis(image, 0, -1) if page.axes == "SYX" else image
    if image.dtype.newbyteorder("=") != np.uint16 or image.size != np.prod(shape):
        raise CorruptFile(f"{path}: damaged image file (it holds {image.dtype} {image.shape}, its header says {shape})")
    return image.reshape(shape)


def _read_pnm(path, data, header):
    channels = {b"5": 1, b"6": 3}[header[1]]
    width, height, top = (int(number) for number in header.groups()[1:])
    if top > 65535:
        raise CorruptFile(f"{path}: damaged image file (a maximum of {top})")
    size = 2 * width * height * channels
    if size == 0 or len(data) < header.end() + size:
        raise CorruptFile(f"{path}: damaged image file (its pixels are not all there)")
    if data[header.end() + size:].strip():
        raise UnsupportedImage(f"{path}: something follows the image (several pages?); save one as PNG")
    image = np.frombuffer(data, ">u2", size // 2, header.end()).reshape(height, width, channels)
    if image.max() > top:
        raise CorruptFile(f"{path}: damaged image file (a sample is {image.max()}, above its maximum of {top})")
    return image


def encode(path, image):
    """The bytes of a file for a uint16 image (H, W), (H, W, 3) or (H, W, 4), of the kind that the path's suffix names (see `SUFFIXES`)."""
    suffix = path.suffix.lower() or ".png"
    if suffix == ".png":
        return bytes(_imagecodecs(f"{path}: writing a PNG with 16 bits per sample").png_encode(image))
    if suffix in (".tif", ".tiff"):
        from tifffile import imwrite

        buffer = io.BytesIO()
        colour = {"photometric": "minisblack"} if image.ndim == 2 else {"photometric": "rgb", "planarconfig": "contig"}
        alpha = {"extrasamples": ["unassalpha"]} if image.shape[2:] == (4,) else {}
        imwrite(buffer, image, compression="zlib", predictor=True, metadata=None, software=False, **colour, **alpha)
        return buffer.getvalue()
    kind = b"P5" if image.ndim == 2 else b"P6"
    return b"%s\n%d %d\n65535\n" % (kind, image.shape[1], image.shape[0]) + image.astype(">u2").tobytes()
