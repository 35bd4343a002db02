"""The problem sets: what students get, what earns points and what does not. And the grading, where the graders' environment is there (`make teach`)."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GRADING = ROOT / "assignments" / "grading"
sys.path.insert(0, str(GRADING))
import editions  # noqa: E402
import rehearsal  # noqa: E402

NAMES = editions.names()
TEACH = ROOT / ".venv-teach" / "bin" / "python"
needs_nbgrader = pytest.mark.skipif(not TEACH.exists(), reason="the graders' environment is not there: make teach")


def test_there_is_a_problem_set_for_every_chapter():
    assert NAMES == [f"ps{number}" for number in range(1, 8)]
    assert sorted(path.stem for path in editions.MISTAKES.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_form(name):
    """nbgrader's metadata, pairs of answer and check, twenty points, no outputs, no grader and no network."""
    notebook = editions.source(name)
    ids, about = [editions.grade_id(cell) for cell in notebook["cells"]], {}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5) and notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert editions.grade_id(cell), f"cell {cell['id']} has no grade_id"
            assert max(map(len, cell["source"].split("\n"))) <= 94, cell["id"]
            assert not re.search(r"nbgrader|otter|urllib|requests|pickle|SHVC_DATA|^\s*[!%]", cell["source"], re.MULTILINE), cell["id"]
            about[editions.grade_id(cell)] = cell
    assert len({name for name in ids if name}) == len([name for name in ids if name])
    questions = editions.questions(notebook)
    assert sum(questions.values()) == 20 and 5 <= len(questions) <= 7
    for question in questions:
        answer, check = about[question], about[f"{question}-check"]
        assert answer["metadata"]["nbgrader"]["solution"] and check["metadata"]["nbgrader"]["locked"]
        assert editions.without_solution(answer["source"]) != answer["source"]
        assert editions.hidden_tests(check["source"]).strip() and "assert" in editions.without_hidden_tests(check["source"])
    assert sum(cell["metadata"]["nbgrader"]["solution"] for cell in about.values()) == len(questions)


