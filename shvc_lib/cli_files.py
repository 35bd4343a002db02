"""Names that a user types, and the files behind them: what the command line reads, where it writes, and what it refuses before any work.

A name is often not what was meant: an unset variable of the shell, `*.png` where there are two, a folder that is not there. Whatever would then be written
to an odd place, or over something, is an error of one line instead, and what is wrong with a file is said with its name.
"""

import mmap
import os
from contextlib import contextmanager
from pathlib import Path

from . import album_file, container, container_small, parallel
from .errors import CorruptFile, InvalidInput, MissingData, UnknownModel
from .images import SUFFIXES, check_target, read_image

SUFFIX, ALBUM = ".shvc", ".shva"


@contextmanager
def named(path):
    """What is wrong with a file is said with its name."""
    try:
        yield
    except (CorruptFile, UnknownModel) as error:
        raise type(error)(f"{path}: {error}") from None


def _all_bytes(path):
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingData(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None


def mapped(path):
    """A file's bytes, of which only what is looked at is read: a memoryview."""
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # no such file, a folder, a pipe, an empty file
        data = _all_bytes(path)
    if not data:
        raise CorruptFile(f"{path}: this file is empty")
    return memoryview(data)


def begins(path, *magics):
    """Whether the file begins with one of these bytes."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4).startswith(magics)


def read(source):
    """The pixels of an image file; of one of ours the error says that it is one."""
    try:
        return read_image(source)
    except CorruptFile:
        if begins(source, album_file.MAGIC, container.MAGIC, container_small.MAGIC):
            raise InvalidInput(f"{source}: this is a {SUFFIX} file or an album already; `shvc decode` restores what it holds") from None
        raise


def target(source, output, suffix, force):
    """Where the output goes: `output`, or the input's name with `suffix`, beside it or in the folder `output`. What is wrong with it is said
    before the work, not after."""
    name = source.resolve().name + suffix if source.is_dir() else source.with_suffix(suffix).name
    target = Path(output) if output else source.with_name(name)
    if output and target.is_dir():
        target = target / name
    elif output and output.endswith(("/", os.sep)):
        raise InvalidInput(f"{output}: there is no such folder")
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidInput(f"{target}: the output would replace the input; name another file")
    if suffix in (SUFFIX, ALBUM) and target.suffix.lower() in SUFFIXES:  # `shvc encode *.png`, where there are two
        raise InvalidInput(f"{target}: this is the name of an image, and what is written is none; `shvc encode` takes one image at a time, or a folder")
    return check_target(target, force or parallel.rank()[0] > 0)  # a late process of torchrun's may find what the first has written


def check(args):
    """Refuse what every command would take for something else: an unset variable of the shell, a dash, no workers."""
    for key in ("input", "output", "file", "images", "json"):
        name = getattr(args, key, None)
        if name == "":
            raise InvalidInput(f"{key}: this name is empty; name a file")
        if name == "-":
            raise InvalidInput(f"{key}: - would be standard input or output, which are not for images here; name a file (one that is called so: ./-)")
    if getattr(args, "workers", None) is not None and args.workers < 1:
        raise InvalidInput(f"--workers takes 1 or more, not {args.workers}")
