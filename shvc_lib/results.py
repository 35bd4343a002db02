"""Kept results: numbers that take longer to compute than a notebook may run, and published ones.

They are the JSON files in the repository's folder data/results. Each says where its numbers come from: a measurement names its
command, date, commit and hardware, a published curve its source. The data card lists them.
"""

import json
from pathlib import Path

from .errors import InvalidInput, MissingData

FOLDER = Path(__file__).resolve().parent.parent / "data" / "results"


def load(name):
    """The contents of data/results/NAME.json, as a dict. Raises MissingData when the library was installed without the repository's
    data folder, InvalidInput for a name that is not there."""
    if not FOLDER.is_dir():
        raise MissingData(f"{FOLDER} is not here: kept results come with the repository, so install the library from a clone of it (pip install -e .)")
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        raise InvalidInput(f"no kept result {name!r}; there are: {', '.join(sorted(p.stem for p in FOLDER.glob('*.json')))}")
    return json.loads(path.read_text(encoding="utf-8"))
