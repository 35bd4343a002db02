"""What a notebook becomes when a reader downloads it, and how the archive of all of them is made."""

import copy
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "sphinx_extensions"))
try:
    import downloads
finally:
    sys.path.pop(0)

NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
    {"cell_type": "markdown", "metadata": {}, "source": ["# A title\n", "\n", "Here is a cat."]},
    {"cell_type": "code", "metadata": {"tags": ["remove-cell"]}, "source": ["x = 1"], "outputs": [], "execution_count": None},
    {"cell_type": "code", "metadata": {}, "source": ["x"], "outputs": [{"output_type": "stream"}], "execution_count": 7},
]}


def test_what_it_needs_stands_under_the_title_and_nothing_is_left_out():
    before = copy.deepcopy(NOTEBOOK)
    made = downloads.runnable(NOTEBOOK)
    assert NOTEBOOK == before
    assert "".join(made["cells"][0]["source"]) == f"# A title\n\n{downloads.NEEDS}\nHere is a cat."
    assert [cell["source"] for cell in made["cells"][1:]] == [["x = 1"], ["x"]]
    assert [(cell["outputs"], cell["execution_count"]) for cell in made["cells"][1:]] == [([], None)] * 2
    assert made["cells"][1]["metadata"]["jupyter"] == {"source_hidden": True} and made["cells"][2]["metadata"] == {}


def test_a_notebook_of_a_title_alone():
    made = downloads.runnable({"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# A title"]}]})
    assert "".join(made["cells"][0]["source"]).startswith(f"# A title\n\n{downloads.NEEDS}")


def test_the_needs_are_those_of_the_project():
    wanted = re.search(r'requires-python = ">=(3\.\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()).groups()
    versions = f"Python {wanted[0]} to 3.{int(wanted[1]) - 1}"
    makefile = (ROOT / "Makefile").read_text()
    assert versions in downloads.NEEDS and versions in downloads.README and versions in makefile
    assert "\nvenv:" in makefile and "`make venv`" in downloads.NEEDS and "`make venv`" in downloads.README


def test_equal_files_make_equal_archives(tmp_path):
    files = {"b/2.ipynb": "two", "a.txt": "ä"}
    downloads.archive(tmp_path / "one.zip", files)
    downloads.archive(tmp_path / "two.zip", dict(reversed(files.items())))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["bits-back-notebooks/a.txt", "bits-back-notebooks/b/2.ipynb"]
        assert archive.read("bits-back-notebooks/a.txt").decode() == "ä"
