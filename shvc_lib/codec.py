"""Image in, bytes out, and back: the codec that the command line and the book call.

    data = shvc_lib.encode(image)           # uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
    assert (shvc_lib.decode(data) == image).all()

Lossless for every image: where a model would need more bytes than the pixels themselves (noise), the pixels are stored as they are. A
damaged file raises; it never gives other pixels.
"""

import math
from zlib import crc32

import numpy as np

from . import container, models
from .coding import BitStack
from .errors import CorruptFile, InvalidInput, OutOfBits, UnknownModel
from .images import check_image


def encode(image, model="linear"):
    """The bytes of a .shvc file holding `image`, a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises UnsupportedImage (another dtype or shape, by name) and UnknownModel.
    """
    chosen, image = models.get(model), np.ascontiguousarray(check_image(image))
    if image.size > container.MAX_PIXELS:
        raise InvalidInput(f"the image has {image.size} sub-pixels; this format takes at most {container.MAX_PIXELS}")
    volume = image.reshape(*image.shape[:2], -1)
    stack = BitStack()
    chosen.codec(volume.shape).push(stack, volume)
    payload = stack.to_bytes()
    raw = len(payload) >= image.size
    payload = image.tobytes() if raw else payload
    return container.pack(container.Header(chosen.name, chosen.revision, image.shape, raw, len(payload), crc32(image)), payload)


def decode(data):
    """The image in the bytes of a .shvc file: the very array that was encoded.

    Raises CorruptFile or TruncatedFile for bytes that are damaged or no .shvc file, UnknownModel for a file whose model
    is not here in the revision that wrote it.
    """
    header, payload = container.unpack(data)
    volume_shape = (*header.shape, 1)[:3]
    if header.raw:
        if len(payload) != math.prod(header.shape):
            raise CorruptFile("the header's shape does not fit the number of stored pixels")
        image = np.frombuffer(payload, dtype=np.uint8).copy()
    else:
        model = models.get(header.model)
        if model.revision != header.revision:
            raise UnknownModel(f"the file was written by revision {header.revision} of {model.name!r}; here is revision {model.revision}")
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


def info(data):
    """What a file's header says, as a dict; the payload is checked against its checksum but not decoded.

    Keys: model, revision, shape, stored (the pixels are stored as they are), bytes, payload_bytes, header_bytes, bits_per_dim (actual, of the whole file).
    """
    header, payload = container.unpack(data)
    return {
        "model": header.model, "revision": header.revision, "shape": header.shape, "stored": header.raw,
        "bytes": len(data), "payload_bytes": len(payload), "header_bytes": len(data) - len(payload),
        "bits_per_dim": 8 * len(data) / math.prod(header.shape),
    }
