"""Where the images come from.

Three sources, all real photographs. Five of them are *embedded*: they are PNG files inside the scikit-image package,
so every chapter runs without a network. The larger sets (CIFAR-10, Kodak, BSDS500) are found on disk, or fetched once
from their home pages by `shvc data get NAME`. And any folder of images will do.

A set is looked for under the folder named by the environment variable `SHVC_DATA`, then under the cache folder that
`shvc data get` fills. Both the layout of the original archives and a compact re-packing are read (`LAYOUTS`). The book
uses these sets from chapter 1 on.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import CorruptFile, InvalidInput, MissingData, ShvcError, UnsupportedImage
from .images import SUFFIXES, read_image, write_image  # noqa: F401  (part of this module's public names)

_EMBEDDED = {  # name: (file inside skimage/data, sha256 of the file)
    "astronaut": ("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    "coffee": ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "chelsea": ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "immunohistochemistry": ("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    "motorcycle": ("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
}
PHOTOGRAPHS = tuple(_EMBEDDED)


def photograph(name):
    """One of the embedded photographs, uint8 (H, W, 3): a name from `PHOTOGRAPHS`.

    astronaut 512x512, coffee 400x600, chelsea 300x451, immunohistochemistry 512x512, motorcycle 500x741 (H x W).
    Raises `InvalidInput` for another name, `MissingData` or `CorruptFile` if the scikit-image package is damaged.
    """
    if name not in _EMBEDDED:
        raise InvalidInput(f"no embedded photograph {name!r}; there are {', '.join(PHOTOGRAPHS)}")
    import skimage  # read by path: skimage.data would want pooch and perhaps the network

    file, sha256 = _EMBEDDED[name]
    path = Path(skimage.__file__).parent / "data" / file
    image = read_image(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise CorruptFile(f"{path}: not the {name} photograph that this library knows (sha256 differs)")
    return image


def patches(images, size, count, seed=0):
    """`count` square crops, uint8 (count, size, size, C), every position of every image equally likely.

    images: a sequence of uint8 arrays (H, W, C) with the same C, each at least `size` pixels a side.
    """
    images = [np.asarray(image) for image in images]
    if not images or any(image.ndim != 3 or min(image.shape[:2]) < size for image in images):
        raise InvalidInput(f"patches needs images of shape (H, W, C), at least {size} pixels a side")
    if len({image.shape[2] for image in images}) > 1:
        raise InvalidInput("patches needs images with the same number of channels")
    rng = np.random.default_rng(seed)
    places = np.array([(image.shape[0] - size + 1) * (image.shape[1] - size + 1) for image in images])
    out = np.empty((count, size, size, images[0].shape[2]), images[0].dtype)
    for k, index in enumerate(rng.choice(len(images), count, p=places / places.sum())):
        image = images[index]
        row, column = rng.integers(image.shape[0] - size + 1), rng.integers(image.shape[1] - size + 1)
        out[k] = image[row : row + size, column : column + size]
    return out


@dataclass(frozen=True)
class DataSet:
    """What there is to know about a data set before fetching it. `images`: number per split."""

    name: str
    title: str
    images: dict
    download_mb: int
    terms: str
    home: str


DATASETS = {
    item.name: item
    for item in (
        DataSet("cifar10", "CIFAR-10, 32 x 32", {"train": 50_000, "test": 10_000}, 163,
                "no formal licence; its authors ask to cite Krizhevsky 2009", "https://www.cs.toronto.edu/~kriz/cifar.html"),
        DataSet("kodak", "Kodak true colour suite, 768 x 512", {"all": 24}, 15,
                "released by Eastman Kodak for unrestricted use", "http://r0k.us/graphics/kodak/"),
        DataSet("bsds500", "Berkeley segmentation, 481 x 321, JPEG", {"train": 200, "val": 100}, 71,
                "non-commercial research and education; cite Arbelaez et al. 2011",
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"),
    )
}
# (set, split): where its files may lie below a data folder, the re-packed layout first, then the original archives'.
LAYOUTS = {
    ("cifar10", "train"): ("cifar10/train_?of5.webp", "cifar10/cifar-10-batches-bin/data_batch_?.bin",
                           "cifar-10-batches-bin/data_batch_?.bin"),
    ("cifar10", "test"): ("cifar10/test_first1000.webp", "cifar10/cifar-10-batches-bin/test_batch.bin",
                          "cifar-10-batches-bin/test_batch.bin"),
    ("kodak", "all"): ("kodak/kodim??.png", "kodim??.png"),
    ("bsds500", "train"): ("bsds500/train/*.jpg", "bsds500/BSR/BSDS500/data/images/train/*.jpg",
                           "BSR/BSDS500/data/images/train/*.jpg"),
    ("bsds500", "val"): ("bsds500/val/*.jpg", "bsds500/BSR/BSDS500/data/images/val/*.jpg",
                         "BSR/BSDS500/data/images/val/*.jpg"),
}
_NAMED = 8  # of files that are left out, how many are named
_RECORD = 1 + 3 * 32 * 32  # one image of CIFAR-10's binary version: a label, then red, green and blue planes


def cache_folder():
    """The folder that `shvc data get` fills: $XDG_CACHE_HOME/shvc_lib, by default ~/.cache/shvc_lib."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shvc_lib"


