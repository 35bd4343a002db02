"""When the book is built again, what runs again: tried on a book of one notebook with a library of one line."""

import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from conftest import ROOT

CONFIG = f"""\
title: A small book
only_build_toc_files: true
exclude_patterns: {yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["exclude_patterns"]}
execute: {{execute_notebooks: cache}}
sphinx: {{config: {{nb_execution_raise_on_error: true}}}}
"""


class Book:
    """A small book in its own folder, built by a copy of tools/build_book.py."""

    def __init__(self, root):
        self.root = root
        (root / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "build_book.py", root / "tools")
        for name in ("shvc_lib", "data", "book"):
            (root / name).mkdir()
        (root / "requirements.lock").touch()
        (root / "_config.yml").write_text(CONFIG)
        (root / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
        (root / "shvc_lib" / "answer.py").write_text("print('answer', 41)\n")
        self.code("exec(open('../shvc_lib/answer.py').read())")

    def code(self, *lines):
        notebook = nbformat.v4.new_notebook(cells=[
            nbformat.v4.new_markdown_cell("# Title", id="a"),
            nbformat.v4.new_code_cell("\n".join(lines), id="b"),
        ])
        nbformat.write(notebook, self.root / "book" / "intro.ipynb")

    def build(self):
        command = [sys.executable, str(self.root / "tools" / "build_book.py")]
        self.run = subprocess.run(command, capture_output=True, text=True)
        return self.run.returncode

    def page(self):
        return (self.root / "_build" / "html" / "book" / "intro.html").read_text()


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


def test_an_unchanged_book_is_ready_at_once_and_a_changed_library_runs_again(book):
    assert book.build() == 0, book.run.stderr
    assert "answer 41" in book.page()

    assert book.build() == 0
    assert "Nothing has changed" in book.run.stdout and str(book.root / "_build/html/index.html") in book.run.stdout

    (book.root / "shvc_lib" / "answer.py").write_text("print('answer', 42)\n")
    assert book.build() == 0
    assert "answer 42" in book.page()


def test_a_raising_cell_fails_the_build_every_time_until_it_is_mended(book):
    book.code("1 / 0")
    assert book.build() != 0
    assert "ZeroDivisionError" in book.run.stdout + book.run.stderr
    assert book.build() != 0, "the second build of a broken book must fail as well"
    book.code("print(6 * 7)")
    assert book.build() == 0
    assert "42" in book.page()


def test_what_other_programs_leave_lying_about_is_no_page(book):
    for folder in (".pytest_cache", "book/.pytest_cache", ".venv/lib/package", "book/.ipynb_checkpoints", "runs/vae"):
        (book.root / folder).mkdir(parents=True)
        (book.root / folder / "README.md").write_text("# Not a page of the book\n")
    assert book.build() == 0, book.run.stdout + book.run.stderr


def test_a_warning_fails_the_build_every_time(book):
    book.code("6 * 7")
    (book.root / "book" / "more.md").write_text("# More\n\n{ref}`nowhere`\n")
    (book.root / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters: [{file: book/more}]\n")
    assert book.build() != 0
    assert book.build() != 0


@pytest.mark.parametrize("changed, again", [
    ("shvc_lib/answer.py", "notebooks"), ("data/new.json", "notebooks"), ("requirements.lock", "notebooks"),
    ("book/assets/book.css", "pages"), ("_config.yml", "pages"), ("book/intro.ipynb", "pages"),
    ("shvc_lib/__pycache__/answer.pyc", None), ("README.md", None),
])
def test_what_a_change_makes_run_again(book, changed, again):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import build_book
    finally:
        sys.path.remove(str(ROOT / "tools"))
    before = build_book.inputs(book.root)
    path = book.root / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("changed")
    after = build_book.inputs(book.root)
    assert {kind for kind in before if before[kind] != after[kind]} == ({again} if again else set())
