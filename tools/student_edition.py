"""Build the book without the solutions of its exercises into `_build/student/html`. `make book-student` calls it, after `make book`.

The solutions are not hidden: they are taken out of a copy of the sources, in `_build/.student`, before anything is built from it. So
they are neither in the pages nor in the search index, the downloads, the archive of notebooks. Taken out are

- the directive `{solution}`, wherever it stands, also within other directives, lists and quotations;
- everything from `{solution-start}` to `{solution-end}`, also over several cells of a notebook;
- the cells of a notebook that have the tag `solution`: code, figures and remarks that nothing else needs.

What this script cannot take apart stops it. Outputs of the cells that stay come from the book built before, so that nothing runs
again; a notebook whose outputs are not there runs.
"""

import json
import re
import shutil
import sys
from functools import lru_cache

import build_book
import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

SOURCES = ("book", "_config.yml", "_toc.yml", "tools/sphinx_extensions")
EXTENSIONS = {"amsmath", "colon_fence", "deflist", "dollarmath", "substitution", "tasklist"}
DIRECTIVE = re.compile(r"\{([^\s{}]+)\}")
LITERAL = {"code", "code-block", "code-cell", "sourcecode", "math", "raw", "eval-rst", "parsed-literal"}
LEFT = re.compile(r"\{\s*solution[\s}-]|\.\.\s+solution")


class CannotStrip(Exception):
    """A source from which the solutions cannot be taken with certainty."""


@lru_cache(maxsize=None)
def _parser():
    parser = create_md_parser(MdParserConfig(enable_extensions=EXTENSIONS), RendererHTML)
    parser.core.ruler.enableOnly(["normalize", "block"])  # a directive is a block; what is written inside a line does not matter
    return parser


def directives(text, first=0, depth=0):
    """Every directive in a text, with those inside others: its name, its first line, the line after its last, and its depth."""
    for token in _parser().parse(text):
        name = DIRECTIVE.match(token.info) if token.type in ("fence", "colon_fence") else None
        if name:
            yield name[1], first + token.map[0], first + token.map[1], depth
            if name[1] not in LITERAL:
                yield from directives(token.content, first + token.map[0] + 1, depth + 1)


def without_solutions(text, inside=False):
    """The text less its solutions, and whether it ends inside a gated one. `inside` says whether it begins so."""
    lines = text.splitlines(keepends=True)
    gone, opened = set(), 0 if inside else None
    for name, start, end, depth in directives(text):
        if name == "solution":
            gone.update(range(start, end))
        elif name in ("solution-start", "solution-end"):
            if depth or (name == "solution-start") != (opened is None):
                raise CannotStrip(f"line {start + 1}: {{{name}}} inside a directive, or without its partner")
            gone.update(range(start if opened is None else opened, end))
            opened = start if opened is None else None
    if opened is not None:
        gone.update(range(opened, len(lines)))
    left = "".join(line for n, line in enumerate(lines) if n not in gone)
    if LEFT.search(left):
        raise CannotStrip(f"a solution that is no directive of its own: {left[LEFT.search(left).start():][:60]!r}")
    return left, opened is not None


def without_solution_cells(notebook):
    """A notebook, given as its JSON, less the cells tagged `solution` and the solutions in the text of the others."""
    kept, inside = [], False
    for cell in notebook["cells"]:
        if "solution" in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "markdown":
            whole = "".join(cell["source"])
            text, inside = without_solutions(whole, inside)
            if text != whole:
                cell = _with_text(cell, text.strip("\n"))
            if not text.strip():
                continue
        elif inside:
            continue
        kept.append(cell)
    if inside:
        raise CannotStrip("{solution-start} without {solution-end}")
    return notebook | {"cells": kept}


def _with_text(cell, text):
    """A Markdown cell with another text, and of its attached files only those that this text shows."""
    cell = cell | {"source": text.splitlines(keepends=True)}
    if "attachments" in cell:
        cell["attachments"] = {name: data for name, data in cell["attachments"].items() if f"attachment:{name}" in text}
    return cell


def strip_tree(tree):
    """Take the solutions out of every page under `tree/book`."""
    for path in sorted((tree / "book").rglob("*")):
        try:
            if path.suffix == ".ipynb":
                notebook = without_solution_cells(json.loads(path.read_text(encoding="utf-8")))
                path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            elif path.suffix == ".md":
                text, inside = without_solutions(path.read_text(encoding="utf-8"))
                if inside:
                    raise CannotStrip("{solution-start} without {solution-end}")
                path.write_text(text, encoding="utf-8")
        except CannotStrip as error:
            raise CannotStrip(f"{path.relative_to(tree)}: {error}") from None


def copy_sources(root, tree):
    """Copy what the pages are built from, with a title that tells the two editions apart."""
    for name in SOURCES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns(*build_book.NOT_INPUTS, ".*"))
        else:
            shutil.copy(root / name, tree / name)
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    settings["title"] += ", student edition"
    (tree / "_config.yml").write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")


def carry_outputs(root, tree):
    """Put into the copy's cache of outputs what the book's has, for every notebook less the cells that are gone."""
    if not (root / "_build" / ".jupyter_cache").exists():
        return
    shutil.copytree(root / "_build" / ".jupyter_cache", tree / "_build" / ".jupyter_cache")
    cache = get_cache(str(tree / "_build" / ".jupyter_cache"))
    for path in sorted((tree / "book").rglob("*.ipynb")):
        whole = nbformat.read(root / path.relative_to(tree), as_version=4)
        kept = {cell.id for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"}
        try:
            key, ran = cache.merge_match_into_notebook(whole)
        except KeyError:
            continue  # it has not run since it changed
        ran.cells = [cell for cell in ran.cells if cell.cell_type == "code" and cell.id in kept]
        data = cache.get_cache_record(key).data
        cache.cache_notebook_bundle(CacheBundleIn(ran, str(path), data=data), check_validity=False, overwrite=True)


def build(root=build_book.ROOT):
    """Build the edition if it is not there already. Returns the exit status: 0, or that of the build that failed."""
    tree, html = root / "_build" / ".student", root / "_build" / "student" / "html"
    stamp, index = tree / "inputs.json", html / "index.html"
    now = build_book.inputs(root) | {"edition": build_book.digest(root, ("tools/student_edition.py",))}
    if stamp.exists() and json.loads(stamp.read_text()) == now and index.exists():
        print(f"Nothing has changed. The student edition is in {index}")
        return 0
    for folder in (tree, html):
        shutil.rmtree(folder, ignore_errors=True)
    copy_sources(root, tree)
    strip_tree(tree)
    carry_outputs(root, tree)
    status = build_book.jupyter_book(tree)
    if status:
        print("The student edition was not built: see the first warning or error above.", file=sys.stderr)
        return status
    html.parent.mkdir(exist_ok=True)
    shutil.move(tree / "_build" / "html", html)
    shutil.rmtree(tree / "_build")
    stamp.write_text(json.dumps(now, indent=1) + "\n")
    print(f"The student edition is in {index}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(build())
    except CannotStrip as error:
        sys.exit(f"The student edition was not built: {error}")
