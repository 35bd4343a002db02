"""The cover's sums are right: the toy it draws really codes, and the library's stack charges the same bits for it."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from shvc_lib.coding import BitStack, Uniform

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("draw_cover", ROOT / "tools" / "draw_cover.py")
cover = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cover)


def test_the_catalogue_is_the_one_the_landing_page_describes():
    assert all(len(set(cover.knows(z))) == 8 for z in range(16))
    assert all(len(cover.painters_of(x)) == 4 for x in range(32))


@pytest.mark.parametrize("picture", range(cover.PICTURES))
def test_every_picture_costs_five_bits_and_gives_the_borrowed_bits_back(picture):
    for number in range(64):
        stack = cover.push([], number, 6)
        stages, painter = cover.send(stack, picture)
        assert [len(s) for s in stages] == [6, 4, 7, 11]
        assert picture in cover.knows(painter)
        assert cover.receive(stages[-1]) == (picture, stack)


def test_the_library_charges_the_same_bits():
    stack = BitStack.random(100, seed=1)
    before, sizes = stack.copy(), [stack.bits]
    choice = int(stack.pop(Uniform(4), 1)[0])  # q(z | x): which of the four painters
    painter = cover.painters_of(cover.PICTURE)[choice]
    sizes.append(stack.bits)
    stack.push(np.array([cover.knows(painter).index(cover.PICTURE)]), Uniform(8))  # p(x | z)
    sizes.append(stack.bits)
    stack.push(np.array([painter]), Uniform(16))  # p(z)
    sizes.append(stack.bits)
    assert np.diff(sizes).tolist() == [-2, 3, 4]

    painter = int(stack.pop(Uniform(16), 1)[0])
    picture = cover.knows(painter)[int(stack.pop(Uniform(8), 1)[0])]
    stack.push(np.array([cover.painters_of(picture).index(painter)]), Uniform(4))
    assert picture == cover.PICTURE and stack == before


@pytest.mark.parametrize("name, colours", [("cover-light.svg", cover.LIGHT), ("cover-dark.svg", cover.DARK)])
def test_the_committed_drawing_is_the_one_the_script_draws(name, colours):
    drawn = (ROOT / "book" / "figures" / name).read_text(encoding="utf-8")
    assert drawn == cover.draw(colours), "run python tools/draw_cover.py"
    assert len(drawn) < 100_000
    ET.fromstring(drawn)  # well-formed
