"""One environment, told three times: pyproject's ranges, the lock's exact versions, and the conda file agree."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PYTHONS = ["3.10.0", "3.11.2", "3.12.0", "3.13.0"]


def locked(python, lock="requirements.lock"):
    """{name: version} of a lock on Linux under one version of Python."""
    environment = {
        "python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux",
        "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64", "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        version = re.fullmatch(r"==([^*]+)", str(pin.specifier))
        assert version and "+" not in version[1], f"not one public version: {line}"
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            pins[name] = version[1]
    return pins


def wanted():
    """Every requirement of pyproject, extras included but for the graders'."""
    lines = PROJECT["dependencies"] + [line for name, extra in PROJECT["optional-dependencies"].items() for line in extra if name != "teach"]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_pyproject(python):
    pins = locked(python)
    for requirement in wanted():
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not locked"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} but {version} is locked"


@pytest.mark.parametrize("python", PYTHONS)
def test_graders_have_a_lock_of_their_own(python):
    pins = locked(python, "requirements-teach.lock")
    for requirement in map(Requirement, PROJECT["optional-dependencies"]["teach"]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), f"{requirement} but {pins} is locked"
    assert "nbgrader" not in locked(python) and "torch" not in pins


def test_the_lock_leaves_cuda_to_torch():
    assert not [name for name in locked("3.12.0") if re.match("nvidia|cuda|triton", name)]


def test_conda_takes_its_versions_from_the_lock():
    pip = next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_what_conda_installs_itself_agrees():
    """Python has pyproject's range; a package that conda would pin must have the lock's version."""
    pins = locked("3.12.0")
    entries = [Requirement(entry) for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert {entry.name for entry in entries} >= {"python", "pip"}
    for entry in entries:
        if entry.name == "python":
            assert entry.specifier == SpecifierSet(PROJECT["requires-python"])
        elif entry.name != "pip":
            assert str(entry.specifier).lstrip("=") == pins[canonicalize_name(entry.name)]


def test_the_python_range_is_the_same_everywhere():
    python = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in python] == ["3.10", "3.11", "3.12", "3.13"]
    assert "(3, 10) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()
    assert 'FLOOR = "3.10"' in (ROOT / "tools" / "lock.py").read_text()


def test_torch_has_the_tested_range():
    torch = next(requirement for requirement in wanted() if requirement.name == "torch")
    assert torch.specifier == SpecifierSet(">=2.6,<2.14")