def data_folders():
    """The folders searched for data sets, in order: $SHVC_DATA if set, then the cache folder."""
    named = os.environ.get("SHVC_DATA")
    return ([Path(named).expanduser()] if named else []) + [cache_folder()]


def find(name, split, count=None):
    """(paths, number of images in them) of a split, from the first place that holds `count` images (None: all).

    Raises `InvalidInput` for an unknown name or split or a count that no copy of the set could hold, `MissingData`
    (one line naming both ways of getting the set) if it is not here or only in part.
    """
    if (name, split) not in LAYOUTS:
        raise InvalidInput(f"no data set {name!r} with split {split!r}; there are "
                           + ", ".join(f"{n} {s}" for n, s in LAYOUTS))
    whole = DATASETS[name].images[split]
    wanted = whole if count is None else count
    if not 0 < wanted <= whole:
        raise InvalidInput(f"{name} {split} has {whole} images, asked for {wanted}")
    best = 0
    for folder in data_folders():
        for pattern in LAYOUTS[name, split]:
            paths = sorted(folder.glob(pattern))
            held = sum(_images_in(path) for path in paths)
            if held >= wanted:
                return paths, held
            best = max(best, held)
    ways = f"run `shvc data get {name}`, or name a folder that holds it in the environment variable SHVC_DATA"
    if best:
        raise MissingData(f"only {best} of the {whole} images of {name} {split} are here, asked for {wanted}: "
                          f"ask for at most {best}, or {ways}")
    raise MissingData(f"{name} {split} is not here: {ways}")


