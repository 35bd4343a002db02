"""Write `requirements.lock`: exact versions of everything the book needs, on every Python it supports. `make lock` calls it.

uv resolves pyproject.toml with all extras for every Python and platform at once and reads only metadata, so no package
is downloaded. Versions that the lock already has are kept where they still fit; with --upgrade the newest are taken.

torch's CUDA libraries are left out. A CUDA build of torch names them with exact versions itself; a CPU build, where
pip finds one, does without them, and a lock that listed them would install gigabytes for nothing.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
FLOOR = "3.10"  # the oldest Python; a test keeps it equal to pyproject's
CUDA = re.compile(r"(nvidia|cuda|triton)[a-z0-9-]*==")

HEADER = """\
# Exact versions of the book's environment, for CPython 3.10 to 3.13. Written by `make lock` from pyproject.toml.
# The CUDA libraries of torch are left out: torch itself says which it needs.
"""


def main(arguments):
    """Resolve, drop the CUDA libraries, write the file. Returns uv's exit status."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--all-extras",
               "--python-version", FLOOR, "--no-header", "--no-annotate", "--quiet", "--output-file", str(LOCK)]
    status = subprocess.run(command + arguments, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    if status == 0:
        pins = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
        LOCK.write_text(HEADER + "".join(f"{pin}\n" for pin in pins if not CUDA.match(pin)))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
