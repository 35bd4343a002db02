"""An album: many small images of one size in one file, each a stream of its own, or chained in groups.

A chain of bits-back codes decodes from its last image to its first, and whoever wants one of a thousand decodes, on average, five hundred. With ArIB every
image starts from an empty stack, so images can be written by any number of processes, and be read one at a time, in any order:

    album.write("cifar.shva", images, workers=2)      # the same bytes whatever the number of workers
    pictures = album.Album("cifar.shva")
    pictures[700]                                     # reads the header, two entries of the index, and 1.5 kB

    album.write_folder("holiday", "holiday.shva", chain=50)
    album.extract("holiday.shva", "holiday-again")    # as .png files, under their names

With `chain=n` the images are cut into groups of n, each with one stream. That saves the end that every stream has. In exchange, reading image i decodes its
group from the last image down to i: access is at random to groups, not to images. With two networks of SHVC a group is a chain by bits-back, whose first image
is coded with ArIB and so needs no initial bits (`models.shvc_chain`): it also saves what ArIB costs beyond plain SHVC. Under the network that is used
unless another is named, nothing has to be borrowed, and images simply lie on each other (`album_pile`).

`album_file` says what is in the file, byte by byte. An empty stack is the number 2^32 (`coding.rans`), and 32 bits of that are nothing but zeros. So here
every stack starts at 2^32 + the CRC-32 of its image's or group's pixels, and what is left of it when everything has been popped is the checksum, at no cost.
A damaged stream or index entry raises CorruptFile when one of its images is asked for; the others are unharmed. While a network codes, it takes some 2 kB of
memory for each pixel. An album is for small images; large ones are for `codec`, which cuts them into tiles. Taught in chapters 6 and 7.
"""

import io
import itertools
import os
import tempfile
from functools import cached_property
from math import prod
from pathlib import Path
from zlib import crc32

import numpy as np

from . import album_file
from .album_streams import NETWORK, batch_size, images_of, in_batches, network, piled, streams_of
from .coding.checks import integer
from .errors import CorruptFile, InvalidInput, MissingData, TruncatedFile, UnknownModel, UnsupportedImage
from .images import SUFFIXES, check_target, read_image, write_bytes, write_image


def _names_of(model, chain):
    """The networks' names, one or two."""
    names = (NETWORK,) if model is None else (model,) if isinstance(model, str) else tuple(model)
    if len(names) != 1 and not (chain and len(names) == 2):
        raise InvalidInput(f"one network codes images by themselves, got {len(names)}" if not chain else
                           f"a chain takes two networks, (ArIB, plain SHVC), or one that needs no chain, got {len(names)}")
    if chain and len(names) == 1 and not piled(*names):
        raise InvalidInput(f"{names[0]} draws latents: a chain takes two networks, (ArIB, plain SHVC), or one like {NETWORK} that draws none")
    return names


def encode(images, model=None, workers=1, names=None, chain=0):
    """The bytes of an album of uint8 images (N, H, W, 3), the same whatever `workers`, the number of processes.

    In a script of your own, call it under `if __name__ == "__main__":` when there is more than one, for Python starts them by importing the script.
    H, W: 1 ... 4096, at most 2^20 pixels. names: N file names, or None. chain: the images of a group, 2 or more, or 0 to code every image by itself.
    model: the name of a network that needs no initial bits; with a chain of one that draws nothing, or a pair, ArIB for the first image of a group and plain
    SHVC for the others. Raises InvalidInput and UnknownModel.
    """
    images, chain = np.ascontiguousarray(images), integer("chain", chain, 0, album_file.MAX_GROUP)
    if chain == 1:
        raise InvalidInput("a chain has 2 images or more; chain=0 codes every image by itself")
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not 0 < len(images) < album_file.MAX_IMAGES:
        raise InvalidInput(f"an album takes uint8 images (N, H, W, 3), got {images.dtype} of shape {images.shape}")
    album_file.check_size(*images.shape[1:3])
    names, networks = None if names is None else album_file.check_names(names, len(images)), _names_of(model, chain)
    about = tuple((name, network(name, *first)[1]) for name, first in zip(networks, ((), (False,))))
    shape, step, pile = images.shape[1:], max(chain, 1), len(networks) == 1 and piled(*networks)
    streams = in_batches(streams_of, (networks, shape, pile), [[images[i:i + step] for i in range(0, len(images), step)]], shape, workers)
    return album_file.pack(about, chain, len(images), shape, streams, names, album_file.PILES if pile else album_file.VERSION)