def is_part(lines, of):
    """Whether `lines` are among the lines `of`, in their order."""
    rest = iter(of)
    return all(line in rest for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_is_the_solution_minus_lines(name):
    for cell in editions.source(name)["cells"]:
        stub = editions.without_hidden_tests(editions.without_solution(cell["source"])).rstrip("\n")
        own = [line for line in stub.split("\n") if line.strip() not in editions.STUB.split("\n")]
        assert is_part(own, cell["source"].split("\n")), editions.grade_id(cell)


@pytest.mark.parametrize("name", NAMES)
def test_points(name):
    """The reference earns everything, the stub nothing, and every known-wrong answer loses exactly its question's points, told why in words."""
    found, result = rehearsal.forked(lambda: rehearsal.findings(name))  # a problem set may change torch's and matplotlib's settings
    assert found == []
    assert len(result["mistakes"]) >= 2 * len(result["reference"])


def test_a_rehearsal_finds_what_is_wrong(monkeypatch, tmp_path):
    """A mistake that no check notices, one that costs another question's points, an answer that fails, a stub that passes."""
    def cell(name, text, **about):
        marks = {"grade": False, "solution": False, "locked": False, "grade_id": name, **about}
        return {"cell_type": "code", "metadata": {"nbgrader": marks}, "source": text}

    def answer(name, line):
        return cell(name, f"def {name}(x):\n    ### BEGIN SOLUTION\n    {line}\n    ### END SOLUTION\n", solution=True)

    notebook = {"cells": [
        answer("a", "return x + 1"), cell("a-check", "assert a(1) > 1, 'one more'", grade=True, points=1),
        answer("b", "return a(x) + 1"), cell("b-check", "assert b(1) == 3, 'two more'", grade=True, points=1),
        answer("c", "return 5"), cell("c-check", "pass", grade=True, points=1),
        answer("d", "return 5"), cell("d-check", "assert d(1) == 6, 'six'", grade=True, points=1)]}
    wrong = [{"question": "a", "mistake": "too much", "replace": "x + 1", "by": "x + 7"}]
    monkeypatch.setattr(editions, "source", lambda name: copy.deepcopy(notebook))
    monkeypatch.setattr(rehearsal, "mistakes", lambda name: wrong)
    found = "\n".join(rehearsal.findings("any")[0])
    for words in ("a, too much: nothing fails", "a, too much: b fails too: AssertionError: two more", "the reference answer to d fails", "the empty c earns",
                  "b has fewer than two"):
        assert words in found
    with pytest.raises(ValueError, match="exactly once"):
        rehearsal.spoiled("x + 1 + x + 1", wrong[0])


def test_what_is_graded_is_the_source_with_a_students_answers_in_it():
    source = editions.source("ps1")
    question = next(iter(editions.questions(source)))
    submitted = copy.deepcopy(source)
    for cell in submitted["cells"]:
        if editions.grade_id(cell) == f"{question}-check":
            cell["source"], cell["metadata"]["nbgrader"]["points"] = "pass", 100
        if editions.grade_id(cell) == question:
            cell["source"] = "mine = 1"
    place = next(n for n, cell in enumerate(submitted["cells"]) if editions.grade_id(cell) == question)
    submitted["cells"][place + 1:place + 1] = [{"cell_type": "code", "metadata": {}, "source": "own = 2"}, copy.deepcopy(submitted["cells"][place])]
    submitted["cells"] = [cell for cell in submitted["cells"] if cell["cell_type"] == "code"]
    graded, remarks = editions.assemble(source, submitted)
    assert remarks == []
    texts = [cell["source"] for cell in graded["cells"]]
    assert texts.count("mine = 1") == 1 and texts.index("own = 2") == texts.index("mine = 1") + 1
    assert editions.questions(graded) == editions.questions(source) and "pass" not in texts
    assert [t for t in texts if t not in ("mine = 1", "own = 2")] == [c["source"] for c in source["cells"] if editions.grade_id(c) != question]
    nothing, remarks = editions.assemble(source, {"cells": []})
    assert len(remarks) == len(editions.questions(source))
    assert not any("BEGIN SOLUTION" in cell["source"] for cell in nothing["cells"])


def run(*arguments, **options):
    return subprocess.run([str(TEACH), *map(str, arguments)], capture_output=True, text=True, timeout=900, **options)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The student editions, made by nbgrader."""
    folder = tmp_path_factory.mktemp("released")
    done = run(GRADING / "release.py", "--to", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@needs_nbgrader
def test_a_release_holds_no_solution_and_no_hidden_test(released):
    assert sorted(str(path.relative_to(released)) for path in released.rglob("*") if path.is_file()) == [f"{name}/{name}.ipynb" for name in NAMES]
    for name in NAMES:
        text, source = (released / name / f"{name}.ipynb").read_text(), editions.source(name)
        assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text
        given = {editions.grade_id(cell): cell["source"].strip() for cell in editions.read(released / name / f"{name}.ipynb")["cells"]}
        for cell in source["cells"]:
            if cell["cell_type"] == "code":  # our own stripping and nbgrader's agree, so what is tested of ours holds for what is released
                assert given[editions.grade_id(cell)] == editions.without_hidden_tests(editions.without_solution(cell["source"])).strip()


@needs_nbgrader
def test_a_release_never_overwrites(released, tmp_path):
    (tmp_path / "ps2").mkdir()
    (tmp_path / "ps2" / "ps2.ipynb").write_text("mine")
    done = run(GRADING / "release.py", "--to", tmp_path)
    assert done.returncode == 1 and "nothing was written" in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    assert "the same" in run(GRADING / "release.py", "--to", released).stdout


def spoil(name, **answers):
    """The source of a problem set with some answers replaced, as JSON text. No solution markers, as in what a student hands in."""
    notebook = copy.deepcopy(editions.source(name))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = answers.get(editions.grade_id(cell), cell["source"])
    return json.dumps(notebook)


PATCH = "import numpy as np\nnp.array_equal = np.allclose = lambda *a, **k: True\n"
FIND = "from pathlib import Path\nfor f in Path({!r}).glob('course-*/**/*.ipynb'):\n    f.write_text('{{}}')\n"


@needs_nbgrader
def test_hostile_submissions_are_stopped_and_scored_and_the_others_go_on(tmp_path):
    """On problem set 5, whose first question is the quickest: what a cell does costs that question's points, or, if it meddles with the checks, all of them."""
    first = next(iter(editions.questions(editions.source("ps5"))))
    reference = next(cell["source"] for cell in editions.source("ps5")["cells"] if editions.grade_id(cell) == first)
    stub = copy.deepcopy(editions.source("ps5"))
    for cell in stub["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = editions.without_hidden_tests(editions.without_solution(cell["source"]))
    cells = {
        "hangs": "while True:\n    pass", "eats": "eaten = []\nwhile True:\n    eaten.append(bytearray(100_000_000))",
        "dies": "import os\nos._exit(0)", "floods": "while True:\n    print('x' * 10_000)",
        "prints": "print('x' * 1_000_000)\n" + reference, "patches": PATCH + reference,
        "writes": FIND.format(str(tmp_path)) + reference}
    for student, text in {"reference": spoil("ps5"), "stub": json.dumps(stub), "broken": "{", **{n: spoil("ps5", **{first: c}) for n, c in cells.items()}}.items():
        (tmp_path / "submitted" / student).mkdir(parents=True)
        (tmp_path / "submitted" / student / "ps5.ipynb").write_text(text)
    done = run(GRADING / "grade.py", tmp_path / "submitted", "--python", sys.executable, "--seconds", "40", "--memory", "3000", "--out", tmp_path / "grades",
               env={**os.environ, "TMPDIR": str(tmp_path)})  # where the grading keeps its files, and "writes" looks for them: no other grading's
    assert done.returncode == 0, done.stdout + done.stderr
    points, worth = {}, editions.questions(editions.source("ps5"))
    rows = (tmp_path / "grades" / "grades.csv").read_text().splitlines()
    assert rows[0] == "student,problem set,question,points,of,remark" and len(rows) == 1 + (len(cells) + 3) * len(worth)
    for row in rows[1:]:
        student, _, question, value, of, _ = row.split(",", 5)
        assert float(of) == worth[question]
        points.setdefault(student, {})[question] = float(value)
    for student, earned in points.items():
        if student in ("reference", "prints"):
            assert earned == worth, student
        elif student in ("stub", "broken", "patches", "writes"):
            assert not any(earned.values()), student
        else:
            assert earned == {**worth, first: 0}, student
    said = (tmp_path / "grades" / "grades.csv").read_text()
    assert "numpy.array_equal" in said and "a file of the grading" in said and "not a Jupyter notebook" in said
    board = (tmp_path / "grades" / "leaderboard.csv").read_text().splitlines()[1:]
    assert {row.rpartition(",")[2] for row in board} == set(points) - {"stub", "broken", "patches", "writes"}
    pages = {path.parent.name: path.read_text() for path in (tmp_path / "grades" / "feedback").glob("*/ps5.html")}
    assert set(pages) == set(points) - {"broken"}
    assert not any("HIDDEN TESTS" in page for page in pages.values()), "students may hand in again"
    assert "it ran longer than 40 seconds" in pages["hangs"] and len(pages["prints"]) < 1_500_000
    again = run(GRADING / "grade.py", tmp_path / "submitted", "--out", tmp_path / "grades")
    assert again.returncode == 1 and "is there already" in again.stderr


@needs_nbgrader
def test_every_reference_earns_full_marks(tmp_path):
    """What grading guards against must not happen by itself: libraries change themselves, too."""
    (tmp_path / "submitted" / "reference").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "submitted" / "reference" / f"{name}.ipynb").write_text(spoil(name))
    done = run(GRADING / "grade.py", tmp_path / "submitted", "--python", sys.executable, "--seconds", "300", "--out", tmp_path / "grades")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("reference")] == [f"reference {name}: 20 of 20" for name in NAMES]
    assert len((tmp_path / "grades" / "leaderboard.csv").read_text().splitlines()) == 1 + len(NAMES)


@needs_nbgrader
def test_private_tests_take_the_place_of_the_hidden_ones(tmp_path):
    first = next(iter(editions.questions(editions.source("ps5"))))
    (tmp_path / "submitted" / "a").mkdir(parents=True)
    (tmp_path / "submitted" / "a" / "ps5.ipynb").write_text(spoil("ps5"))
    (tmp_path / "private" / "ps5").mkdir(parents=True)
    (tmp_path / "private" / "ps5" / f"{first}.py").write_text("assert False, 'a private test'\n")
    done = run(GRADING / "grade.py", tmp_path / "submitted", "--python", sys.executable, "--hidden-tests", tmp_path / "private", "--out", tmp_path / "grades")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "grades" / "grades.csv").read_text().splitlines()
    assert f"a,ps5,{first},0.0," in rows[1] and "a private test" in rows[1] and all(",0.0," not in row for row in rows[2:])
    (tmp_path / "private" / "ps5" / "ps5-none.py").write_text("")
    done = run(GRADING / "grade.py", tmp_path / "submitted", "--hidden-tests", tmp_path / "private", "--out", tmp_path / "other")
    assert done.returncode == 1 and "ps5-none" in done.stderr
