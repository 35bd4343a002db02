"""A slider that works in a page nobody serves: precomputed pictures behind a range input.

A figure with a parameter is drawn once for each of its values while the notebook runs. The pictures go into the
page as data, next to a few lines of JavaScript that swap them when the slider moves. Nothing is fetched and nothing
is installed, so the figure works offline, from a `file://` page, in a running notebook, and by mouse, touch or
keyboard. Without JavaScript the reader sees the starting picture, which is an ordinary `<img>` with its
description. `Frames.live()` shows the same pictures with an ipywidgets slider.

First used in chapter 1; `book/how_to_use.md` shows it to the reader.
"""

import base64
import io
import json
import re
from dataclasses import dataclass
from html import escape

from ..errors import InvalidInput, MissingData

MAX_FRAMES = 40
MAX_BYTES = 4_000_000  # of pictures in one figure; more makes a page slow to open on a phone

# The controls are hidden until the script has run, so that a page without JavaScript shows no dead slider.
# `autocomplete=off` stops a browser from restoring an old position beside the starting picture.
_TEMPLATE = """\
<{tag} class="frames" id="{id}" role="group" aria-label="{group}" style="margin:1em 0;max-width:100%">
<img src="{src}" alt="{alt}" width="{width}" height="{height}"\
 style="display:block;max-width:100%;height:auto;background:#fff">
<div class="frames-control" hidden\
 style="max-width:{width}px;padding:.5em 0;align-items:center;flex-wrap:wrap;gap:.3em .8em">
<label for="{id}-range">{label}</label>
<input type="range" id="{id}-range" min="0" max="{last}" step="1" value="{start}" autocomplete="off"\
 aria-valuetext="{text}" style="flex:1 1 10em;min-width:8em;height:1.8em;accent-color:#0072B2">
<output for="{id}-range" aria-live="off" style="min-width:4em;font-variant-numeric:tabular-nums">{text}</output>
</div>
{caption}<script type="application/json" class="frames-data">{data}</script>
<script>
for (const box of document.querySelectorAll('[id="{id}"]')) {{
  const pictures = JSON.parse(box.querySelector(".frames-data").textContent);
  const [image, range, output] = ["img", "input", "output"].map(name => box.querySelector(name));
  const show = () => {{
    const [src, alt, text] = pictures[range.value];
    image.src = src;
    image.alt = alt;
    output.textContent = text;
    range.setAttribute("aria-valuetext", text);
  }};
  range.oninput = show;
  range.parentElement.hidden = false;
  range.parentElement.style.display = "flex";
}}
</script>
</{tag}>"""


@dataclass(frozen=True)
class Picture:
    """One drawn frame: its data URI, its description for those who cannot see it, and the slider's text."""

    src: str
    alt: str
    text: str


@dataclass(frozen=True)
class Frames:
    """Pictures behind a slider. Jupyter and the book display it; `live()` gives the ipywidgets twin.

    pictures  a tuple of Picture, one for each value
    width, height  in CSS pixels
    """

    pictures: tuple
    label: str
    name: str
    caption: str | None
    start: int
    width: int
    height: int

    def __len__(self):
        return len(self.pictures)

    def __repr__(self):
        return f"Frames({self.name!r}, {len(self)} pictures of {self.width} x {self.height}, starting at {self.start})"

    def _repr_html_(self):
        first = self.pictures[self.start]
        data = json.dumps([[p.src, p.alt, p.text] for p in self.pictures], ensure_ascii=False)
        caption = "" if self.caption is None else f"<figcaption>{escape(self.caption)}</figcaption>\n"
        return _TEMPLATE.format(
            tag="div" if self.caption is None else "figure",
            id=f"frames-{self.name}",
            group=escape(self.label),
            src=first.src,
            alt=escape(first.alt),
            text=escape(first.text),
            label=escape(self.label),
            width=self.width,
            height=self.height,
            last=len(self) - 1,
            start=self.start,
            caption=caption,
            data=data.replace("<", "\\u003c"),  # a "</script>" in a description must not end the data
        )

    def live(self):
        """The same pictures behind an ipywidgets slider, for a running notebook.

        Returns an ipywidgets VBox. Raises MissingData, in one line, when ipywidgets is not installed.
        """
        try:
            import ipywidgets as widgets
        except ImportError:
            raise MissingData("Frames.live() needs ipywidgets: pip install 'ipywidgets>=8'") from None

        # An HTML widget and not an Image widget, because the latter cannot carry a description.
        picture, text = widgets.HTML(), widgets.Label()
        slider = widgets.IntSlider(
            value=self.start, min=0, max=len(self) - 1, description=self.label, readout=False,
            style={"description_width": "initial"},
        )

        def show(index):
            frame = self.pictures[index]
            picture.value = (
                f'<img src="{frame.src}" alt="{escape(frame.alt)}" width="{self.width}" style="max-width:100%">'
            )
            text.value = frame.text

        slider.observe(lambda change: show(change["new"]), names="value")
        show(self.start)
        return widgets.VBox([picture, widgets.HBox([slider, text])])


