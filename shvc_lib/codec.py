"""Image in, bytes out, and back: the codec that the command line and the book call.

    data = shvc_lib.encode(image)           # uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
    assert (shvc_lib.decode(data) == image).all()
    small = shvc_lib.encode(image, model="pln", quality=2)       # with loss, by a model of `lossy`

Lossless for every image but with a lossy model: where a model would need more bytes than the pixels themselves (noise), the pixels are stored
as they are. A damaged file raises; it never gives other pixels.
"""

import math
from zlib import crc32

import numpy as np

from . import container, lossy, models
from .coding import BitStack
from .errors import CorruptFile, InvalidInput, OutOfBits, UnknownModel
from .images import check_image


def encode(image, model="linear", quality=None):
    """The bytes of a .shvc file holding `image`, a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    quality: for lossy models, 1 (the smallest files) to the model's most, 5 or 6. Raises UnsupportedImage (another dtype or shape, by name),
    InvalidInput and UnknownModel.
    """
    image = np.ascontiguousarray(check_image(image))
    if image.size > container.MAX_PIXELS:
        raise InvalidInput(f"the image has {image.size} sub-pixels; this format takes at most {container.MAX_PIXELS}")
    if model not in models.MODELS and model not in lossy.ABOUT:
        raise UnknownModel(f"no model is called {model!r}; there are: {', '.join([*models.MODELS, *lossy.ABOUT])}")
    if model in lossy.ABOUT:
        chosen = lossy.get(model)
        payload, _, checksum = chosen.encode(image, lossy.DEFAULT_QUALITY if quality is None else quality)
        with_loss = True
    else:
        chosen, volume, stack = models.get(model), image.reshape(*image.shape[:2], -1), BitStack()
        if quality is not None:
            raise InvalidInput(f"{model} is lossless: it has no quality to choose")
        chosen.codec(volume.shape).push(stack, volume)
        payload, checksum, with_loss = stack.to_bytes(), crc32(image), False
    raw = len(payload) >= image.size
    if raw:
        payload, checksum, with_loss = image.tobytes(), crc32(image), False
    return container.pack(container.Header(chosen.name, chosen.revision, image.shape, raw, len(payload), checksum, with_loss), payload)


def decode(data):
    """The image in the bytes of a .shvc file: the very array that was encoded, or, if a lossy model wrote it, the picture that it made of it.

    Raises CorruptFile or TruncatedFile for bytes that are damaged or no .shvc file, UnknownModel for a file whose model
    is not here in the revision that wrote it.
    """
    header, payload = container.unpack(data)
    volume_shape = (*header.shape, 1)[:3]
    if header.raw:
        if len(payload) != math.prod(header.shape):
            raise CorruptFile("the header's shape does not fit the number of stored pixels")
        image = np.frombuffer(payload, dtype=np.uint8).copy()
    elif header.lossy:
        return _decode_with_loss(header, payload)
    else:
        model = models.get(header.model)
        _check_revision(model, header)
        try:
            stack = BitStack.from_bytes(payload)
            image = model.codec(volume_shape).pop(stack)
        except (OutOfBits, InvalidInput) as error:
            raise CorruptFile(f"the stream cannot be decoded ({error})") from None
        if stack.bits:
            raise CorruptFile(f"{stack.bits} bits are left over after the last pixel")
    image = np.ascontiguousarray(image.reshape(header.shape))
    if crc32(image) != header.pixel_crc:
        raise CorruptFile("the decoded pixels do not match their checksum")
    return image


def _check_revision(model, header):
    if model.revision != header.revision:
        raise UnknownModel(f"the file was written by revision {header.revision} of {model.name!r}; here is revision {model.revision}")


def _decode_with_loss(header, payload):
    model = lossy.get(header.model)
    _check_revision(model, header)
    if (*header.shape, 1)[2] not in (1, 3):
        raise CorruptFile(f"no lossy model writes images with {header.shape[2]} channels")
    picture, checksum = model.decode(payload, header.shape)
    if checksum != header.pixel_crc:
        raise CorruptFile("the decoded latents do not match their checksum")
    return picture


def info(data):
    """What a file's header says, as a dict; the payload is checked against its checksum but not decoded.

    Keys: model, revision, shape, stored (the pixels are stored as they are), lossy, bytes, payload_bytes, header_bytes, bits_per_dim
    (actual, of the whole file).
    """
    header, payload = container.unpack(data)
    return {
        "model": header.model, "revision": header.revision, "shape": header.shape, "stored": header.raw, "lossy": header.lossy,
        "bytes": len(data), "payload_bytes": len(payload), "header_bytes": len(data) - len(payload),
        "bits_per_dim": 8 * len(data) / math.prod(header.shape),
    }
