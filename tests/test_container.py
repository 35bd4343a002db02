"""The .shvc container: a golden file, every field, and damage of every byte found."""

import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shvc_lib
from shvc_lib import container, models
from shvc_lib.coding import BitStack, Uniform
from shvc_lib.errors import CorruptFile, ShvcError, TruncatedFile, UnknownModel

IMAGE = (np.indices((6, 5, 3)).sum(0) * 7).astype(np.uint8)


def reseal(file, at, new):
    """The file with bytes replaced and its second checksum made right again (as somebody would who forges a header)."""
    header, payload = container.unpack(file)
    head = bytearray(file[:len(file) - len(payload) - 4])
    head[at:at + len(new)] = new
    return bytes(head) + struct.pack("<I", crc32(payload, crc32(head))) + payload


@given(st.text("abcdefgh-0123456789", max_size=40), st.integers(0, 65535), st.tuples(st.integers(1, 70000), st.integers(1, 9000)),
       st.sampled_from([(), (1,), (3,), (4,)]), st.booleans(), st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_pack_and_unpack(name, revision, size, channels, raw, crc, payload):
    header = container.Header(name, revision, size + channels, raw, len(payload), crc)
    if np.prod(header.shape, dtype=np.int64) <= container.MAX_PIXELS:
        assert container.unpack(container.pack(header, payload)) == (header, payload)


def test_golden_file():
    """Files written by version 1 stay readable, and the same image still gives the same bytes: the format is a promise."""
    file = bytes.fromhex(GOLDEN)
    assert np.array_equal(shvc_lib.decode(file), IMAGE)
    assert shvc_lib.encode(IMAGE, model="linear") == file


def test_every_damaged_byte_and_every_truncation_is_found():
    file = shvc_lib.encode(IMAGE, model="linear")
    for at in range(len(file)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(file)
            damaged[at] ^= flip
            with pytest.raises(CorruptFile):
                shvc_lib.decode(bytes(damaged))
    for length in range(len(file)):
        with pytest.raises(TruncatedFile if length >= 1 else CorruptFile):
            shvc_lib.decode(file[:length])
    with pytest.raises(CorruptFile, match="longer"):
        shvc_lib.decode(file + b"\0")


@pytest.mark.parametrize("file", [b"", b"PNG", b"SHVCx", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_other_files_are_refused(file):
    with pytest.raises(CorruptFile) as caught:
        shvc_lib.decode(file)
    assert "\n" not in str(caught.value)


def test_forged_headers_raise_our_errors_only():
    """A header with right checksums that lies about the image: never other pixels, never a foreign exception."""
    file = shvc_lib.encode(IMAGE, model="linear")
    for at in range(5, len(file) - container.unpack(file)[0].payload_bytes - 4):
        for value in (0, 1, 2, 77, 127, 255):
            try:
                image = shvc_lib.decode(reseal(file, at, bytes([value])))
            except ShvcError as error:
                assert "\n" not in str(error)
            else:  # a header that lies but happens to lead to the same pixels (the flag of a missing channel axis)
                assert image.size == IMAGE.size and (image.reshape(-1) == IMAGE.reshape(-1)).all()


def test_pixel_checksum_is_looked_at():
    file = shvc_lib.encode(IMAGE, model="linear")
    header, payload = container.unpack(file)
    lying = container.pack(container.Header(header.model, header.revision, header.shape, False, 0, header.pixel_crc ^ 1), payload)
    with pytest.raises(CorruptFile, match="decoded pixels"):
        shvc_lib.decode(lying)


def repack(file, payload, shape=IMAGE.shape):
    header, _ = container.unpack(file)
    return container.pack(container.Header(header.model, header.revision, shape, False, 0, header.pixel_crc), payload)


def test_streams_that_do_not_end_with_the_last_pixel_are_refused():
    """Checksums right, stream wrong: one that holds more than the image, one that holds too little, one that is no stack."""
    file = shvc_lib.encode(IMAGE, model="linear")
    stack = BitStack()
    stack.push(np.array([1, 2, 3]), Uniform(256))
    models.get("linear").codec(IMAGE.shape).push(stack, IMAGE)
    with pytest.raises(CorruptFile, match="left over"):
        shvc_lib.decode(repack(file, stack.to_bytes()))
    with pytest.raises(CorruptFile, match="cannot be decoded"):
        shvc_lib.decode(repack(file, container.unpack(file)[1], (600, 500, 3)))
    with pytest.raises(CorruptFile):
        shvc_lib.decode(repack(file, b""))


def test_other_revision_or_model_is_refused_by_name(monkeypatch):
    file = shvc_lib.encode(IMAGE, model="linear")
    monkeypatch.setitem(models.MODELS, "linear", models.MODELS["linear"]._replace(revision=99))
    with pytest.raises(UnknownModel, match="revision 1.*revision 99"):
        shvc_lib.decode(file)
    monkeypatch.delitem(models.MODELS, "linear")
    with pytest.raises(UnknownModel, match="linear"):
        shvc_lib.decode(file)
    with pytest.raises(UnknownModel, match="no-such"):
        shvc_lib.encode(IMAGE, model="no-such")


def test_newer_format_is_refused():
    file = bytearray(shvc_lib.encode(IMAGE, model="linear"))
    file[4] = 3
    with pytest.raises(CorruptFile, match="version 3"):
        shvc_lib.decode(bytes(file))


def test_the_documented_layout_is_the_layout():
    """Read a file with nothing but the table in the module's docstring."""
    file = shvc_lib.encode(IMAGE, model="linear")
    assert file[:4] == b"SHVC" and file[4] == 1 and file[5] == 0 and file[6] == 6 and file[7:13] == b"linear"
    assert file[13:15] == b"\x01\x00" and file[15] == 6 and file[16] == 5 and file[17] == 3
    payload = file[27:]
    assert file[18] == len(payload) < 128 and file[19:23] == struct.pack("<I", crc32(IMAGE)) and file[23:27] == struct.pack("<I", crc32(payload, crc32(file[:23])))


GOLDEN = "534856430100066c696e65617201000605032cd7fcd4a7d548c9cae065016f0ce67b5657f87c8bb7ad7036111885067b9680b9c4e805bb30eb7dcc2f817e60406b00070e774709"
