"""What `make test` does: library tests, notebooks, the book, the checks of its pages and the problem sets, two at a time for two cores.

    python tools/run_tests.py [--once]

The book's notebooks run while it is built, all of them where nothing was built before, and an error in a cell fails the build. nbval then runs them again,
cell by cell and with a time limit for each: a second opinion, which `--once` does without.

A core that is free takes the next task that can start. Each task's output appears as a whole when the task ends, with its time. The exit status is 0
only if every task's was; a failed build leaves no pages to check, so that task is then not started, and says so.
"""

import os
import subprocess
import sys
import threading
import time

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
PROBLEM_SETS = [*PYTEST, "tests/test_assignments.py", "-k"]
TASKS = {  # in the order in which they are taken: long ones first, and what others need
    "book": [sys.executable, "tools/build_book.py"],
    "library tests": [*PYTEST, "tests", "--ignore=tests/book", "--ignore=tests/test_assignments.py"],
    "student edition": [sys.executable, "tools/student_edition.py"],
    "notebooks": [*PYTEST, "book", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"],
    "checks of the pages": [*PYTEST, "tests/book"],
    "problem sets 5 and on": [*PROBLEM_SETS, "test_points and not (ps1 or ps2 or ps3 or ps4)"],
    "problem sets 1 to 4": [*PROBLEM_SETS, "test_points and (ps1 or ps2 or ps3 or ps4)"],
    "grading": [*PROBLEM_SETS, "not test_points"],
}
NEEDS = {"student edition": "book", "checks of the pages": "student edition"}
AT_A_TIME = 2
# One thread per task: two tasks share two cores. The last variable turns "the book is not built: skipped" into a failure.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "BOOK_MUST_BE_BUILT": "1"}


def run(name):
    """(the exit status of a task, its seconds, what it printed)."""
    started = time.monotonic()
    done = subprocess.run(TASKS[name], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, time.monotonic() - started, done.stdout


def take(waiting, results, changed):
    """Run what can start, until nothing is waiting. `changed`: the condition that guards the two others."""
    while True:
        with changed:
            for name in waiting[:]:  # in order, so that what needs what is not started is not started either
                if results.get(NEEDS.get(name), 0) != 0:
                    waiting.remove(name)
                    results[name] = "not started"
            if not waiting:
                changed.notify_all()
                return
            name = next((name for name in waiting if NEEDS.get(name) is None or NEEDS[name] in results), None)
            if name is None:
                changed.wait()
                continue
            waiting.remove(name)
        status, seconds, printed = run(name)
        with changed:
            results[name] = status
            print(f"\n--- {name}: {seconds:.0f} seconds ---\n{printed}", flush=True)
            changed.notify_all()


def main():
    names = [name for name in TASKS if name != "notebooks" or "--once" not in sys.argv[1:]]
    waiting, results, changed = names[:], {}, threading.Condition()
    print(f"{AT_A_TIME} of these at a time: " + ", ".join(names), flush=True)
    takers = [threading.Thread(target=take, args=(waiting, results, changed), daemon=True) for _ in range(AT_A_TIME)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    bad = [f"{name} ({results.get(name, 'ended with an error of its own')})" for name in names if results.get(name) != 0]
    print("\nNot passed: " + ", ".join(bad) if bad else "\nAll passed: " + ", ".join(names), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
