"""The command line: `shvc encode`, `decode`, `info`, `models`, `data`.

Errors are one line on standard error and exit status 1 (2 for a wrong command). Nothing is overwritten without --force, and output files
appear whole or not at all.
"""

import argparse
import sys
from pathlib import Path

from . import __version__, codec, lossy, models
from .errors import InvalidInput, MissingData, ShvcError
from .images import read_image, write_bytes, write_image

SUFFIX = ".shvc"


def _read_bytes(path):
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingData(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None


def _shape(shape):
    return " x ".join(map(str, shape))


def _target(source, output, suffix, force):
    """Where the output goes: `output`, or the input's name with `suffix`, beside it or in the folder `output`. What is wrong with it is said
    before the work, not after."""
    if not source.name:
        raise InvalidInput(f"{source}: this is a folder; name a file")
    target = Path(output) if output else source.with_suffix(suffix)
    if output and target.is_dir():
        target = target / source.with_suffix(suffix).name
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidInput(f"{target}: the output would replace the input; name another file")
    if target.exists() and not force:
        raise InvalidInput(f"{target}: this file exists; say --force to replace it")
    return target


def _encode(args):
    source = Path(args.input)
    target = _target(source, args.output, SUFFIX, args.force)
    image = read_image(source)
    data = codec.encode(image, model=args.model, quality=args.quality)
    write_bytes(target, data, force=args.force)
    size = source.stat().st_size
    print(f"{target}: {_shape(image.shape)}, {len(data)} bytes, {8 * len(data) / image.size:.3f} bits per sub-pixel (actual); {source.name} has {size} bytes")
    if len(data) > size and not codec.info(data)["lossy"]:
        why = ("is compressed with loss; to keep its exact pixels takes more" if source.suffix.lower() in (".jpg", ".jpeg")
               else "is smaller; it may have been compressed with loss once, or hold few colours, which this model makes no use of")
        print(f"note: {source.name} {why}", file=sys.stderr)


def _decode(args):
    source = Path(args.input)
    target = _target(source, args.output, ".png", args.force)
    data = _read_bytes(source)
    image = codec.decode(data)
    write_image(target, image, force=args.force)
    print(f"{target}: {_shape(image.shape)}, " + ("the picture that the lossy model made (checksum of its latents)" if codec.info(data)["lossy"]
                                                  else "every pixel as it was encoded (checksum)"))


def _info(args):
    facts = codec.info(_read_bytes(args.file))
    how = ", pixels stored as they are" if facts["stored"] else ", with loss" if facts["lossy"] else ""
    print(f"model     {facts['model']} (revision {facts['revision']}){how}")
    print(f"shape     {_shape(facts['shape'])}, 8 bits per sub-pixel raw")
    print(f"file      {facts['bytes']} bytes: header {facts['header_bytes']}, payload {facts['payload_bytes']} (checksum matches)")
    print(f"rate      {facts['bits_per_dim']:.3f} bits per sub-pixel (actual)")


def _models(args):
    for model in models.MODELS.values():
        print(f"{model.name} (revision {model.revision}): {model.about}")
    for name, about in lossy.ABOUT.items():
        print(f"{name}: {about}; --quality 1 ... {lossy.qualities(name)}")


def _data_list(args):
    from . import data
    print(data.table())


def _data_get(args):
    from . import download
    print(download.get(args.name))


def parser():
    """The argument parser (its help is the command's documentation)."""
    top = argparse.ArgumentParser(prog="shvc", description="Image compression, lossless unless you say otherwise, and the data sets of the book Bits Back.")
    top.add_argument("--version", action="version", version=f"shvc {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, action, text, parent=commands):
        sub = parent.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        return sub

    sub = command("encode", _encode, "compress an image file, without loss unless a lossy model is named")
    sub.add_argument("input", metavar="IN", help="a PNG, PPM, BMP, TIFF, WebP, GIF or JPEG file, 8 bits per channel")
    sub.add_argument("output", metavar="OUT", nargs="?", help=f"a file or a folder; by default IN with the suffix {SUFFIX}")
    sub.add_argument("--model", default="linear", metavar="NAME", help="see `shvc models` (default: linear, without loss)")
    sub.add_argument("--quality", type=int, metavar="N", help=f"for lossy models: 1 (smallest file) to the model's most, 5 or 6 (default: {lossy.DEFAULT_QUALITY})")
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")

    sub = command("decode", _decode, f"restore the image from a {SUFFIX} file")
    sub.add_argument("input", metavar="IN")
    sub.add_argument("output", metavar="OUT", nargs="?", help="a file with a lossless suffix, or a folder; by default IN with the suffix .png")
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")

    sub = command("info", _info, f"what a {SUFFIX} file holds, from its header")
    sub.add_argument("file", metavar="FILE")

    command("models", _models, "the models that can encode")

    data = commands.add_parser("data", help="list or fetch the data sets", description="The data sets that the book can use.")
    actions = data.add_subparsers(dest="data_command", required=True, metavar="list|get")
    command("list", _data_list, "the data sets, their terms, and where they are on this machine", actions)
    sub = command("get", _data_get, "fetch a data set from its home page, checked and resumable", actions)
    sub.add_argument("name", metavar="NAME")
    return top


def main(argv=None):
    """Run the command line; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        args.action(args)
    except ShvcError as error:
        print(f"shvc: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as in `shvc data list | head -1`
        sys.stderr.close()
        return 1
    except (OSError, MemoryError) as error:  # a name too long, a folder that may not be read, an image too large for this machine
        print(f"shvc: {' '.join(str(error).split()) or 'not enough memory'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("shvc: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
