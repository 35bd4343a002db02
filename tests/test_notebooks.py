"""What a committed notebook must be: stripped of outputs, addressable, and described where it shows a picture."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
NAMES = [str(p.relative_to(ROOT)) for p in NOTEBOOKS]

FORBIDDEN = {
    r"^\s*[!%]\s*(pip|conda|apt|wget|curl)": "installs or downloads",
    r"\b(urllib|requests|urlopen|wget|pooch)\b": "downloads",
    r"\bpickle\b|allow_pickle\s*=\s*True": "uses pickle",
    r"[\"'](/home|/Users|/tmp|/root|/work|[A-Z]:\\\\)": "names a path of one machine",
}


def source(cell):
    return "".join(cell["source"])


def findings(notebook):
    """What is wrong with a notebook, given as its JSON: a list of lines."""
    found = []
    cells = notebook["cells"]
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        found.append("it is older than format 4.5, which has cell ids")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    if "widgets" in notebook["metadata"]:
        found.append("it holds the state of widgets")
    if not (cells and cells[0]["cell_type"] == "markdown" and source(cells[0]).startswith("# ")):
        found.append("it does not begin with a title")
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) < len(ids):
        found.append("a cell has no id, or two have the same")
    for cell in cells:
        where = f"cell {cell.get('id')}"
        if cell["cell_type"] != "code":
            continue
        if cell["outputs"]:
            found.append(f"{where} has outputs")
        if cell["execution_count"] is not None:
            found.append(f"{where} has an execution count")
        for pattern, what in FORBIDDEN.items():
            if re.search(pattern, source(cell), re.MULTILINE):
                found.append(f"{where} {what}")
        settings = cell["metadata"].get("mystnb", {})
        if "figure" in settings:
            figure, alt = settings["figure"], settings.get("image", {}).get("alt", "")
            if not figure.get("caption", "").strip():
                found.append(f"{where} shows a figure without a caption")
            if not figure.get("name", "").startswith("fig-"):
                found.append(f"{where} shows a figure whose name does not begin with fig-")
            if not alt.strip() and not uses_frames(cells, cell):
                found.append(f"{where} shows a figure without an alt text")
    return found


def uses_frames(cells, cell):
    """Whether a cell shows `viz.frames`, whose pictures bring their own descriptions: made here or named last."""
    if "frames(" in source(cell):
        return True
    name = source(cell).strip().splitlines()[-1] if source(cell).strip() else ""
    return any(re.search(rf"^{re.escape(name)} = (viz\.)?frames\(", source(c), re.MULTILINE) for c in cells if name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook(path):
    assert findings(json.loads(path.read_text(encoding="utf-8"))) == []


def test_there_are_notebooks_and_each_is_in_the_table_of_contents():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {contents["root"]} | {page["file"] for part in contents["parts"] for page in part["chapters"]}
    assert NOTEBOOKS
    assert {name.removesuffix(".ipynb") for name in NAMES} <= listed
    for page in listed:
        assert any((ROOT / f"{page}{suffix}").exists() for suffix in (".md", ".ipynb")), f"{page} does not exist"


def test_no_name_is_used_twice_in_the_book():
    """Figures are referred to by name from any page, and a slider's name becomes an id."""
    for pattern in (r'"name": "(fig-[^"]+)"', r'frames\([^)]*?name=\\"([a-z0-9-]+)\\"'):
        names = [n for path in NOTEBOOKS for n in re.findall(pattern, path.read_text(encoding="utf-8"), re.DOTALL)]
        assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


GOOD = {
    "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "id": "b", "metadata": {"mystnb": {
            "image": {"alt": "A line"}, "figure": {"caption": "A line.", "name": "fig-line"}}},
         "outputs": [], "execution_count": None, "source": ["draw()"]},
    ],
}


def test_a_good_notebook_passes():
    assert findings(GOOD) == []


def without_alt(notebook):
    del notebook["cells"][1]["metadata"]["mystnb"]["image"]


def test_a_slider_needs_no_alt_text_in_the_metadata():
    notebook = copy.deepcopy(GOOD)
    without_alt(notebook)
    notebook["cells"][1]["source"] = ["viz.frames(draw, [1, 2])"]
    assert findings(notebook) == []


@pytest.mark.parametrize("damage, words", [
    (lambda n: n["cells"][1].update(outputs=[{}]), "has outputs"),
    (lambda n: n["cells"][1].update(execution_count=1), "execution count"),
    (lambda n: n["cells"][1].pop("id"), "no id"),
    (lambda n: n["cells"][1].update(id="a"), "the same"),
    (lambda n: n.update(nbformat_minor=4), "older"),
    (lambda n: n["metadata"].update(widgets={}), "widgets"),
    (lambda n: n["metadata"].pop("kernelspec"), "kernel"),
    (lambda n: n["cells"].pop(0), "title"),
    (lambda n: n["cells"][1].update(source=["!pip install x"]), "installs"),
    (lambda n: n["cells"][1].update(source=["from urllib.request import urlopen"]), "downloads"),
    (lambda n: n["cells"][1].update(source=["import pickle"]), "pickle"),
    (lambda n: n["cells"][1].update(source=["open('/home/me/x')"]), "path"),
    (lambda n: n["cells"][1]["metadata"]["mystnb"]["figure"].pop("caption"), "caption"),
    (lambda n: n["cells"][1]["metadata"]["mystnb"]["figure"].pop("name"), "begin with fig-"),
    (without_alt, "alt text"),
])
def test_a_damaged_notebook_is_noticed(damage, words):
    notebook = copy.deepcopy(GOOD)
    damage(notebook)
    assert any(words in finding for finding in findings(notebook))
