"""The book's figures: what the slider's HTML holds, and what the helpers refuse."""

import base64
import builtins
import io
import json
import re
import sys

import matplotlib
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from shvc_lib import viz
from shvc_lib.errors import InvalidInput, MissingData

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402


def bar(value, size=(2.0, 1.0)):
    figure, ax = plt.subplots(figsize=size)
    ax.bar([0], [value])
    return figure


def make(values=(1, 2, 3), draw=bar, **changes):
    arguments = dict(label="height h", alt=lambda h: f"A bar of height {h}", name="a-bar") | changes
    return viz.frames(draw, values, **arguments)


def parts(figure):
    soup = BeautifulSoup(figure._repr_html_(), "html.parser")
    return soup, json.loads(soup.find("script", class_="frames-data").string)


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_the_starting_picture_is_an_image_with_its_own_description():
    soup, data = parts(make(start=1))
    image = soup.img
    assert (image["alt"], image["src"]) == ("A bar of height 2", data[1][0])
    assert (image["width"], image["height"]) == ("200", "100")
    assert decode(image["src"]).size == (400, 200)


def test_each_value_has_its_own_picture_description_and_text():
    _, data = parts(make(value_text=lambda h: f"{h} cm"))
    assert len({src for src, _, _ in data}) == 3
    assert [alt for _, alt, _ in data] == [f"A bar of height {h}" for h in (1, 2, 3)]
    assert [text for _, _, text in data] == ["1 cm", "2 cm", "3 cm"]


def test_a_single_description_is_completed_by_the_value():
    _, data = parts(make([0.5, 2], alt="A bar"))
    assert [alt for _, alt, _ in data] == ["A bar (height h: 0.5)", "A bar (height h: 2)"]


def test_the_slider_is_labelled_and_says_its_value():
    soup, _ = parts(make(start=2))
    range_ = soup.find("input", type="range")
    assert soup.label["for"] == range_["id"] == "frames-a-bar-range"
    assert soup.label.string == "height h"
    assert (range_["min"], range_["max"], range_["value"], range_["aria-valuetext"]) == ("0", "2", "2", "3")
    assert soup.output.string == "3"
    assert soup.find(class_="frames-control").has_attr("hidden"), "a page without JavaScript must not show a dead slider"


def test_the_same_call_gives_the_same_page():
    for kind in ("webp", "svg"):
        assert make(format=kind)._repr_html_() == make(format=kind)._repr_html_()


def test_nothing_is_fetched():
    soup, data = parts(make(format="svg", caption="A caption"))
    assert all(src.startswith("data:image/svg+xml;base64,") for src, _, _ in data)
    assert not soup.find_all(["link", "iframe"]) and not soup.find_all("script", src=True)


def test_text_is_escaped_everywhere():
    tricky = 'a "b" & </script><b>'
    soup, data = parts(make(alt=lambda h: tricky, label=tricky, caption=tricky, value_text=lambda h: tricky))
    assert soup.img["alt"] == data[0][1] == soup.label.string == soup.figcaption.string == soup.output.string == tricky
    assert soup.find("b") is None


def test_only_a_caption_makes_it_a_figure_of_its_own():
    assert parts(make())[0].find("figure") is None
    assert parts(make(caption="Heights"))[0].figure.figcaption.string == "Heights"


def test_figures_are_closed():
    before = plt.get_fignums()
    make()
    assert plt.get_fignums() == before


def test_lossy_pictures_are_smaller():
    noise = np.random.default_rng(0).random((100, 200))

    def draw(value):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.imshow(noise * value, vmin=0, vmax=3)
        return figure

    assert len(make(draw=draw, lossless=False)._repr_html_()) < 0.7 * len(make(draw=draw)._repr_html_())


@pytest.mark.parametrize("changes, message", [
    (dict(values=[]), "1 to 40 values, not 0"),
    (dict(values=range(41)), "1 to 40 values, not 41"),
    (dict(name="A Bar"), "lower-case"),
    (dict(label=" "), "label"),
    (dict(alt=""), "alt must describe"),
    (dict(alt=lambda h: ""), "alt must describe"),
    (dict(start=3), "from 0 to 2"),
    (dict(start=-1), "from 0 to 2"),
    (dict(format="gif"), "'webp' or 'svg'"),
    (dict(draw=lambda h: None), "matplotlib Figure, not NoneType"),
    (dict(draw=lambda h: bar(h, size=(h, 1))), "same size"),
])
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(InvalidInput, match=re.escape(message)):
        make(**changes)


def test_heavy_figures_are_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["shvc_lib.viz.frames"], "MAX_BYTES", 1000)
    with pytest.raises(InvalidInput, match="fewer values"):
        make()


def test_the_live_twin_shows_the_same_pictures():
    pytest.importorskip("ipywidgets")
    figure = make(start=1)
    picture, controls = figure.live().children
    slider, text = controls.children
    assert figure.pictures[1].src in picture.value and text.value == "2"
    slider.value = 2
    assert figure.pictures[2].src in picture.value and "A bar of height 3" in picture.value and text.value == "3"


def test_the_live_twin_without_ipywidgets_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "ipywidgets":
            raise ImportError(name)
        return original(name, *rest, **named)

    figure = make()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingData, match="pip install"):
        figure.live()


def test_style_sets_the_palette_and_keeps_labels_inside():
    with matplotlib.rc_context():
        viz.style()
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == viz.MODEL
        assert matplotlib.rcParams["figure.constrained_layout.use"]


def test_show_images_lays_out_rows_and_titles():
    grey, colour = np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3))
    figure = viz.show_images([grey, colour, grey], ["a", "b", "c"], columns=2)
    assert len(figure.axes) == 4 and [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    assert figure.axes[0].images[0].get_clim() == (0, 255), "a dark photograph must stay dark"
    plt.close(figure)


@pytest.mark.parametrize("arguments, message", [
    (dict(images=[]), "at least one"),
    (dict(images=[np.zeros(3)]), "shape"),
    (dict(images=[np.zeros((2, 2, 4))]), "shape"),
    (dict(images=[np.zeros((2, 2))], titles=["a", "b"]), "2 titles for 1 images"),
    (dict(images=[np.zeros((2, 2))], columns=0), "columns"),
])
def test_show_images_refuses_what_is_not_an_image(arguments, message):
    with pytest.raises(InvalidInput, match=re.escape(message)):
        viz.show_images(**arguments)
