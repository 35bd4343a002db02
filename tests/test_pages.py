"""The pages that are not notebooks agree with the library, with the notebooks and with each other."""

import json
import re
from pathlib import Path

import pytest

from shvc_lib import coding, metrics, sampling, theory
from shvc_lib.coding import arib, bits_back
from shvc_lib.models import discretized, ladder, shvc
from shvc_lib.nn import autoregression, subpixel
from shvc_lib.sampling import groups, ordered, rejection

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"


def read(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def markdown(path):
    """The words of a page or of a notebook's Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


PAGES = sorted([*BOOK.glob("*.md"), *(path for path in BOOK.glob("*/*.ipynb") if "checkpoint" not in str(path))])
NOTATION = [[cell.strip() for cell in line[1:-1].split("|")] for line in read("book", "notation.md").split("## Letters")[0].splitlines()
            if line.startswith("| ") and not line.startswith(("| ---", "| symbol"))]


def library_names():
    """Every function, class, argument, attribute and constant of the packages that the table speaks of."""
    names = set()
    for package in (theory, coding, bits_back, metrics, sampling, groups, ordered, rejection, ladder, discretized, arib, shvc, autoregression, subpixel):
        for name, thing in vars(package).items():
            if name.startswith("_"):
                continue
            names.add(name)
            if callable(thing):
                code = getattr(thing, "__code__", None) or getattr(getattr(thing, "__init__", None), "__code__", None)
                names.update(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else ())
            if isinstance(thing, type):
                names.update(f"{name}.{member}" for member in (*vars(thing), *getattr(thing, "__annotations__", ())))
    return names


# What `IntegerCDF.intervals` returns, what the book's own code calls its images, and the words of chapters to come.
ELSEWHERE = {"start", "freq", "reconstruction", "step", "noise", "k", "beta", "latent", "latents", "prior", "posterior", "likelihood", "levels", "causes"}


@pytest.mark.parametrize("row", NOTATION, ids=lambda row: row[0])
def test_every_name_in_the_notation_table_exists(row):
    assert len(row) == 5
    names = re.findall(r"`([^`]+)`", row[2])
    assert names and set(names) - library_names() - ELSEWHERE == set()


def test_no_symbol_is_defined_twice():
    symbols = [symbol for row in NOTATION for symbol in row[0].split(", ")]
    assert len(symbols) == len(set(symbols))


def glossary():
    block = re.search(r"```\{glossary\}\n(.*?)```", read("book", "glossary.md"), re.S)[1]
    return [line for line in block.splitlines() if line and not line.startswith(" ")]


def test_the_glossary_is_in_alphabetical_order_without_doubles():
    terms = glossary()
    assert terms == sorted(set(terms), key=str.casefold)


def test_every_term_that_is_linked_is_in_the_glossary():
    linked = {re.search(r"<(.+)>", term)[1] if "<" in term else term
              for path in PAGES for term in re.findall(r"\{term\}`([^`]+)`", markdown(path))}
    known = {term.casefold() for term in glossary()}
    assert {term for term in linked if " ".join(term.split()).casefold() not in known} == set()


def test_every_citation_is_in_the_bibliography_with_author_title_and_year():
    entries = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", read("book", "references.bib"), re.S | re.M))
    cited = {key.strip() for path in PAGES for keys in re.findall(r"\{cite:[a-z]+\}`([^`]+)`", markdown(path)) for key in keys.split(",")}
    assert cited <= set(entries)
    assert [key for key, body in entries.items() if not all(re.search(rf"^\s*{field}\s*=", body, re.M) for field in ("author", "title", "year"))] == []
    assert list(entries) == sorted(entries)


def test_one_version_everywhere():
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.M)[1]
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"Version {version}" in read("book", "how_to_use.md")
    assert f"## {version} " in read("CHANGELOG.md")


CARDS = re.findall(r"\{doc\}`(.+?) <(\d_.+?)>` · (\d+) minutes to read, (.+?) to run$", read("book", "intro.md"), re.M)


def test_the_map_leads_to_every_notebook_and_to_nothing_else():
    assert [target for _, target, _, _ in CARDS] == [str(path.relative_to(BOOK).with_suffix("")) for path in PAGES if path.suffix == ".ipynb"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[0])
def test_a_notebook_says_of_itself_what_the_map_says_of_it(card):
    title, target, minutes, run = card
    text = markdown(BOOK / f"{target}.ipynb")
    assert title == re.search(r"^# (.+?)(?:: .+)?$", text, re.M)[1]
    opening = " ".join(text.split())[:5000].replace("*", "")
    stated = re.search(r"(\d+) minutes to read|Reading takes about (\d+) minutes", opening)
    assert minutes in stated.groups()
    assert run in opening
