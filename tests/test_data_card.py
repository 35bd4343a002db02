"""What data/README.md says about the embedded photographs, checked on their pixels.

A picture that has been through JPEG keeps a fingerprint: cut along the old 8 x 8 grid, its cosine coefficients still lie near
multiples of the quantiser's step. For such a coefficient c and the right step q, the mean of exp(2 pi i c / q) has a modulus
near 1; on a wrong grid, or without a JPEG in its past, the phases cancel.
"""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from shvc_lib import data

ROOT = Path(__file__).resolve().parent.parent
CARD = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
COEFFICIENTS = [(0, 2), (1, 2), (2, 0), (2, 1)]


def jpeg_coherence(image):
    """The largest coherence over the 64 grids, four low frequencies and all steps that the data could show; and its grid."""
    luma = image @ np.array([0.299, 0.587, 0.114]) - 128
    best = (0.0, None)
    for row in range(8):
        for column in range(8):
            cut = luma[row:, column:]
            height, width = cut.shape[0] // 8, cut.shape[1] // 8
            blocks = cut[: 8 * height, : 8 * width].reshape(height, 8, width, 8).swapaxes(1, 2)
            transformed = dctn(blocks, axes=(2, 3), norm="ortho")
            for u, v in COEFFICIENTS:
                c = transformed[:, :, u, v].ravel()
                c = c[np.abs(c) > 1.5]
                for step in range(2, min(25, int(np.abs(c).mean()) + 1)):
                    best = max(best, (abs(np.exp(2j * np.pi * c / step).mean()), (row, column)))
    return best


@pytest.mark.parametrize("name", data.PHOTOGRAPHS)
def test_only_the_stained_tissue_was_once_a_jpeg(name):
    coherence, grid = jpeg_coherence(data.photograph(name))
    if name == "immunohistochemistry":
        assert coherence > 0.8 and grid == (3, 5)
    else:
        assert coherence < 0.25


def colour_alternation(image):
    """Red minus green from column to column: the larger mean step of even and of odd columns over the smaller. Colours that were
    once stored at half width and interpolated have every other step smaller."""
    steps = np.abs(np.diff(image[..., 0].astype(int) - image[..., 1], axis=1)).mean(0)
    even, odd = steps[::2].mean(), steps[1::2].mean()
    return max(even, odd) / min(even, odd)


@pytest.mark.parametrize("name", data.PHOTOGRAPHS)
def test_which_colours_were_once_stored_at_half_width(name):
    alternation = colour_alternation(data.photograph(name))
    assert alternation > 1.2 if name in ("chelsea", "immunohistochemistry") else alternation < 1.06, alternation


def test_the_fingerprint_is_found_where_there_is_one():
    crop = data.photograph("chelsea")[:200, :208]
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=80)
    coherence, grid = jpeg_coherence(np.asarray(Image.open(file))[5:, 2:])
    assert coherence > 0.5 and grid == (3, 6)


def test_the_card_lists_the_photographs_with_their_sizes():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ × \d+) \|", CARD, re.M))
    assert rows == {name: "{} × {}".format(*data.photograph(name).shape[:2]) for name in data.PHOTOGRAPHS}


def test_the_card_lists_the_data_sets_with_their_sizes():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| (\d+) MB \|", CARD, re.M))
    assert rows == {name: str(item.download_mb) for name, item in data.DATASETS.items()}


def test_the_card_lists_the_results():
    assert re.findall(r"^\| `(\w+\.json)` \|", CARD, re.M) == sorted(path.name for path in (ROOT / "data" / "results").glob("*"))


def test_the_repository_holds_no_photographs():
    kinds = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jxl", ".avif"}
    folders = ["book", "data", "shvc_lib", "tests", "tools"]
    assert [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix.lower() in kinds] == []
