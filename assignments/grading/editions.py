"""The editions of a problem set: what the source holds, and what is left when its answers are taken out.

A problem set is an ordinary notebook whose cells carry nbgrader's metadata. A question is a pair: a cell to fill in, whose grade_id is the question's
name, with the reference answer between `### BEGIN SOLUTION` and `### END SOLUTION`; and a check, grade_id NAME-check, worth points, with visible checks
followed by those between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS`.
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
SOURCE, MISTAKES, RELEASE = FOLDER / "source", FOLDER / "mistakes", FOLDER / "release"
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
_SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.DOTALL | re.MULTILINE)
_HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS\n(.*?)^[ \t]*### END HIDDEN TESTS[ \t]*\n?", re.DOTALL | re.MULTILINE)


def names():
    """The problem sets there are, in order: ps1, ps2 ..."""
    return sorted(path.parent.name for path in SOURCE.glob("*/*.ipynb") if path.stem == path.parent.name)


def read(path):
    """A notebook as its JSON, each cell's source joined to one string."""
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def source(name):
    """The source of a problem set."""
    return read(SOURCE / name / f"{name}.ipynb")


def grade_id(cell):
    """nbgrader's name of a cell, or None."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def questions(notebook):
    """{question: points}, in order."""
    graded = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade")]
    return {cell["grade_id"].removesuffix("-check"): cell["points"] for cell in graded}


def without_solution(text):
    """A cell as students get it: every marked answer replaced by a line that raises NotImplementedError."""
    return _SOLUTION.sub(lambda found: "\n".join(found[1] + line for line in STUB.split("\n")), text)


def without_hidden_tests(text):
    """A check as students get it."""
    return _HIDDEN.sub("", text)


def hidden_tests(text):
    """The lines between the markers of a check, or None."""
    found = _HIDDEN.search(text)
    return found[1] if found else None


def with_hidden_tests(text, tests):
    """A check with other hidden tests: `tests` in the place of what was between the markers."""
    return _HIDDEN.sub(lambda found: f"### BEGIN HIDDEN TESTS\n{tests.rstrip()}\n### END HIDDEN TESTS\n", text)


def assemble(source, submitted):
    """What is graded: the source with a student's answers in it, and the student's own cells after the cell that they followed.

    Text, given cells and checks are always the source's, whatever was done to them; of two answers to a question the first counts; an answer that is missing
    is the stub. Returns (notebook, list of remarks).
    """
    known = {grade_id(cell): cell for cell in source["cells"] if grade_id(cell)}
    texts = {cell["source"].strip() for cell in source["cells"] if cell["cell_type"] == "markdown"}
    answers, own, last = {}, {}, None
    for cell in submitted["cells"]:
        name = grade_id(cell) if isinstance(cell.get("metadata"), dict) else None
        if name in known:
            last = name
            if known[name]["metadata"]["nbgrader"]["solution"] and cell["cell_type"] == "code":
                answers.setdefault(name, cell["source"])
        elif cell["cell_type"] == "code" or cell["cell_type"] == "markdown" and cell["source"].strip() not in texts:
            own.setdefault(last, []).append({"cell_type": cell["cell_type"], "source": cell["source"]})
    cells, remarks = own.get(None, []), []
    for cell in source["cells"]:
        name = grade_id(cell)
        if name and cell["metadata"]["nbgrader"]["solution"]:
            if name not in answers:
                remarks.append(f"{name}: there is no such cell in the file")
            cell = {**cell, "source": answers.get(name, without_solution(cell["source"]))}
        cells += [cell, *own.get(name, [])] if name else [cell]
    for number, cell in enumerate(cells):
        cells[number] = {"id": f"cell-{number}", "metadata": {}, **cell} | ({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
    return {**source, "cells": cells}, remarks
