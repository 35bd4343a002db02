"""Image in, bytes out, and back: the codec that the command line and the book call.

    data = shvc_lib.encode(image)           # uint8 or uint16: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
    assert (shvc_lib.decode(data) == image).all()
    corner = shvc_lib.decode(data, crop=(0, 0, 64, 64))          # x, y, width, height: only the tiles that it touches are decoded
    small = shvc_lib.encode(image, model="pln", quality=2)       # with loss, by a model of `lossy`

Lossless for every image but with a lossy model: where a model would need more bytes than the pixels themselves (noise), the pixels are stored
as they are. A damaged file raises; it never gives other pixels. Taught in chapters 1 and 7.
"""

import math
from contextlib import nullcontext
from zlib import crc32

import numpy as np

from . import coders, container, container_small, container_tiles, lossy, models, parallel
from .coding.ahead import on_threads
from .coding.bitstack import BitStack, compiled_for
from .coding.checks import integer
from .errors import CorruptFile, InvalidInput, UnknownModel
from .images import check_image, turned

_FEW_PIXELS = 1 << 18  # up to here, "auto" tries shvc-arib-photo: where there are more, fits to the image have always been smaller
MOST_DECODED = 1 << 27  # bytes of pixels that `decode` makes room for unless it is told that more are expected
_LOSSY_STEP, _LOSSY_ROOM = 64, 8  # what lossy models round sides up to, and how much more memory they take for a pixel


def encode(image, model="auto", quality=None, tile=None, workers=None, progress=False):
    """The bytes of a .shvc file holding `image`, a uint8 or uint16 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    model: `linear`, a network of `coders.names()` (8 bits), a lossy model, or "auto": the smallest file of those without loss that suit the image.
    quality: for lossy models, 1 (the smallest files) to the model's most, 5 or 6. tile: side of tiles, a multiple of 16, or 0 for one tile
    (by default 1024 for `linear-net` and `shvc-photo`, 256 for other SHVCs and one tile for `linear`). workers: threads (by default one for each core); the bytes do not depend on
    it. progress: show a bar. Raises UnsupportedImage (another dtype or shape, by name), InvalidInput and UnknownModel.
    """
    image = np.ascontiguousarray(check_image(image))
    if image.size > container.MAX_PIXELS:
        raise InvalidInput(f"the image has {image.size} sub-pixels; this format takes at most {container.MAX_PIXELS}")
    if tile is not None and (integer("tile", tile, 0) % container_tiles.STEP or tile > 1 << 16):
        raise InvalidInput(f"tile must be 0 or a multiple of {container_tiles.STEP} up to {1 << 16}, got {tile}")
    if model in lossy.ABOUT:
        if tile is not None:
            raise InvalidInput(f"{model} codes an image in one piece: it knows no tile")
        return _encode_with_loss(image, model, quality)
    if quality is not None:
        raise InvalidInput(f"{model} is lossless: it has no quality to choose")
    if model == "auto":
        return min((_encode(image, coder, tile, workers, progress) for coder in candidates(image)), key=len)
    if model not in coders.names() and not model.startswith("shvc"):
        raise UnknownModel(f"no model is called {model!r}; there are: auto, {', '.join([*coders.names(), *lossy.ABOUT])}")
    coder = coders.get(model, 8 * image.dtype.itemsize)
    coder.check(image)
    return _encode(image, coder, tile, workers, progress)


def candidates(image):
    """The coders that "auto" tries on an image."""
    depth, pixels, names = 8 * image.dtype.itemsize, image.shape[0] * image.shape[1], ["linear"]
    if depth == 8 and coders.FITTED in coders.networks():
        names = ["linear"] * (pixels <= 1 << 14) + [coders.FITTED]  # which may choose `linear` for every part of the image, in a longer header
    if depth == 8 and image.ndim == 3 and image.shape[2] > 1:
        suited = {coders.LEARNED: pixels <= _FEW_PIXELS, coders.SMALL: max(image.shape[:2]) <= 64}
        names += [name for name in coders.networks() if suited.get(name)]
    return [coders.get(name, depth) for name in names]


