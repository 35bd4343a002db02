"""Run a problem set without Jupyter, and again with answers that are known to be wrong. This tests problem sets; it does not grade students' work.

    python assignments/grading/rehearsal.py ps1

Cells run one after the other in one namespace, as in a notebook; an exception ends its cell and nothing else. A wrong answer runs in a fork of the
process, taken just before the cell that it replaces, so that nothing before it runs twice and nothing it does is seen after it. Needs a system with fork.

mistakes/NAME.yaml: a list of {question, mistake, replace, by}: what is wrong in words, and the lines of the reference answer that are replaced.
"""

import ast
import contextlib
import io
import json
import os
import sys
import time
import traceback

import editions
import yaml


def mistakes(name):
    """The known-wrong answers of a problem set: a list of dicts."""
    return yaml.safe_load((editions.MISTAKES / f"{name}.yaml").read_text(encoding="utf-8"))


def spoiled(text, mistake):
    """A cell with the mistake in it. Raises ValueError if the lines to replace are not there exactly once, or nothing changes."""
    if text.count(mistake["replace"]) != 1 or mistake["by"] == mistake["replace"]:
        raise ValueError(f"{mistake['question']}, {mistake['mistake']}: the lines to replace must be in the answer exactly once, and be changed")
    return text.replace(mistake["replace"], mistake["by"])


def execute(text, namespace):
    """Run one cell; returns its exception, or None. What it prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(compile(text, "<cell>", "exec"), namespace)  # noqa: S102
        except BaseException as error:  # a cell may raise anything, and the next one still runs
            return error
    return None


def forked(work):
    """What `work()` returns (JSON), computed in a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def _names(text):
    """(names that a cell assigns, imports or defines at any level, names that it uses)."""
    made, used = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
    return made, used


def needed(cells):
    """The checks, and those of the other cells that define what one of them uses, however indirectly: figures need not be drawn again."""
    kept, wanted = [], set()
    for cell in reversed(cells):
        if cell["cell_type"] != "code":
            continue
        made, used = _names(cell["source"])
        about = cell["metadata"].get("nbgrader", {})
        if about.get("grade") or made & wanted:
            kept.append(cell)
            wanted |= used
    return kept[::-1]


def touched(cells):
    """The cells without those checks that use nothing of what the first cell defines, however indirectly: what they say cannot change with it."""
    kept, tainted = cells[:1], _names(cells[0]["source"])[0]
    for cell in cells[1:]:
        made, used = _names(cell["source"])
        if used & tainted:
            tainted |= made
        elif cell["metadata"].get("nbgrader", {}).get("grade"):
            continue
        kept.append(cell)
    return kept


def rehearse(cells, namespace, wrong=()):
    """({question: message of what failed, or None}, [(mistake, the same for it)], seconds of each cell).

    After the first mistake of every question all checks run; after the others those whose cells use, by name, what the wrong cell defines."""
    outcome, tried, seconds = {}, [], []
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        for mistake in wrong:
            if mistake["question"] == editions.grade_id(cell):
                rest = [dict(cell, source=spoiled(cell["source"], mistake)), *cells[index + 1:]]
                rest = needed(rest if mistake["question"] not in {known["question"] for known, _ in tried} else touched([c for c in rest if c["cell_type"] == "code"]))
                tried.append((mistake, {**outcome, **forked(lambda rest=rest: rehearse(rest, namespace)[0])}))
        started = time.monotonic()
        error = execute(cell["source"], namespace)
        seconds.append((editions.grade_id(cell), time.monotonic() - started))
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            outcome[editions.grade_id(cell).removesuffix("-check")] = error and "".join(traceback.format_exception_only(error)).strip()
    return outcome, [(mistake, {**outcome, **changed}) for mistake, changed in tried], seconds


def stub(notebook):
    """The cells as a student gets them, with the checks whole: what must earn nothing."""
    return [dict(cell, source=editions.without_solution(cell["source"])) if cell["cell_type"] == "code" else cell for cell in notebook["cells"]]


def report(name):
    """A dict for one problem set: `reference` and `stub`, {question: message or None}; `mistakes`, a list of (question, mistake, {...}); `seconds`."""
    notebook = editions.source(name)
    nothing = forked(lambda: rehearse(stub(notebook), {"__name__": "__main__"})[0])
    outcome, tried, seconds = rehearse(notebook["cells"], {"__name__": "__main__"}, mistakes(name))
    return {"reference": outcome, "stub": nothing, "mistakes": [(m["question"], m["mistake"], r) for m, r in tried], "seconds": seconds}


def findings(name):
    """What is wrong with a problem set: a list of lines; and its report."""
    found, notebook = [], editions.source(name)
    questions = editions.questions(notebook)
    for mistake in mistakes(name):
        if mistake["question"] not in questions:
            found.append(f"mistake for a question that is not there: {mistake['question']}")
    result = report(name)
    found += [f"the reference answer to {question} fails: {message}" for question, message in result["reference"].items() if message]
    found += [f"the empty {question} earns its points" for question, message in result["stub"].items() if not message]
    for question in questions:
        if sum(q == question for q, _, _ in result["mistakes"]) < 2:
            found.append(f"{question} has fewer than two known-wrong answers")
    for question, mistake, outcome in result["mistakes"]:
        for other, message in outcome.items():
            if (other == question) != bool(message):
                found.append(f"{question}, {mistake}: " + (f"{other} fails too: {message}" if message else "nothing fails"))
        if outcome[question] and not outcome[question].startswith("AssertionError: "):
            found.append(f"{question}, {mistake}: the check does not say in words what is wrong but ends with {outcome[question][:80]!r}")
    return found, result


def main(argv):
    found, result = findings(argv[0])
    for question, mistake, outcome in result["mistakes"]:
        print(f"{question}: {mistake} -> {outcome[question]}")
    print("seconds:", *(f"{name} {time_:.2f}" for name, time_ in result["seconds"] if time_ > 0.05))
    print("\n".join(found) or f"{argv[0]}: the reference earns everything, the stub nothing, and every mistake exactly its question's points")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