def frames(draw, values, *, label, alt, name, caption=None, start=0, value_text=None, dpi=200, format="webp",
           lossless=True):
    """Draw one figure for each value and put them behind a slider.

    draw        function of one value that returns a matplotlib Figure; every figure must have the same size
    values      the values, in the slider's order: at most 40
    label       what the slider changes, in a few words ("trade-off, bits per unit of distortion")
    alt         what the picture shows, for those who cannot see it: a string (the slider's text is added to it),
                or a function of the value that returns one
    name        the figure's own name: lower-case letters, digits and hyphens, unique on its page. It makes the
                element's id ("frames-" + name), so the same notebook always gives the same page
    caption     text under the figure in a running notebook; the book takes its caption from the cell's metadata
    start       index of the value shown first
    value_text  function of the value that returns the text beside the slider; by default numbers as "%g"
    dpi         pixels per inch; the picture is shown at 100 per inch, so 200 is sharp on any screen
    format      "webp" or "svg" (sharp lines, but large for images and scatter plots)
    lossless    False makes WebP pictures of photographs several times smaller

    Returns Frames. Raises InvalidInput for an argument that breaks these rules, for figures of different sizes,
    and when the pictures take more than 4 MB together.
    """
    values = list(values)
    if not 1 <= len(values) <= MAX_FRAMES:
        raise InvalidInput(f"frames takes 1 to {MAX_FRAMES} values, not {len(values)}")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InvalidInput(f"name must be lower-case letters, digits and single hyphens, not {name!r}")
    if not isinstance(label, str) or not label.strip():
        raise InvalidInput("label must say what the slider changes")
    if start not in range(len(values)):
        raise InvalidInput(f"start must be an index from 0 to {len(values) - 1}, not {start!r}")
    if format not in ("webp", "svg"):
        raise InvalidInput(f"format must be 'webp' or 'svg', not {format!r}")

    pictures, sizes = [], set()
    for value in values:
        text = value_text(value) if value_text else _default_text(value)
        description = alt(value) if callable(alt) else f"{alt} ({label}: {text})" if alt else ""
        if not isinstance(description, str) or not description.strip():
            raise InvalidInput(f"alt must describe the picture at {value!r}")
        src, size = _picture(draw(value), dpi, format, lossless, name)
        pictures.append(Picture(src, description, text))
        sizes.add(size)
    if len(sizes) > 1:
        raise InvalidInput(f"every figure must have the same size; draw returned {sorted(sizes)} pixels")
    total = sum(len(picture.src) for picture in pictures)
    if total > MAX_BYTES:
        raise InvalidInput(
            f"the pictures take {total / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}:"
            " use fewer values, a smaller figure, or lossless=False for photographs"
        )
    return Frames(tuple(pictures), label, name, caption, start, *sizes.pop())


def _default_text(value):
    try:
        return f"{value:g}"
    except (TypeError, ValueError):
        return str(value)


def _picture(figure, dpi, format, lossless, salt):
    """Draw a Figure into a data URI and its size in CSS pixels, and close it."""
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
    from PIL import Image

    if not isinstance(figure, Figure):
        raise InvalidInput(f"draw must return a matplotlib Figure, not {type(figure).__name__}")
    size = tuple(round(100 * inches) for inches in figure.get_size_inches())
    buffer = io.BytesIO()
    if format == "svg":
        # Fixed ids and no date, so that a rebuilt page is the same page.
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches=None)
        kind = "svg+xml"
    else:
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches=None, pil_kwargs={"compress_level": 1})
        image = Image.open(buffer).convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, format="WEBP", lossless=lossless, quality=100 if lossless else 85, method=4)
        kind = "webp"
    plt.close(figure)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode(), size
