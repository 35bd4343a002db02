"""The command line: `shvc encode`, `decode`, `info`, `bench`, `models`, `train`, `data`.

Errors are one line on standard error and exit status 1 (2 for a wrong command). Nothing is overwritten without --force, and output files
appear whole or not at all.
"""

import argparse
import sys
from pathlib import Path

from . import __version__, album_file, cli_files, codec, coders, container, lossy, models, parallel
from .cli_files import ALBUM, SUFFIX
from .errors import InvalidInput, ShvcError
from .images import check_suffix, not_kept, write_bytes, write_image


def _shape(shape):
    return " x ".join(map(str, shape))


def _encode(args):
    source = Path(args.input)
    if source.is_dir():
        return _encode_folder(source, args)
    if args.chain:
        raise InvalidInput(f"{source}: --chain is for a folder of small images, this is one file")
    if args.tile is not None and args.model in lossy.ABOUT:
        raise InvalidInput(f"{args.model} codes an image in one piece: it knows no --tile")
    if not source.name:
        raise InvalidInput(f"{source}: this is a folder; name a file")
    target = cli_files.target(source, args.output, SUFFIX, args.force)
    image = cli_files.read(source)
    data = codec.encode(image, model=args.model, quality=args.quality, tile=args.tile, workers=args.workers, progress=sys.stderr.isatty())
    if parallel.rank()[0]:
        return
    write_bytes(target, data, force=args.force)
    size, facts = source.stat().st_size, codec.info(data)
    print(f"{target}: {_shape(image.shape)}, {len(data)} bytes, {8 * len(data) / image.size:.3f} bits per sub-pixel (actual) with "
          f"{facts['model'] if not facts['stored'] else 'the pixels as they are'}; {source.name} has {size} bytes")
    if len(data) > size and not facts["lossy"]:
        why = ("is compressed with loss; to keep its exact pixels takes more" if source.suffix.lower() in (".jpg", ".jpeg")
               else "is smaller; it may have been compressed with loss once, or hold few colours, which this model makes no use of")
        print(f"note: {source.name} {why}", file=sys.stderr)
    if lost := not_kept(source):
        print(f"note: {source.name}: only pixels are kept, not {' and not '.join(lost)}", file=sys.stderr)


def _encode_folder(source, args):
    from . import album

    if args.quality is not None or args.tile is not None:
        raise InvalidInput(f"{source}: a folder becomes an album, which knows neither --quality nor --tile")
    if not args.output and not source.name:
        raise InvalidInput(f"{source}: name the album to write")
    if "," in args.model and not args.chain:
        raise InvalidInput(f"{args.model}: two networks make a chain, for which there is --chain")
    target = cli_files.target(source, args.output, ALBUM, args.force)
    if parallel.rank()[0]:
        return  # torchrun's processes share tiles, not albums: --workers does
    model = None if args.model == "auto" else args.model.split(",") if args.chain else args.model
    album.write_folder(source, target, model, args.chain, args.workers or parallel.available(), args.force)
    facts = album.info(target)
    print(f"{target}: {facts['images']} images of {_shape(facts['shape'])}, {facts['bytes']} bytes, {facts['bits_per_dim']:.3f} bits per sub-pixel (actual)")


def _crop(text):
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InvalidInput(f"--crop takes x,y,width,height in pixels, not {text!r}") from None


def _decode(args):
    source, crop = Path(args.input), _crop(args.crop)
    if cli_files.begins(source, album_file.MAGIC):
        return _decode_album(source, args)
    if args.only:
        raise InvalidInput(f"{source}: --only is for albums")
    if not source.name or source.is_dir():
        raise InvalidInput(f"{source}: this is a folder; name a file")
    target = cli_files.target(source, args.output, ".png", args.force)
    check_suffix(target)
    data = cli_files.mapped(source)
    with cli_files.named(source):
        image = codec.decode(data, crop, args.workers, sys.stderr.isatty(), 16 * container.MAX_PIXELS if args.large else codec.MOST_DECODED)
    if parallel.rank()[0]:
        return
    write_image(target, image, force=args.force)
    print(f"{target}: {_shape(image.shape)}, " + ("the picture that the lossy model made (checksum of its latents)" if codec.lossy_file(data)
                                                  else "every pixel as it was encoded (checksum)"))


def _decode_album(source, args):
    from . import album

    if args.crop or args.large:
        raise InvalidInput(f"{source}: an album knows neither --crop nor --large; choose images with --only")
    if parallel.rank()[0]:
        return
    folder = Path(args.output) if args.output else source.with_suffix("")
    with cli_files.named(source):
        paths = album.extract(source, folder, args.only, args.force, args.workers or parallel.available())
    print(f"{folder}: {len(paths)} image{'s' * (len(paths) != 1)}, every pixel as it was encoded (checksums)")


def _info(args):
    if cli_files.begins(args.file, album_file.MAGIC):
        return _info_album(args.file)
    data = cli_files.mapped(args.file)
    with cli_files.named(args.file):
        facts = codec.info(data)
    how = ", pixels stored as they are" if facts["stored"] else ", with loss" if facts["lossy"] else ""
    revision = "" if facts["revision"] is None else f" (revision {facts['revision']})"
    matches = "checksum matches" if facts["tiles"] == 1 else "checksums match"
    checked = matches if facts["version"] else "its checksum is that of the pixels, seen when it is decoded"
    print(f"model     {facts['model']}{revision}{how}")
    print(f"shape     {_shape(facts['shape'])}, {facts['depth']} bits per sub-pixel raw")
    if facts["tiles"] > 1:
        print(f"tiles     {facts['tiles']}, at most {facts['tile_side']} pixels a side")
    print(f"file      {facts['bytes']} bytes: header {facts['header_bytes']}, payload {facts['payload_bytes']} ({checked})")
    print(f"rate      {facts['bits_per_dim']:.3f} bits per sub-pixel (actual)")


