"""Write the student editions of the problem sets: `make release`.

    python assignments/grading/release.py [--to DIR]

Each goes to DIR/NAME/NAME.ipynb. Nothing that is there is changed: a file that differs from what would be written stops everything, before anything is written.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import course
import editions


def main(argv=None):
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make release", description="Write the student editions of the problem sets.")
    parser.add_argument("--to", type=Path, default=editions.RELEASE)
    target = parser.parse_args(argv).to
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        interface, made = course.api(Path(folder)), {}
        for name in editions.names():
            made[target / name / f"{name}.ipynb"] = course.prepare(interface, Path(folder), name).read_bytes()
    taken = [path for path, content in made.items() if path.exists() and path.read_bytes() != content]
    if taken:
        print(f"release: {', '.join(map(str, taken))} already there and different; nothing was written. Move it away, or name another folder with --to",
              file=sys.stderr)
        return 1
    new = [path for path in made if not path.exists()]
    for path in new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[path])
    print(f"{len(new)} of {len(made)} problem sets written to {target}" + ("" if len(new) == len(made) else "; the others were there already, the same"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
