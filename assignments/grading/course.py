"""nbgrader, told where things are: a course in a folder of its own, from which problem sets are released and in which submissions are graded."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import editions
import runner
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, GetGrades, LimitOutput, NbGraderPreprocessor, SaveAutoGrades
from nbformat.v4 import new_output
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

warnings.filterwarnings("ignore", category=SAWarning)  # of nbgrader's own queries

CELL_TYPES = ("code", "markdown", "raw")
MOST_BYTES = 10_000_000  # of a submitted file


class Guarded(NbGraderPreprocessor):
    """Takes the place of nbgrader's own execution: see `runner`. What it saw is in `seen[student, problem set]`."""

    python, limits, watched, seen = None, runner.Limits(), (), {}

    def preprocess(self, notebook, resources):
        """Run every code cell and keep its outputs; a check that did not pass ends with an error, which is what nbgrader scores."""
        code = {n: cell.source for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
        names = {n: (editions.grade_id(cell) or "").removesuffix("-check") for n, cell in enumerate(notebook.cells) if cell.metadata.get("nbgrader", {}).get("grade")}
        modules = [name for name in runner.imports(code[n] for n in names) if not name.startswith("matplotlib")]  # pyplot changes itself when it first draws
        before = {path: path.read_bytes() for folder in self.watched for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".pyc"}
        result = runner.run(code, names, modules, self.python, self.limits)
        for path, content in before.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                words = f"the notebook wrote to {path.name}, a file of the grading: no points"
                for n in names:
                    result.passed[n], result.outputs[n] = False, [new_output("error", ename="Tampered", evalue=words, traceback=[words])]
        remarks = {}
        for n, outputs in result.outputs.items():
            errors = [output for output in outputs if output.output_type == "error"]
            if n in names and not result.passed[n] and not errors:
                outputs.append(new_output("error", ename="Stopped", evalue="the check did not pass", traceback=["the check did not pass"]))
            if n in names:
                outputs = [o for o in outputs if o.output_type in ("stream", "error") and (o.output_type == "stream" or not result.passed[n])]
                for output in outputs:
                    if output.output_type == "error":  # the message says what is wrong; lines of hidden tests would be in the rest
                        output.traceback = [f"{output.ename}: {output.evalue}"]
                remarks[names[n]] = "" if result.passed[n] else f"{outputs[-1].ename}: {outputs[-1].evalue}"
            notebook.cells[n].outputs = outputs
        numbers = [value for n, value in result.leaderboard.items() if result.passed[n]]
        self.seen[resources["nbgrader"]["student"], resources["nbgrader"]["assignment"]] = {"remarks": remarks, "leaderboard": numbers[-1] if numbers else None}
        return notebook, resources


def api(folder, **guard):
    """nbgrader's interface to a course in `folder`; guard: python, limits, watched of `Guarded`."""
    for name, value in guard.items():
        setattr(Guarded, name, value)
    settings = Config()
    settings.CourseDirectory.root = str(folder)
    settings.ClearSolutions.code_stub = {"python": editions.STUB}
    settings.ClearSolutions.enforce_metadata = True
    settings.Autograde.autograde_preprocessors = [Guarded, LimitOutput, SaveAutoGrades, CheckCellMetadata]
    settings.GenerateFeedback.preprocessors = [ClearHiddenTests, GetGrades, CSSHTMLHeaderPreprocessor]
    settings.LimitOutput.max_lines, settings.LimitOutput.max_traceback = 1000, 100
    settings.Application.log_level = logging.ERROR
    settings.NbGraderAPI.log_level = logging.ERROR
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic by name
    return NbGraderAPI(CourseDirectory(config=settings), config=settings)


def write(notebook, path):
    """Write a notebook's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def prepare(interface, folder, name, hidden=None):
    """Put a problem set into the course and make its student edition; returns the edition's path. hidden: a folder whose NAME/QUESTION.py replace hidden tests.

    Raises ValueError if nbgrader finds fault with the source, or a file in the folder names no question."""
    notebook = editions.source(name)
    if hidden and (hidden / name).is_dir():
        given = {path.stem: path.read_text(encoding="utf-8") for path in sorted((hidden / name).glob("*.py"))}
        for cell in notebook["cells"]:
            question = (editions.grade_id(cell) or "").removesuffix("-check")
            if cell["metadata"].get("nbgrader", {}).get("grade") and question in given:
                cell["source"] = editions.with_hidden_tests(cell["source"], given.pop(question))
        if given:
            raise ValueError(f"{hidden / name}: no question of {name} is called {', '.join(given)}")
    write(notebook, folder / "source" / name / f"{name}.ipynb")
    done = interface.generate_assignment(name)
    if not done["success"]:
        raise ValueError(f"{name}: nbgrader finds fault with its source: {done.get('error') or done.get('log', '')[-2000:]}")
    return folder / "release" / name / f"{name}.ipynb"


def submission(path):
    """A submitted notebook, checked: (notebook, None) or (None, what is wrong with it in words)."""
    if path.is_symlink() or not path.is_file():
        return None, "it is not a file"
    if path.stat().st_size > MOST_BYTES:
        return None, f"it has more than {MOST_BYTES // 1_000_000} MB"
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            if cell["cell_type"] not in CELL_TYPES or not isinstance(cell["metadata"], dict) or not isinstance(cell["metadata"].get("nbgrader", {}), dict):
                raise ValueError
        return notebook, None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, "it is not a Jupyter notebook"
