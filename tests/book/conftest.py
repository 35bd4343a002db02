"""Where the tests find the built book, and the browser that they share."""

import os
from pathlib import Path

import pytest
from browser_checks import find_browser, open_browser, visit
from static_checks import pages

ROOT = Path(__file__).resolve().parents[2]


def built(variable, place, what, command):
    """The folder that the environment variable names, or else `place` in the repository. `make test` builds it first and insists."""
    folder = Path(os.environ.get(variable) or ROOT / place).resolve()
    if not (folder / "index.html").exists():
        message = f"{what} is not built in {folder}: run `{command}`"
        if os.environ.get("BOOK_MUST_BE_BUILT"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def html():
    """The folder of the built book: $BOOK_HTML, or _build/html."""
    return built("BOOK_HTML", "_build/html", "the book", "make book")


@pytest.fixture(scope="session")
def chrome():
    """One headless Chromium for all tests."""
    if find_browser() is None:
        pytest.skip("no chromium with chromedriver on this machine: the pages are not tried in a browser")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def visits(html, chrome):
    """Every page of the book visited once: a list of the findings of `browser_checks.visit`."""
    return [visit(chrome, html, page) for page in pages(html)]
