"""HEVC intra coding of one image, through the ffmpeg that the package imageio-ffmpeg carries.

The video standard's still-picture part is the strongest classical lossy codec that installs with pip. One frame is coded
by x265 at a constant quantiser, in 4:4:4 YCbCr (BT.709, full range), tuned for squared error. The result is the raw
bitstream (Annex B), so no container and no encoder banner is counted. One of the `anchors` of chapter 1.
"""

import importlib
import subprocess

import numpy as np

from .errors import ShvcError

_COLOURS = "in_range=full:out_range=full:{}_color_matrix=bt709"


def encode(image, quantiser):
    """uint8 RGB (H, W, 3) and a QP from 1 (best) to 51 -> the bytes of the raw bitstream. Raises `ShvcError`."""
    options = f"qp={quantiser}:keyint=1:info=0:pools=1:frame-threads=1:log-level=none"
    return _ffmpeg(image.tobytes(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{image.shape[1]}x{image.shape[0]}",
                   "-i", "-", "-vf", f"scale={_COLOURS.format('out')},format=yuv444p", "-c:v", "libx265",
                   "-preset", "medium", "-tune", "psnr", "-x265-params", options, "-f", "hevc")


def decode(data, shape):
    """The uint8 RGB image of `shape` that `encode` made these bytes of. Raises `ShvcError`."""
    raw = _ffmpeg(data, "-f", "hevc", "-i", "-", "-vf", f"scale={_COLOURS.format('in')}:flags=accurate_rnd",
                  "-pix_fmt", "rgb24", "-f", "rawvideo")
    if len(raw) != np.prod(shape):
        raise ShvcError(f"ffmpeg decoded {len(raw)} bytes, not an image of shape {shape}")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _ffmpeg(data, *arguments):
    program = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    command = [program, "-hide_banner", "-loglevel", "error", "-threads", "1", *arguments, "-"]
    result = subprocess.run(command, input=data, capture_output=True, timeout=300)
    if result.returncode or not result.stdout:
        reason = (result.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise ShvcError(f"ffmpeg failed: {reason}")
    return result.stdout
