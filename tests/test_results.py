"""Kept results load by name from anywhere, and say where they come from."""

import pytest

from shvc_lib import results
from shvc_lib.errors import InvalidInput, MissingData

NAMES = sorted(path.stem for path in results.FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_its_numbers_come_from(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = results.load(name)
    assert {"command", "date", "commit", "hardware"} <= set(result) or result.get("source") or all(c.get("source") for c in result["curves"].values())


def test_what_is_missing_is_said_in_a_line(monkeypatch, tmp_path):
    assert NAMES
    with pytest.raises(InvalidInput, match="published_kodak"):
        results.load("no-such-result")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "elsewhere")
    with pytest.raises(MissingData, match="clone"):
        results.load(NAMES[0])