def _images_in(path):
    """How many images a file holds, without decoding it (0 if it cannot be told)."""
    if path.suffix == ".bin":
        return path.stat().st_size // _RECORD
    if path.suffix == ".webp":
        try:
            with Image.open(path) as mosaic:
                return (mosaic.width // 32) * (mosaic.height // 32)
        except OSError:
            return 0
    return 1


def available(name, split=None):
    """True if the set is here and whole: every split of it, or only `split`."""
    if name not in DATASETS:
        raise InvalidInput(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    try:
        for one in DATASETS[name].images if split is None else (split,):
            find(name, one)
    except MissingData:
        return False
    return True


def cifar10(split="train", count=None):
    """The first `count` CIFAR-10 images (None: the whole split), uint8 (N, 32, 32, 3), labels left out.

    Where only the first 1000 test images are stored, asking for more raises `MissingData` saying so: a result on them
    is a result on "the first 1000 CIFAR-10 test images".
    """
    paths, _ = find("cifar10", split, count)
    batches, left = [], count
    for path in paths:  # stop as soon as there are enough: a mosaic takes a second to decode
        batch = _binary_batch(path) if path.suffix == ".bin" else _mosaic(path)
        batches.append(batch[:left])
        if left is not None and (left := left - len(batches[-1])) == 0:
            break
    return np.concatenate(batches)


def _binary_batch(path):
    data = np.fromfile(path, np.uint8)
    if data.size % _RECORD:
        raise CorruptFile(f"{path}: {data.size} bytes is not a whole number of {_RECORD}-byte CIFAR-10 records")
    return np.ascontiguousarray(data.reshape(-1, _RECORD)[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _mosaic(path):
    tiles = read_image(path)
    if tiles.ndim != 3 or tiles.shape[2] != 3 or tiles.shape[0] % 32 or tiles.shape[1] % 32:
        raise CorruptFile(f"{path}: a mosaic of 32 x 32 RGB tiles was expected, found shape {tiles.shape}")
    return tiles.reshape(tiles.shape[0] // 32, 32, -1, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


def kodak(count=None):
    """The first `count` (None: all 24) Kodak photographs, a list of uint8 (512, 768, 3) or (768, 512, 3)."""
    return [read_image(path) for path in find("kodak", "all", count)[0][:count]]


def bsds500(split="train", count=None):
    """The first `count` BSDS500 images of "train" (200) or "val" (100), a list of uint8 (321, 481, 3) or turned.

    They are JPEG files: good for training lossy models, meaningless as a test of a lossless one.
    """
    return [read_image(path) for path in find("bsds500", split, count)[0][:count]]


def folder(path):
    """Every image file in a folder, sorted by name: a list of (file name, uint8 or uint16 image). Raises MissingData, and what `read_image` raises."""
    return [(file.name, read_image(file)) for file in _image_files(path)]


def pictures(name, why_not=lambda image: ""):
    """Images to measure codecs on: (pairs (name, image), note). `name`: photographs (the embedded ones), kodak, or a folder of image files, of which
    those that cannot be read, or about which why_not(image) says something, are left out: note is a line that says which and why, or "".

    Raises MissingData (no such folder, no image files) and UnsupportedImage (none of them is left)."""
    if name == "photographs":
        return [(one, photograph(one)) for one in PHOTOGRAPHS], ""
    if name == "kodak":
        return [(f"kodim{i:02d}", image) for i, image in enumerate(kodak(), 1)], ""
    found, out, files = [], [], _image_files(name)
    for file in files:
        try:
            image = read_image(file)
            why = why_not(image)
        except ShvcError as error:
            why = str(error).removeprefix(f"{file}: ")
        if why:
            out.append(f"{file.name} ({why})")
        else:
            found.append((file.name, image))
    said = ", ".join(out[:_NAMED]) + f" and {len(out) - _NAMED} more" * (len(out) > _NAMED)
    if not found:
        raise UnsupportedImage(f"{name}: none of its {len(files)} image files can be measured: {said}")
    return found, f"left out {len(out)} of {len(files)} image files: {said}\n" if out else ""


def _image_files(path):
    path = Path(path)
    if not path.is_dir():
        raise MissingData(f"{path}: no such folder")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise MissingData(f"{path}: no image files here")
    return files


def table():
    """What `shvc data list` prints: each data set, its size and terms, and where it is on this machine."""
    lines = ["embedded photographs (always here): " + ", ".join(PHOTOGRAPHS)]
    for item in DATASETS.values():
        count = ", ".join(f"{split} {number}" for split, number in item.images.items())
        lines += ["", f"{item.name}: {item.title}; images: {count}; download {item.download_mb} MB",
                  f"  terms: {item.terms}", f"  home:  {item.home}"]
        for split, whole in item.images.items():
            lines.append(f"  {split}: {_where(item.name, split, whole)}")
    return "\n".join(lines)


def _where(name, split, whole):
    for enough in (whole, 1):
        try:
            paths, held = find(name, split, enough)
            return f"{held} of {whole} in {paths[0].parent}"
        except MissingData:
            continue
    return f"not here (shvc data get {name})"