def _encode(image, coder, side, workers, progress):
    """The file of one coder."""
    if coder.network and container_small.fits(coder.name, image) and side is None:
        return _encode_small(image, coder)
    if not coder.network and side is None and image.dtype == np.uint8:
        return _encode_whole(image, coder)
    side = coder.side if side is None else side
    volume, depth = image.reshape(*image.shape[:2], -1), 8 * image.dtype.itemsize

    def one(place):
        (top, bottom), (left, right) = place
        pixels = np.ascontiguousarray(volume[top:bottom, left:right])
        payload = coders.stream(coder, pixels)
        return payload if len(payload) < pixels.nbytes else pixels.astype(f"<u{depth // 8}").tobytes()

    places = container_tiles.places(image.shape, side)
    payloads = parallel.over(one, places, workers, progress and len(places) > 1, coders.in_threads if coder.network else nullcontext)
    streams = []
    for payload, ((top, bottom), (left, right)) in zip(payloads, places):
        pixels = volume[top:bottom, left:right].astype(f"<u{depth // 8}").tobytes()
        streams.append((payload, len(payload) == len(pixels), crc32(pixels)))
    return container_tiles.pack(coder.name, coder.revision, image.shape, depth, side, streams)


def _encode_whole(image, coder):
    """A file of version 1: one stream."""
    payload = coders.stream(coder, image.reshape(*image.shape[:2], -1))
    raw = len(payload) >= image.size
    payload = image.tobytes() if raw else payload
    return container.pack(container.Header(coder.name, coder.revision, image.shape, raw, len(payload), crc32(image)), payload)


def _encode_small(image, coder):
    """The shortest file of several draws of the latents or several ways to turn the image, or the pixels."""
    files = []
    for draw in container_small.DRAWS if coder.draws or coder.turns else container_small.DRAWS[:1]:
        header = container_small.header(coder.name, image.shape, draw)
        files.append(header + coders.small_stream(header, coder, image, draw))
    header = container_small.header("", image.shape)
    return min([*files, header + image.tobytes() + coders.small_start(header, None, image)[1]], key=len)


def _encode_with_loss(image, name, quality):
    chosen = lossy.get(name)
    if image.dtype != np.uint8:
        raise InvalidInput(f"{name} codes images with 8 bits per sample; for 16 there is the model linear")
    payload, _, checksum = chosen.encode(image, lossy.DEFAULT_QUALITY if quality is None else quality)
    raw = len(payload) >= image.size
    if raw:
        payload, checksum = image.tobytes(), crc32(image)
    return container.pack(container.Header(name, chosen.revision, image.shape, raw, len(payload), checksum, not raw), payload)


def decode(data, crop=None, workers=None, progress=False, most=MOST_DECODED):
    """The image in the bytes of a .shvc file: the very array that was encoded, or, if a lossy model wrote it, the picture that it made of it.

    data: bytes, or a memoryview (of a mapped file, say), of which only what is needed is read when there are tiles. crop: (x, y, width, height), a
    rectangle inside the image; of a file with tiles only those that it touches are decoded. workers, progress: as in `encode`. most: bytes of
    pixels to make room for (an eighth of that with lossy models, which need more), against files that claim to be gigantic. Raises CorruptFile or
    TruncatedFile for bytes that are damaged or no .shvc file, InvalidInput for a crop outside the image or an image of more than `most`,
    UnknownModel for a file whose model is not here in the revision that wrote it.
    """
    parts = _unpack(data)
    _check_size(parts, most)
    window = _window(crop, parts.shape)
    compiled_for(len(data))
    if isinstance(parts, container_tiles.Tiled):
        return _decode_tiles(parts, window, workers, progress)
    with on_threads(parallel.available() if workers is None else integer("workers", workers, 1)):
        image = _decode_small(parts) if isinstance(parts, container_small.Small) else _decode_whole(parts)
    return image if crop is None else np.ascontiguousarray(image[window])


