"""How the book's figures look: readable type, thin grids, and colours that everyone can tell apart.

The colours are those of Okabe and Ito (2008), chosen to stay distinct under the common kinds of colour blindness.
Each has one meaning throughout the book: a learned model is blue, a classical codec vermilion, theory black.
Figures are as wide as the page's column (6.4 inches at 100 points per inch) and keep a white ground, so that they
stay legible when the page is dark.

Used by every chapter; `style()` is called once, in a notebook's first cell.
"""

import numpy as np

from ..errors import InvalidInput

MODEL = "#0072B2"  # blue: learned models
CLASSICAL = "#D55E00"  # vermilion: classical codecs
THEORY = "#000000"  # black: what theory says
ACCENT = "#009E73"  # green: a second curve of our own
HIGHLIGHT = "#CC79A7"  # purple: the thing to look at
AMBER = "#E69F00"  # orange: a warning, or a fifth curve

CYCLE = (MODEL, CLASSICAL, ACCENT, HIGHLIGHT, AMBER, "#56B4E9", THEORY)

WIDTH = 6.4  # inches: the column of the page
DPI = 100  # one inch is 100 CSS pixels; the picture itself has twice as many


def style():
    """Set the book's matplotlib style for the running process, and sharp pictures inside a notebook.

    The layout engine is `constrained`, which keeps labels inside the figure, so no `tight_layout()` is needed.
    Outside IPython only the `rcParams` change. Calling it twice does no harm.
    """
    import matplotlib

    matplotlib.rcParams.update({
        "figure.figsize": (WIDTH, 3.6),
        "figure.dpi": DPI,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "savefig.facecolor": "white",
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#d9d9d9",
        "grid.linewidth": 0.6,
        "lines.linewidth": 2.0,
        "lines.markersize": 5,
        "image.cmap": "gray",
        "image.interpolation": "nearest",
    })
    _sharp_pictures_in_notebooks()


def _sharp_pictures_in_notebooks():
    """Ask Jupyter's inline backend for PNGs with two dots per CSS pixel; silently nothing outside IPython."""
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def show_images(images, titles=None, *, columns=None, scale=1.0):
    """Show images side by side, without axes, each pixel a square.

    images  a sequence of arrays (H, W) or (H, W, 3): uint8, or floats in [0, 1]
    titles  one string for each image, or None
    columns images in a row; all of them in one row when None
    scale   1.0 fills the page's width, 0.5 half of it

    Returns the matplotlib Figure. Raises InvalidInput for an empty sequence, another shape, or titles that do not match.
    """
    images = [np.asarray(image) for image in images]
    if not images:
        raise InvalidInput("show_images needs at least one image")
    for image in images:
        if image.ndim != 2 and image.shape[2:] != (3,):
            raise InvalidInput(f"an image has shape (H, W) or (H, W, 3), not {image.shape}")
    if titles is not None and len(titles) != len(images):
        raise InvalidInput(f"{len(titles)} titles for {len(images)} images")
    if columns is not None and columns < 1:
        raise InvalidInput(f"columns must be at least 1, not {columns}")
    import matplotlib.pyplot as plt

    columns = min(columns or len(images), len(images))
    shapes = [image.shape[0] / image.shape[1] for image in images]
    tallest = [max(shapes[i:i + columns]) for i in range(0, len(images), columns)]  # of each row
    lines = 0 if titles is None else max(title.count("\n") + 1 for title in titles)
    heights = [WIDTH * scale / columns * shape + 0.22 * lines for shape in tallest]
    figure, axes = plt.subplots(
        len(heights), columns, figsize=(WIDTH * scale, sum(heights)), height_ratios=heights, squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for index, (ax, image) in enumerate(zip(axes.flat, images)):
        top = 255 if image.dtype == np.uint8 else 1.0
        ax.imshow(image, vmin=0, vmax=top)
        if titles is not None:
            ax.set_title(titles[index])
    return figure
