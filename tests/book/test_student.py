"""The student edition holds no solution, and what looks for solutions finds every one of them in the book."""

import hashlib
import json
import re

import pytest
import static_checks
import student_checks
from conftest import ROOT, built

LINKS = [static_checks.broken_links, static_checks.requests_elsewhere, static_checks.missing_descriptions]

SOLUTIONS = sum(p.read_text(encoding="utf-8").count("{solution}") for p in (ROOT / "book").rglob("*") if p.suffix in (".md", ".ipynb"))


@pytest.fixture(scope="module")
def student():
    """The folder of the built student edition: $STUDENT_HTML, or _build/student/html."""
    return built("STUDENT_HTML", "_build/student/html", "the student edition", "make book-student")


@pytest.fixture(scope="module")
def secrets():
    return student_checks.secrets(ROOT)


def test_every_solution_has_something_to_look_for(secrets):
    assert SOLUTIONS == sum("solution cell" not in label for label in secrets) > 80
    assert not [label for label, runs in secrets.items() if not runs]


def test_no_file_of_the_student_edition_holds_a_solution(student, secrets):
    assert student_checks.leaks(student_checks.readable(student), secrets) == {}


def test_the_same_search_finds_every_solution_in_the_book(html, secrets):
    """In the page, in its download and in the archive. A cell that a page does not show is in the other two."""
    leaked = student_checks.leaks(student_checks.readable(html), secrets)
    assert leaked.keys() == secrets.keys()
    for label, names in leaked.items():
        assert any(name.startswith("_sources/") for name in names) and any(".zip/" in name for name in names), label
        assert "solution cell" in label or any(name.endswith(".html") for name in names), label


def test_the_search_index_of_the_student_edition_knows_no_word_of_a_solution(student):
    stems = student_checks.index_of(student)
    assert {page: words & stems[page] for page, words in student_checks.searchable_secrets(ROOT).items() if words & stems[page]} == {}


def test_the_search_index_of_the_book_knows_them(html):
    stems, found = student_checks.index_of(html), student_checks.searchable_secrets(ROOT)
    known = {page: len(words & stems[page]) / len(words) for page, words in found.items()}
    assert len(known) >= 17 and min(known.values()) > 0.7, known


def solution_pictures(html):
    """The hashes of the pictures that cells tagged `solution` have drawn, taken from the book's pages by the figures' names."""
    found = set()
    for path in sorted((ROOT / "book").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            if name and "solution" in cell["metadata"].get("tags", []):
                page = html / path.relative_to(ROOT).with_suffix(".html")
                image = static_checks.parsed(page).find(id=name).find("img")["src"]
                found.add(hashlib.sha256((page.parent / image).read_bytes()).hexdigest())
    return found


def test_no_picture_of_a_solution_is_there(html, student):
    hidden = solution_pictures(html)
    assert len(hidden) >= 2
    assert not hidden & {hashlib.sha256(p.read_bytes()).hexdigest() for p in student.rglob("*") if p.is_file()}


def test_exercises_are_all_there_and_no_solution_is(html, student):
    def count(folder, kind):
        return sum(len(re.findall(rf'<div class="[^"]*\b{kind}\b[^"]*\badmonition\b', p.read_text(encoding="utf-8"))) for p in static_checks.pages(folder))

    assert count(html, "solution") == SOLUTIONS and count(student, "solution") == 0
    assert count(student, "exercise") == count(html, "exercise") >= SOLUTIONS


def test_the_pages_are_those_of_the_book_with_their_figures(html, student):
    names = [[p.relative_to(folder) for p in static_checks.pages(folder)] for folder in (html, student)]
    assert names[0] == names[1]
    figures = [len(re.findall('<figure ', "".join(p.read_text(encoding="utf-8") for p in static_checks.pages(folder)))) for folder in (html, student)]
    assert figures[1] == figures[0] - len(solution_pictures(html))


@pytest.mark.parametrize("check", LINKS, ids=lambda check: check.__name__)
def test_files(student, check):
    assert check(student) == []
