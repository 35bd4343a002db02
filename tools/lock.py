"""Write `requirements.lock`: exact versions of everything the book needs, on every Python it supports; and `requirements-teach.lock`, the same for
the extra `teach` alone, which has an environment of its own. `make lock` calls it.

uv resolves pyproject.toml's extras for every Python and platform at once and reads only metadata, so no package
is downloaded. Versions that the lock already has are kept where they still fit; with --upgrade the newest are taken.

torch's CUDA libraries are left out. A CUDA build of torch names them with exact versions itself; a CPU build, where
pip finds one, does without them, and a lock that listed them would install gigabytes for nothing.
"""

import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FLOOR = "3.10"  # the oldest Python; a test keeps it equal to pyproject's
CUDA = re.compile(r"(nvidia|cuda|triton)[a-z0-9-]*==")

HEADER = """\
# Exact versions of {whose} environment, for CPython 3.10 to 3.13. Written by `make lock` from pyproject.toml.
"""
NO_CUDA = "# The CUDA libraries of torch are left out: torch itself says which it needs.\n"


def resolve(name, header, source, arguments, given=None):
    """Resolve, drop the CUDA libraries, write the lock. Returns uv's exit status. source: a file and options for uv, or "-" for the text `given`."""
    lock = ROOT / name
    command = [sys.executable, "-m", "uv", "pip", "compile", *source, "--universal", "--python-version", FLOOR, "--no-header", "--no-annotate", "--quiet",
               "--output-file", str(lock)]
    status = subprocess.run(command + arguments, cwd=ROOT, input=given, text=True, stdout=subprocess.DEVNULL).returncode
    if status == 0:
        pins = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
        lock.write_text(header + "".join(f"{pin}\n" for pin in pins if not CUDA.match(pin)))
    return status


def main(arguments):
    """Write both files; returns the exit status."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    teach = "\n".join(extras.pop("teach")) + "\n"
    book = ["pyproject.toml", *(word for extra in extras for word in ("--extra", extra))]
    return (resolve("requirements.lock", HEADER.format(whose="the book's") + NO_CUDA, book, arguments)
            or resolve("requirements-teach.lock", HEADER.format(whose="the graders'"), ["-"], arguments, teach))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
