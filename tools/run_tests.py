"""What `make test` does, on two cores: library tests and notebooks in one lane, the book, the checks of its pages and the problem sets in the other.

    python tools/run_tests.py

Each task's output appears as a whole when the task ends, with its time. The exit status is 0 only if every task's was; a failed build leaves
no pages to check, so that task is then not started, and says so.
"""

import os
import subprocess
import sys
import threading
import time

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
TASKS = {
    "library tests": [*PYTEST, "tests", "--ignore=tests/book", "--ignore=tests/test_assignments.py"],
    "problem sets": [*PYTEST, "tests/test_assignments.py"],
    "notebooks": [*PYTEST, "book", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"],
    "book": [sys.executable, "tools/build_book.py"],
    "student edition": [sys.executable, "tools/student_edition.py"],
    "checks of the pages": [*PYTEST, "tests/book"],
}
LANES = [["library tests", "notebooks"], ["book", "student edition", "checks of the pages", "problem sets"]]
NEEDS = {"student edition": "book", "checks of the pages": "book"}
# One thread per lane: two lanes share two cores. The last variable turns "the book is not built: skipped" into a failure.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "BOOK_MUST_BE_BUILT": "1"}


def run(lane, results, printing):
    for name in lane:
        if NEEDS.get(name) and results.get(NEEDS[name]) != 0:
            results[name] = "not started"
            continue
        started = time.monotonic()
        done = subprocess.run(TASKS[name], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        results[name] = done.returncode
        with printing:
            print(f"\n--- {name}: {time.monotonic() - started:.0f} seconds ---\n{done.stdout}", flush=True)


def main():
    results, printing = {}, threading.Lock()
    print("Two lanes run side by side: " + "; ".join(", then ".join(lane) for lane in LANES), flush=True)
    lanes = [threading.Thread(target=run, args=(lane, results, printing), daemon=True) for lane in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    bad = [f"{name} ({results[name]})" for name in TASKS if results.get(name) != 0]
    print("\nNot passed: " + ", ".join(bad) if bad else "\nAll passed: " + ", ".join(TASKS), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
