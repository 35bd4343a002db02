"""Taking the solutions out of sources: small pages, awkward ones, and the book's own notebooks."""

import ast
import builtins
import json
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
try:
    import student_edition
    from student_edition import CannotStrip, without_solution_cells, without_solutions
finally:
    sys.path.remove(str(ROOT / "tools"))

NOTEBOOKS = sorted((ROOT / "book").glob("*/*.ipynb"))
EXERCISE = "```{exercise}\n:label: ex-a\nWhat is six times seven?\n```\n"


def markdown(*texts, tags=()):
    return [{"cell_type": "markdown", "metadata": {"tags": list(tags)}, "source": text.splitlines(keepends=True)} for text in texts]


def code(text, *tags):
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": [text], "outputs": [], "execution_count": None}


def sources(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"]]


@pytest.mark.parametrize("solution", [
    "```{solution} ex-a\nSECRET\n```\n",
    "```{solution} ex-a\n:class: dropdown\nSECRET\n```\n",
    "```{solution} ex-a\n---\nclass: dropdown\n---\nSECRET\n```\n",
    ":::{solution} ex-a\nSECRET\n:::\n",
    "~~~{solution} ex-a\nSECRET\n~~~\n",
    "````{solution} ex-a\nSECRET\n```python\nSECRET\n```\nSECRET\n````\n",
    "::::{solution} ex-a\n:::{note}\nSECRET\n:::\nSECRET\n```{math}\nSECRET\n```\n::::\n",
    ":::{solution} ex-a\n```\n:::\n```\nSECRET?\n:::\n".replace("SECRET?", ""),
    "```{solution} ex-a\nSECRET\n:::\nSECRET\n``\nSECRET\n```text\nSECRET\n````\n",
    "````{admonition} More\n```{solution} ex-a\nSECRET\n```\n````\n",
    "`````{dropdown} More\n:open:\n\n````{tip}\n:::{solution} ex-a\nSECRET\n:::\n````\n`````\n",
    "- an item\n\n  ```{solution} ex-a\n  SECRET\n\n  SECRET\n  ```\n- another\n",
    "1. an item\n   - one more\n     ```{solution} ex-a\n     SECRET\n     ```\n",
    "> ```{solution} ex-a\n> SECRET\n> ```\n",
    "   ```{solution} ex-a\n SECRET\n  ```\n",
    "```{solution-start} ex-a\n```\nSECRET\n\n```python\nSECRET\n```\n```{solution} ex-a\nSECRET\n```\n```{solution-end}\n```\n",
    "```{solution} ex-a\n$$\nSECRET\n$$\n\n<!-- SECRET -->\n```\n```{solution} ex-b\nSECRET\n```\n",
])
def test_a_solution_goes_and_the_rest_stays(solution):
    before, after = f"# Title\n\n{EXERCISE}\n", f"\nAfterwards, `code` and $x$.\n\n```{{math}}\nx\n```\n\n{EXERCISE}"
    text, inside = without_solutions(before + solution + after)
    assert text.startswith(before) and text.endswith(after) and not inside
    assert "SECRET" not in text and "solution" not in text


def test_a_solution_that_is_never_closed_ends_with_its_cell():
    assert without_solutions("Text\n\n```{solution} ex-a\nSECRET\n\n:::\nSECRET") == ("Text\n\n", False)
    notebook = without_solution_cells({"cells": markdown("Text\n\n```{solution} ex-a\nSECRET", "More")})
    assert sources(notebook) == ["Text", "More"]


def test_what_only_looks_like_a_solution_stays():
    text = "The solution of `{exercise}` is folded.\n\n```python\nsolution = 1\n```\n\n```{note}\nA solution.\n```\n"
    assert without_solutions(text) == (text, False)


@pytest.mark.parametrize("text", [
    "<div>\n```{solution} ex-a\nSECRET\n```\n</div>\n",
    "    ```{solution} ex-a\n    SECRET\n    ```\n",
    "```python\n```{solution} ex-a\nSECRET\n```\n",
    "```{eval-rst}\n.. solution:: ex-a\n\n   SECRET\n```\n",
    "```{code-block} text\n:::{solution} ex-a\nSECRET\n:::\n```\n",
    "``{solution} ex-a\nSECRET\n``\n",
    "```{ solution } ex-a\nSECRET\n```\n",
    "```{solution-end}\n```\n",
    "```{solution-start} ex-a\n```\nSECRET\n```{solution-start} ex-b\n```\n",
    "````{note}\n```{solution-start} ex-a\n```\n````\nSECRET\n```{solution-end}\n```\n",
])
def test_what_cannot_be_taken_apart_is_an_error(text):
    with pytest.raises(CannotStrip):
        without_solutions(text)


def test_cells():
    gated = markdown(EXERCISE + "\n```{solution-start} ex-a\n```\nSECRET", "SECRET", "SECRET\n```{solution-end}\n```\nAfterwards")
    cells = [*markdown("# Title"), code("x = 1"), gated[0], code("SECRET"), gated[1], code("SECRET", "hide-input"), gated[2], code("y = x", "remove-cell"),
             code("SECRET", "remove-cell", "solution"), *markdown("SECRET", tags=["solution"]), *markdown("```{solution} ex-a\nSECRET\n```\n")]
    notebook = {"cells": cells, "nbformat": 4}
    before = json.dumps(notebook)
    assert sources(without_solution_cells(notebook)) == ["# Title", "x = 1", EXERCISE.rstrip("\n"), "Afterwards", "y = x"]
    assert json.dumps(notebook) == before, "the notebook that was given has changed"
    with pytest.raises(CannotStrip):
        without_solution_cells({"cells": cells[:5]})


def test_a_picture_attached_to_a_solution_goes_with_it():
    cell = markdown("![](attachment:a.png)\n\n```{solution} ex-a\n![](attachment:b.png)\n```\n")[0]
    cell["attachments"] = {"a.png": {"image/png": "A"}, "b.png": {"image/png": "SECRET"}}
    assert without_solution_cells({"cells": [cell]})["cells"][0]["attachments"] == {"a.png": {"image/png": "A"}}


def test_an_error_names_the_page(tmp_path):
    (tmp_path / "book" / "chapter").mkdir(parents=True)
    (tmp_path / "book" / "chapter" / "page.md").write_text("```{solution-start} ex-a\n```\n")
    with pytest.raises(CannotStrip, match="book/chapter/page.md: "):
        student_edition.strip_tree(tmp_path)


def assigned(tree):
    """The names that a syntax tree binds, wherever in it."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler))}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names | {(a.asname or a.name).split(".")[0] for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for a in node.names}


def unknown_names(notebook):
    """Names that a notebook's code uses and binds nowhere up to there."""
    known, found = set(dir(builtins)), set()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            known |= assigned(tree)
            found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_the_books_notebooks(path):
    """Nothing but solutions goes, and the code that stays needs nothing that went."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    stripped = without_solution_cells(whole)
    before, after = "\n".join(sources(whole)), "\n".join(sources(stripped))
    assert before.count("{solution}") >= 4 and "{solution" not in after
    assert after.count("{exercise}") == before.count("{exercise}") >= before.count("{solution}")
    assert after.count("## Ten questions") == 1 and len(after) > 0.8 * len(before)
    assert nbformat.validator.isvalid(nbformat.from_dict(stripped))
    assert not unknown_names(stripped)


def test_a_name_that_went_with_a_solution_is_noticed():
    assert unknown_names({"cells": [code("y = x"), code("x = 1")]}) == {"x"}
    assert not unknown_names({"cells": [code("import numpy as np\ndef f(a):\n    return np.sum(a) + len(b)\nb = [c for c in 'x']")]})



@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_code_after_the_first_exercise_is_a_solution_or_says_why_not(path):
    """Cells under an exercise compute its answer, unless this test knows better."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = next(n for n, cell in enumerate(cells) if "{exercise}" in "".join(cell["source"]))
    untagged = [cell["id"] for cell in cells[first:] if cell["cell_type"] == "code" and "solution" not in cell["metadata"].get("tags", [])]
    assert not untagged