def _info_album(path):
    from . import album

    with cli_files.named(path):
        facts = album.info(path)
    for key, value in facts.items():
        value = _shape(value) if key == "shape" else f"{value:.3f} bits per sub-pixel (actual)" if key == "bits_per_dim" else value
        value = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"{'rate' if key == 'bits_per_dim' else key:9} {value}")


def _models(args):
    for model in models.MODELS.values():
        print(f"{model.name} (revision {model.revision}): {model.about}")
    for name in coders.networks():
        kind = {coders.FITTED: "linear with a small network", coders.FAST: "linear with a smaller network, which decodes fast",
                coders.PHOTO: "SHVC for photographs, fitted to each, which decodes fast", coders.LEARNED: "SHVC for photographs"}.get(name, "SHVC for small images")
        print(f"{name}: {kind}, 8-bit {'grey, ' * (name in (coders.FITTED, coders.FAST, coders.PHOTO))}RGB and RGBA, without loss")
    print("auto: the smallest file of those without loss that suit the image")
    for name, about in lossy.ABOUT.items():
        print(f"{name}: {about}; --quality 1 ... {lossy.qualities(name)}")


def _bench(args):
    from . import bench

    return bench.main(["photographs", "--images", args.images, *(["--json", args.json] if args.json else [])])


def _train(args):
    from . import train

    return train.main([args.recipe, *args.rest])


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

    sub = command("encode", _encode, "compress an image file, without loss unless a lossy model is named, or a folder of small ones")
    sub.add_argument("input", metavar="IN", help="a PNG, PPM, BMP, TIFF, WebP, GIF or JPEG file, 8 or 16 bits, or a folder of RGB images of one size")
    sub.add_argument("output", metavar="OUT", nargs="?", help=f"a file or a folder; by default IN with the suffix {SUFFIX}, of a folder .shva")
    sub.add_argument("--model", default="auto", metavar="NAME", help="see `shvc models` (default: auto, the smallest file without loss; of a folder "
                     "shvc-cifar10); for a --chain two as well: shvc-arib-cifar10,shvc-lite-cifar10")
    sub.add_argument("--quality", type=int, metavar="N",
                     help=f"for lossy models: 1 (smallest file) to the model's most, 5 or 6 (default: {lossy.DEFAULT_QUALITY})")
    sub.add_argument("--tile", type=int, metavar="N", help="side of tiles, a multiple of 16, or 0 (default: 256 for SHVCs, 1024 for linear-net, 0 for linear)")
    sub.add_argument("--chain", type=int, default=0, metavar="N", help="of a folder: chain images in groups of N; smaller, but reading one reads its group")
    sub.add_argument("--workers", type=int, metavar="N", help="threads, of a folder processes (default: one for each core); the file does not depend on it")
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")

    sub = command("decode", _decode, f"restore the image from a {SUFFIX} file, or the images from an album")
    sub.add_argument("input", metavar="IN")
    sub.add_argument("output", metavar="OUT", nargs="?", help="a file with a lossless suffix, or a folder; by default IN with the suffix .png, or without one")
    sub.add_argument("--crop", metavar="X,Y,W,H", help="only this rectangle, in pixels from the upper left corner; tiles outside it are not decoded")
    sub.add_argument("--only", nargs="+", metavar="NAME", help="of an album: these images, by name or number; OUT goes before it")
    sub.add_argument("--large", action="store_true", help="decode images of more than 134 million sub-pixels, or of 67 million with 16 bits, too")
    sub.add_argument("--workers", type=int, metavar="N", help="threads, of an album processes (default: one for each core)")
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")

    sub = command("info", _info, f"what a {SUFFIX} file or an album holds, from its header")
    sub.add_argument("file", metavar="FILE")

    command("models", _models, "the models that can encode")

    sub = command("bench", _bench, "bytes and seconds of the lossless models and of classical codecs on a folder of images")
    sub.add_argument("--images", required=True, metavar="DIR", help="a folder of image files, or the name of a data set: kodak, photographs")
    sub.add_argument("--json", metavar="OUT", help="also write the rows to this file (never over an existing one)")

    sub = command("train", _train, "train a model by its recipe; under torchrun, by several processes")
    sub.add_argument("recipe", metavar="RECIPE")
    sub.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of python -m shvc_lib.train: --out, --minutes, --steps, --device")

    data = commands.add_parser("data", help="list or fetch the data sets", description="The data sets that the book can use.")
    actions = data.add_subparsers(dest="data_command", required=True, metavar="list|get")
    command("list", _data_list, "the data sets, their terms, and where they are on this machine", actions)
    sub = command("get", _data_get, "fetch a data set from its home page, checked and resumable", actions)
    sub.add_argument("name", metavar="NAME")
    return top


def _arguments(argv):
    """The parsed arguments. OUT may also come after options, which argparse by itself would refuse."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(args, "output", "") is None:
        args.output = rest.pop()
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def main(argv=None):
    """Run the command line; returns the exit status."""
    args = _arguments(argv)
    if getattr(sys.stdout, "errors", None) == "strict":  # names of files may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli_files.check(args)
        if parallel.rank()[0] and args.action not in (_encode, _decode, _train):
            return 0  # torchrun: the first process is enough
        return args.action(args) or 0
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


if __name__ == "__main__":
    sys.exit(main())
