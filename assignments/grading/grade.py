"""Grade a folder of submissions: `make grade SUBMITTED=DIR [HIDDEN_TESTS=DIR] [OUT=DIR]`.

    python assignments/grading/grade.py SUBMITTED [--hidden-tests DIR] [--out DIR] [--seconds N] [--memory MIB] [--python PATH]

SUBMITTED/STUDENT/NAME.ipynb or SUBMITTED/STUDENT/NAME/NAME.ipynb, NAME being ps1, ps2 ... The folder OUT, which must not exist, gets grades.csv (a row for every
student, problem set and question), leaderboard.csv and feedback/STUDENT/NAME.html. A problem set that a student did not hand in has no rows.

Every submission is run by itself, and what one of them does is not seen by another: see `runner` for what is stopped, and for what is not.
"""

import argparse
import csv
import re
import shutil
import sys
import tempfile
from pathlib import Path

import course
import editions
import runner

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def collect(folder):
    """{(student, problem set): path} of a folder of submissions. Raises ValueError for a name that is none."""
    found = {}
    for student in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not STUDENT.fullmatch(student.name):
            raise ValueError(f"{student}: a student's folder is named with letters, digits and . _ @ -, at most 64 of them")
        for name in editions.names():
            paths = [path for path in (student / f"{name}.ipynb", student / name / f"{name}.ipynb") if path.exists() or path.is_symlink()]
            if len(paths) > 1:
                raise ValueError(f"{student.name} handed in {name} twice: {paths[0]} and {paths[1]}")
            if paths:
                found[student.name, name] = paths[0]
    if not found:
        raise ValueError(f"{folder} holds no submission; one is STUDENT/NAME.ipynb, NAME being one of {', '.join(editions.names())}")
    return found


def grade(submissions, out, hidden=None, python=sys.executable, limits=runner.Limits()):
    """Grade {(student, problem set): path} and write the results into the folder `out`; returns the rows of grades.csv."""
    rows, numbers = [], []
    (out / "feedback").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="course-") as root:
        folder = Path(root)
        interface = course.api(folder, python=python, limits=limits, watched=(folder, editions.FOLDER))
        for name in sorted({name for _, name in submissions}):
            course.prepare(interface, folder, name, hidden)
        for (student, name), path in submissions.items():
            source = course.editions.read(folder / "source" / name / f"{name}.ipynb")
            questions = editions.questions(source)
            submitted, wrong = course.submission(path)
            points, remarks = dict.fromkeys(questions, 0), dict.fromkeys(questions, wrong)
            if submitted:
                notebook, notes = editions.assemble(source, submitted)
                course.write(notebook, folder / "submitted" / student / name / f"{name}.ipynb")
                done = interface.autograde(name, student)
                seen = course.Guarded.seen.get((student, name))
                if done["success"] and seen:
                    with interface.gradebook as gradebook:
                        given = gradebook.find_submission_notebook(name, name, student).grades
                        points = {one.name.removesuffix("-check"): one.auto_score for one in given}
                    remarks = seen["remarks"] | {note.split(":")[0]: note for note in notes}
                    interface.generate_feedback(name, student)
                    if seen["leaderboard"] is not None:
                        numbers.append((name, seen["leaderboard"], student))
                else:
                    remarks = dict.fromkeys(questions, f"nbgrader could not grade it: {(done.get('error') or done.get('log') or '')[-300:]}".replace("\n", " "))
            page = folder / "feedback" / student / name / f"{name}.html"
            if page.exists():
                (out / "feedback" / student).mkdir(exist_ok=True)
                shutil.copy(page, out / "feedback" / student / f"{name}.html")
            rows += [(student, name, question, points[question], worth, remarks[question] or "") for question, worth in questions.items()]
            print(f"{student} {name}: {sum(points.values()):g} of {sum(questions.values()):g}" + (f" ({wrong})" if wrong else ""), flush=True)
    _write(out / "grades.csv", ("student", "problem set", "question", "points", "of", "remark"), rows)
    _write(out / "leaderboard.csv", ("problem set", "number", "student"), sorted(numbers))
    return rows


def _write(path, head, rows):
    """A CSV file; a remark, which quotes what students wrote, never begins as a spreadsheet's formula would."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([("'" + value if isinstance(value, str) and value[:1] in "=+-@" and value else value) for value in row] for row in rows)


def main(argv=None):
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make grade", description="Grade a folder of submissions.")
    parser.add_argument("submitted", type=Path)
    parser.add_argument("--hidden-tests", type=Path, help="a folder whose NAME/QUESTION.py replace the hidden tests of the sources")
    parser.add_argument("--out", type=Path, default=Path("grades"))
    parser.add_argument("--seconds", type=float, default=runner.Limits.seconds, help="a cell may take (default %(default)s)")
    parser.add_argument("--memory", type=int, default=runner.Limits.memory >> 20, help="MiB that a notebook may take (default %(default)s)")
    parser.add_argument("--python", type=Path, help="the interpreter that runs students' notebooks (default: the book's environment, or else this one)")
    args = parser.parse_args(argv)
    book = editions.FOLDER.parent / ".venv" / "bin" / "python"
    python = args.python or (book if book.exists() else Path(sys.executable))
    try:
        for folder in (args.submitted, args.hidden_tests):
            if folder and not folder.is_dir():
                raise ValueError(f"{folder}: no such folder")
        if args.out.exists():
            raise ValueError(f"{args.out} is there already; move it away, or name another folder with OUT=")
        rows = grade(collect(args.submitted), args.out, args.hidden_tests, python, runner.Limits(seconds=args.seconds, memory=args.memory << 20))
    except ValueError as error:
        print(f"grade: {error}", file=sys.stderr)
        return 1
    print(f"{args.out / 'grades.csv'}: {len(rows)} rows; {args.out / 'leaderboard.csv'}; {args.out / 'feedback'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
