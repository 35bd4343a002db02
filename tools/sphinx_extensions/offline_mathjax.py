"""A Sphinx extension that puts MathJax into the book, so that formulas need no network.

The package `sphinx-mathjax-offline` carries MathJax 3.2.2, Apache-2.0, in a folder that Python cannot import by name (it
has hyphens), and would copy all of it, 24 MB. This extension copies the three parts that a page can ask for: the
component itself, its fonts, and the TeX extensions that it loads when a formula uses one of their commands.
"""

import shutil
from importlib.metadata import files
from pathlib import Path

PARTS = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")


def mathjax_folder():
    """The installed package's folder of MathJax files."""
    component = next(f for f in files("sphinx-mathjax-offline") if f.name == "tex-chtml.js")
    return Path(component.locate()).parent


def copy_mathjax(app, exception):
    """Copy the parts into the built book's static folder."""
    if exception is not None or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy(source / part, target / part)


def setup(app):
    app.config.mathjax_path = "mathjax/" + PARTS[0]
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
