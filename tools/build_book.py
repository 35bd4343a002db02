"""Build the book into `_build/html`, running again only what has to run again. `make book` calls it.

Jupyter Book keeps the outputs of a notebook for as long as the notebook's own code stays the same, and never looks at
the library that the code calls. And when a page has failed, it forgets about that page: the next build reports
success. So this script decides, from hashes of the files that a build reads:

- nothing has changed since the last build that succeeded: there is nothing to do;
- only the book has changed: every page is made again, and the notebooks whose code has changed run;
- the library, its data, the locked versions or Python have changed: every notebook runs.

A warning is an error. What a failed build remembers is only the notebooks that did run.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
STAMP = BUILD / "inputs.json"
INDEX = BUILD / "html" / "index.html"

NOTEBOOKS_DEPEND_ON = ("shvc_lib", "data", "requirements.lock")
PAGES_DEPEND_ON = ("book", "_config.yml", "_toc.yml", "tools/sphinx_extensions", "tools/build_book.py")
NOT_INPUTS = {"__pycache__", ".ipynb_checkpoints"}


def digest(root, names, *more):
    """One hash of every file under `names`, with its path, and of the strings in `more`."""
    state = hashlib.sha256(repr(more).encode())
    for name in names:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not NOT_INPUTS & set(path.parts):
                state.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
                state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def inputs(root=ROOT):
    """The hashes that decide: what running a notebook reads, and what making the pages reads besides."""
    environment = (sys.version, os.environ.get("SHVC_DATA", ""))
    return {
        "notebooks": digest(root, NOTEBOOKS_DEPEND_ON, *environment),
        "pages": digest(root, PAGES_DEPEND_ON),
    }


def last_success():
    """The hashes of the last build that succeeded, or an empty dict."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def jupyter_book(source):
    """Run Jupyter Book on the folder `source`, a warning being an error. Returns its exit status."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    # The folder of this Python comes first on the path, so that notebooks run in the same environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run([*command, "build", str(source), "-W", "-n", "--keep-going"], cwd=source, env=os.environ | {"PATH": path}).returncode


def build():
    """Build what has changed. Returns the exit status: 0, or that of the build that failed."""
    now, before = inputs(), last_success()
    if now == before and INDEX.exists():
        print(f"Nothing has changed. The book is in {INDEX}")
        return 0
    # The pages are all made again, since a page can break by a change in another one. That takes seconds; only
    # the notebooks' outputs are worth keeping, and they carry the hash of what they were made with.
    for folder in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(BUILD / folder, ignore_errors=True)
    ran_with = BUILD / ".jupyter_cache" / "ran_with"
    if not ran_with.exists() or ran_with.read_text() != now["notebooks"]:
        shutil.rmtree(ran_with.parent, ignore_errors=True)
        ran_with.parent.mkdir(parents=True)
        ran_with.write_text(now["notebooks"])
    STAMP.unlink(missing_ok=True)

    status = jupyter_book(ROOT)
    if status:
        print("The book was not built: see the first warning or error above.", file=sys.stderr)
        return status
    STAMP.write_text(json.dumps(now, indent=1) + "\n")
    print(f"The book is in {INDEX}")
    return 0


if __name__ == "__main__":
    sys.exit(build())
