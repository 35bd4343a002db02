"""A Sphinx extension for readers who want to run the notebooks: one file from each page, and one archive with all of them.

The theme's download button leads to a page's source, which Sphinx copies to `_sources`. This extension writes the copies anew, as
they are wanted outside the book: the first cell says what a notebook needs, and the code that the page hides is folded, not shown.
No cell is left out, since later ones need it. The archive holds the same files; its bytes depend on nothing but them.
"""

import copy
import json
import zipfile
from pathlib import Path

ARCHIVE = "bits-back-notebooks.zip"
NEEDS = (
    "> **To run this notebook** you need the book's folder, where the library `shvc_lib` and `data/` are, and Python 3.10 to 3.13.\n"
    "> In that folder, `make venv` makes an environment with everything else. Open the notebook with that environment.\n"
)
README = """\
Bits Back: the notebooks of the book, without outputs.

They need the book's folder, where the library shvc_lib and data/ are, and Python 3.10 to 3.13. In that folder,
`make venv` makes an environment with everything else. Open the notebooks with that environment, from any place:

    .venv/bin/pip install jupyterlab
    .venv/bin/jupyter lab

Each runs from its first cell to its last without a network, on a processor alone, in one or two minutes.

Text under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), code under the MIT licence.

"""
HIDDEN_IN_THE_PAGE = {"remove-cell", "remove-input", "hide-cell", "hide-input"}


def runnable(notebook):
    """A copy of a notebook, given as its JSON, to be run by a reader: no outputs, needs under the title, hidden code folded."""
    notebook = copy.deepcopy(notebook)
    first = notebook["cells"][0]
    title, _, text = "".join(first["source"]).partition("\n")
    first["source"] = f"{title}\n\n{NEEDS}\n{text.lstrip()}".splitlines(keepends=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
            if HIDDEN_IN_THE_PAGE & set(cell["metadata"].get("tags", [])):
                cell["metadata"]["jupyter"] = {"source_hidden": True}
    return notebook


def archive(path, files):
    """Write a zip of `files`, a dictionary from names to texts. Equal files make equal bytes: no times, no compression."""
    with zipfile.ZipFile(path, "w") as target:
        for name, text in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{Path(ARCHIVE).stem}/{name}")
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            target.writestr(entry, text.encode())


def write_downloads(app, exception):
    """Put the runnable notebooks in the place of the sources, and the archive beside the pages."""
    if exception is not None or app.builder.format != "html":
        return
    out, files = Path(app.outdir), {}
    for page in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(page))
        if source.suffix == ".ipynb":
            notebook = runnable(json.loads(source.read_text(encoding="utf-8")))
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
            (out / "_sources" / f"{page}.ipynb").write_text(text, encoding="utf-8")
            files[f"{page.removeprefix('book/')}.ipynb"] = text
    archive(out / ARCHIVE, files | {"README.txt": README + "".join(f"  {name}\n" for name in files)})


def setup(app):
    app.connect("build-finished", write_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