def write(path, images, model=None, workers=1, force=False, names=None, chain=0):
    """`encode` to a file, which appears whole or not at all; an existing one is only replaced with `force`. Returns its path.

    Raises InvalidInput, UnknownModel."""
    check_target(path, force)
    return write_bytes(path, encode(images, model, workers, names, chain), force)


def write_folder(folder, out, model=None, chain=0, workers=1, force=False):
    """Write all image files of a folder, sorted by name, to the album `out`. Returns its path. `chain`, `model`, `workers`: see `encode`.

    Raises MissingData (no such folder, no images), UnsupportedImage naming the first file that is not 8-bit RGB of the others' size, and what `encode` raises.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingData(f"{folder}: no such folder")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise MissingData(f"{folder}: no image files here")
    names, images = album_file.check_names([file.name for file in files], len(files)), []
    check_target(out, force)
    for file in files:
        image = read_image(file)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            kind = "16 bits per sample" if image.dtype != np.uint8 else "grey" if image.ndim == 2 else "RGB with alpha"
            raise UnsupportedImage(f"{file}: {kind}, and an album takes 8-bit RGB; `shvc encode FILE` takes this one")
        if image.shape != (shape := images[0].shape if images else image.shape):
            raise UnsupportedImage(f"{file}: {image.shape[0]} x {image.shape[1]} pixels, and {files[0].name} has {shape[0]} x {shape[1]}; an album takes "
                                   "images of one size, `shvc encode FILE` takes any")
        album_file.check_size(*image.shape[:2])
        images.append(image)
    return write(out, np.stack(images), model, workers, force, names, chain)


def extract(source, folder, only=None, force=False, workers=1):
    """Write the images of an album as PNG files into `folder`, which is made if it is not there, under their names, or their numbers. Returns the paths.

    only: names (with their suffix or without) and numbers of images; None: all. Existing files are only replaced with `force`. All images are decoded before
    the first file appears. Raises InvalidInput, MissingData, and what `Album` raises.
    """
    folder = Path(folder)
    with Album(source) as pictures:
        pictures.check()
        try:
            chosen = sorted(set(range(len(pictures)) if only is None else map(pictures.number, only)))
        except IndexError as error:
            raise InvalidInput(str(error)) from None
        names = pictures.names
        targets = [folder / (album_file.png_name(names[i]) if names else f"{i:0{len(str(len(pictures) - 1))}}.png") for i in chosen]
        if os.path.lexists(folder) and not folder.is_dir() or not folder.absolute().parent.is_dir():
            raise InvalidInput(f"{folder}: this is no folder, and none can be made here")
        for target in targets:
            if target.is_dir() or os.path.lexists(target) and not force:
                raise InvalidInput(f"{target}: " + ("this is a folder" if target.is_dir() else "this file exists; say force=True (or --force) to replace it"))
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".album-", dir=folder) as hidden:
                for k, image in enumerate(pictures.iterate(chosen, workers)):
                    write_image(Path(hidden) / f"{k}.png", image)
                for k, target in enumerate(targets):
                    if os.path.lexists(target) and not force:  # somebody was here meanwhile, or two names are one to this file system
                        raise InvalidInput(f"{target}: this file exists; say force=True (or --force) to replace it")
                    os.replace(Path(hidden) / f"{k}.png", target)
        except BaseException:
            if made and not any(folder.iterdir()):
                folder.rmdir()
            raise
    return targets


def info(source):
    """What an album says of itself, as a dict; its checksums are looked at, its images are not decoded.

    Keys: version, images, shape, models (names), revisions, chain, streams, stored (streams that are pixels), named (bool), bytes, and bits_per_dim (actual,
    of the whole file)."""
    with Album(source) as pictures:
        layout, size = pictures.layout, pictures.bytes
        spans = pictures.check()
        stored = sum(end - start == album_file.stored_bytes(layout, g) for g, (start, end, _) in enumerate(spans))
        return {"version": layout.version, "images": layout.count, "shape": layout.shape, "models": pictures.models,
                "revisions": tuple(revision for _, revision in layout.networks), "chain": layout.chain, "streams": layout.groups, "stored": stored,
                "named": pictures.names is not None, "bytes": size, "bits_per_dim": 8 * size / (layout.count * prod(layout.shape))}


def _open(source):
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if hasattr(source, "seek"):
        return source
    try:
        return open(source, "rb")
    except FileNotFoundError:
        raise MissingData(f"{source}: there is no such file") from None
    except OSError as error:
        raise InvalidInput(f"{source}: cannot be read ({error.strerror})") from None


class Album:
    """An album to read from: len(album) images of `shape` (H, W, 3); album[i] decodes one of them, `images()` all.

    source: a path, the bytes, or a binary file that can seek. Only what is asked for is read. `models`: the networks' names; `chain`: images of a group, or 0;
    `bytes`: of the file. Raises CorruptFile, TruncatedFile; UnknownModel when a network that wrote it is not here.
    """

    def __init__(self, source):
        self._file = _open(source)
        try:
            self.bytes = self._file.seek(0, io.SEEK_END)
            self.layout = album_file.read_layout(self._read)
            if self.bytes < self.layout.data + 5 * self.layout.groups:  # before anything is as large as the header says; 5: no stack is shorter
                raise TruncatedFile("the album ends before what its header or its index promises")
        except BaseException:
            self.close()
            raise
        self.shape, self.chain, self.models = self.layout.shape, self.layout.chain, tuple(name for name, _ in self.layout.networks)

    def close(self):
        """Close the file."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self, at, count):
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) < count:
            raise TruncatedFile("the album ends before what its header or its index promises")
        return data

    def __len__(self):
        return self.layout.count

    @cached_property
    def names(self):
        """The images' names, a list of str, or None. Raises CorruptFile."""
        return album_file.read_names(self.layout, self._read)

    def check(self):
        """Look at the checksums of index and names, and at the length of the file: where the streams lie, for `info`. Raises CorruptFile, TruncatedFile."""
        found, _ = album_file.check_index(self.layout, self._read, self.bytes), self.names
        return found

    def number(self, image):
        """The number 0 ... N - 1 of an image, given its number, from the end if less than 0, or its name, with its suffix or without; "7" is a
        number where nothing has this name. Raises IndexError, InvalidInput."""
        if isinstance(image, str):
            bare = image.removesuffix(".png")
            found = [i for i, name in enumerate(self.names or ()) if image in (name, album_file.png_name(name), os.path.splitext(name)[0])]
            if not found and bare.isascii() and bare.isdecimal() and len(bare) < 20 and int(bare) < len(self):
                found = [int(bare)]
            if len(found) != 1:
                raise InvalidInput(f"{'several images are' if found else 'no image is'} called {image!r} in this album")
            return found[0]
        if not -len(self) <= integer("the image's number", image) < len(self):
            raise IndexError(f"the album has {len(self)} images, 0 ... {len(self) - 1}, not {image}")  # what ends a for loop over an album
        return image % len(self)

    def _stream(self, group):
        """The stream of a group, of an image by itself where there are none."""
        (start, end, checksum), = album_file.spans(self.layout, self._read, group, group + 1)
        stream = self._read(self.layout.data + start, end - start)
        if checksum is not None and crc32(stream) != checksum:
            raise CorruptFile(f"the stream of group {group} does not match its checksum: the album is damaged")
        return stream

    @property
    def _piles(self):
        return self.layout.version == album_file.PILES

    def _check_networks(self):
        for (name, revision), first in zip(self.layout.networks, ((), (False,))):
            try:
                here = network(name, *first)[1]
                if self._piles and not piled(name):
                    raise InvalidInput(f"{name} draws latents")
            except InvalidInput as error:
                raise CorruptFile(f"no album is written so: {error}") from None
            if revision != here:
                raise UnknownModel(f"the album was written by revision {revision} of {name!r}; here is revision {here}")

    def __getitem__(self, i):
        return self.images([i])[0]

    def images(self, chosen=None, workers=1):
        """The images of these numbers or names (all when None): uint8 (N, H, W, 3)."""
        if chosen is None:
            self.check()
        chosen, step = range(len(self)) if chosen is None else [self.number(i) for i in chosen], max(self.chain, 1)
        self._check_networks()
        lowest = {}  # of each group: down to where it is to be decoded
        for i in chosen:
            lowest[i // step] = min(lowest.get(i // step, step), i % step)
        groups = sorted(lowest)
        lists = [[self._stream(g) for g in groups], [self.layout.size(g) for g in groups], [lowest[g] for g in groups]]
        pictures = dict(zip(groups, in_batches(images_of, (self.models, self.shape, self._piles), lists, self.shape, workers))) if groups else {}
        return np.array([pictures[i // step][i % step - lowest[i // step]] for i in chosen], dtype=np.uint8).reshape(len(chosen), *self.shape)

    def iterate(self, chosen=None, workers=1):
        """The same images one after the other, in a generator that does not hold all of them; sorted numbers decode no group twice."""
        chosen, step = range(len(self)) if chosen is None else chosen, max(self.chain, 1)
        portion = max(1, 64 * batch_size(self.shape) * workers // step)
        for _, part in itertools.groupby(chosen, lambda i: self.number(i) // step // portion):
            yield from self.images(part, workers)