def _unpack(data):
    """Small, Tiled, or a Header with its payload: see the containers."""
    data = memoryview(data)
    start = bytes(data[:5])
    if start[:2] == container_small.MAGIC:
        return container_small.unpack(data)
    if start == container.MAGIC + bytes([container_tiles.VERSION]):
        return container_tiles.unpack(data)
    return _Whole(*container.unpack(data))


class _Whole:
    """A file of version 1 taken apart."""

    def __init__(self, header, payload):
        self.header, self.payload, self.shape = header, payload, header.shape


def _check_size(parts, most):
    claimed = math.prod(parts.shape) * (parts.depth // 8 if isinstance(parts, container_tiles.Tiled) else 1)
    if isinstance(parts, _Whole) and parts.header.lossy:
        claimed = _LOSSY_ROOM * 3 * math.prod(-(-side // _LOSSY_STEP) * _LOSSY_STEP for side in parts.shape[:2])
    if claimed > most:
        raise InvalidInput(f"the file claims to hold {math.prod(parts.shape)} sub-pixels, more than is decoded unasked: say most={claimed} "
                           "(on the command line --large) if you trust it")


def _window(crop, shape):
    """(rows, columns) as slices."""
    if crop is None:
        return slice(0, shape[0]), slice(0, shape[1])
    if len(crop) != 4:
        raise InvalidInput(f"a crop is x, y, width, height: four numbers, not {len(crop)}")
    x, y, width, height = (integer(name, value, 0 if name in "xy" else 1) for name, value in zip(("x", "y", "width", "height"), crop))
    if x + width > shape[1] or y + height > shape[0]:
        raise InvalidInput(f"the crop {x},{y},{width},{height} reaches beyond the image, which is {shape[1]} pixels wide and {shape[0]} high")
    return slice(y, y + height), slice(x, x + width)


def _check_revision(coder, revision):
    if coder.revision != revision:
        raise UnknownModel(f"the file was written by revision {revision} of {coder.name!r}; here is revision {coder.revision}")


def _decode_tiles(parts, window, workers, progress):
    rows, columns = window
    touched = [tile for tile in parts.tiles if tile.rows[0] < rows.stop and tile.rows[1] > rows.start
               and tile.columns[0] < columns.stop and tile.columns[1] > columns.start]
    coder = None
    if any(not tile.stored for tile in touched):
        coder = coders.writer(parts.model, parts.revision, parts.depth)
        if parts.depth not in coder.depths or (*parts.shape, 1)[2] not in coder.channels:
            raise CorruptFile(f"{parts.model} writes no images of this kind: the file is damaged")
    kind = np.dtype(f"<u{parts.depth // 8}")

    def one(tile):
        payload, shape = tile.checked(), tile.shape(parts.shape)
        if tile.stored:
            pixels = bytes(payload)
            if len(pixels) != math.prod(shape) * kind.itemsize:
                raise CorruptFile("a stored tile does not have as many bytes as its pixels")
        else:
            values, left = coders.tile(coder, payload, shape)
            if left != BitStack():
                raise CorruptFile("bits are left over after a tile's last pixel")
            pixels = values.astype(kind).tobytes()
        if crc32(pixels) != tile.pixel_crc:
            raise CorruptFile(f"the decoded pixels of the tile at row {tile.rows[0]}, column {tile.columns[0]} do not match their checksum")
        return pixels

    results = parallel.over(one, touched, workers, progress and len(touched) > 1, coders.in_threads if coder and coder.network else nullcontext)
    image = np.empty((rows.stop - rows.start, columns.stop - columns.start, (*parts.shape, 1)[2]), dtype=kind.newbyteorder("="))
    for tile, pixels in zip(touched, results):
        values = np.frombuffer(pixels, dtype=kind).reshape(tile.shape(parts.shape))
        top, left = (max(a.start, b[0]) for a, b in zip(window, (tile.rows, tile.columns)))
        bottom, right = (min(a.stop, b[1]) for a, b in zip(window, (tile.rows, tile.columns)))
        image[top - rows.start:bottom - rows.start, left - columns.start:right - columns.start] = (
            values[top - tile.rows[0]:bottom - tile.rows[0], left - tile.columns[0]:right - tile.columns[0]])
    return image.reshape(*image.shape[:2], *parts.shape[2:])


def _decode_small(parts):
    if not parts.model:
        image, checksum = np.frombuffer(parts.payload[:-4], dtype=np.uint8), parts.payload[-4:]
        if image.size != math.prod(parts.shape) or coders.small_start(parts.header, None, image)[1] != checksum:
            raise CorruptFile("the stored pixels do not match their checksum: the file is damaged")
        return image.reshape(parts.shape).copy()
    coder = coders.get(parts.model)
    image, left = coders.tile(coder, parts.payload, parts.shape)
    image = turned(image, parts.draw) if coder.turns else image
    if left != coders.small_start(parts.header, coder, image)[0]:
        raise CorruptFile(f"the decoded pixels do not match their checksum: the file is damaged, or was written by another revision of {parts.model}")
    return image


def _decode_whole(parts):
    header, payload = parts.header, parts.payload
    volume_shape = (*header.shape, 1)[:3]
    if header.raw:
        if len(payload) != math.prod(header.shape):
            raise CorruptFile("the header's shape does not fit the number of stored pixels")
        image = np.frombuffer(payload, dtype=np.uint8).copy()
    elif header.lossy:
        return _decode_with_loss(header, payload)
    else:
        coder = coders.writer(models.get(header.model).name, header.revision)
        image, stack = coders.tile(coder, payload, volume_shape)
        if stack.bits:
            raise CorruptFile(f"{stack.bits} bits are left over after the last pixel")
    image = np.ascontiguousarray(image.reshape(header.shape))
    if crc32(image) != header.pixel_crc:
        raise CorruptFile("the decoded pixels do not match their checksum")
    return image


def _decode_with_loss(header, payload):
    model = lossy.get(header.model)
    _check_revision(model, header.revision)
    if (*header.shape, 1)[2] not in (1, 3):
        raise CorruptFile(f"no lossy model writes images with {header.shape[2]} channels")
    picture, checksum = model.decode(payload, header.shape)
    if checksum != header.pixel_crc:
        raise CorruptFile("the decoded latents do not match their checksum")
    return picture


def lossy_file(data):
    """Whether a lossy model wrote the file, by its header."""
    parts = _unpack(data)
    return isinstance(parts, _Whole) and parts.header.lossy


def info(data):
    """What a file's header says, as a dict; streams are checked against their checksums but not decoded (small images have none but that of the pixels).

    Keys: version (0: the form for small images), model, revision, shape, depth (bits per sample), stored (the pixels are stored as they are; with
    tiles: all of them), lossy, tiles (how many), tile_side, bytes, payload_bytes, header_bytes, bits_per_dim (actual, of the whole file, per sub-pixel).
    """
    parts = _unpack(data)
    if isinstance(parts, container_tiles.Tiled):
        payload = sum(len(tile.checked()) for tile in parts.tiles)
        facts = {"version": 2, "model": parts.model, "revision": parts.revision, "stored": all(tile.stored for tile in parts.tiles), "lossy": False,
                 "depth": parts.depth, "tiles": len(parts.tiles), "tile_side": parts.side}
    elif isinstance(parts, container_small.Small):
        payload = len(parts.payload)
        facts = {"version": 0, "model": parts.model or "none", "revision": None, "stored": not parts.model, "lossy": False, "depth": 8, "tiles": 1,
                 "tile_side": 0}
    else:
        header, payload = parts.header, len(parts.payload)
        facts = {"version": 1, "model": header.model, "revision": header.revision, "stored": header.raw, "lossy": header.lossy, "depth": 8, "tiles": 1,
                 "tile_side": 0}
    size = len(memoryview(data))
    return {**facts, "shape": parts.shape, "bytes": size, "payload_bytes": payload, "header_bytes": size - payload,
            "bits_per_dim": 8 * size / math.prod(parts.shape)}
