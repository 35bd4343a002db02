"""The built book: nothing comes from elsewhere, formulas are set, sliders move, pictures are described, links lead somewhere."""

import pytest
import static_checks
from selenium.webdriver.common.by import By


def report(findings):
    return f"{len(findings)} found:\n" + "\n".join(findings[:50])


@pytest.mark.parametrize("check", [
    static_checks.requests_elsewhere,
    static_checks.missing_descriptions,
    static_checks.broken_links,
    static_checks.raw_markup,
], ids=lambda check: check.__name__)
def test_files(html, check):
    findings = check(html)
    assert not findings, report(findings)


@pytest.mark.parametrize("kind", ["mathematics", "sliders", "width", "console", "requests"])
def test_pages_in_a_browser(visits, kind):
    findings = [finding for found in visits for finding in found[kind]]
    assert not findings, report(findings)


def test_the_book_has_pages_formulas_and_a_slider(html):
    """The checks above would pass on an empty folder."""
    text = [page.read_text(encoding="utf-8") for page in static_checks.pages(html)]
    assert len(text) >= 9
    assert sum('class="math' in page for page in text) >= 3
    assert any('class="frames"' in page for page in text)


def test_without_javascript_a_slider_is_its_starting_picture(html, chrome):
    page = next(p for p in static_checks.pages(html) if 'class="frames"' in p.read_text(encoding="utf-8"))
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome.get(page.as_uri())
        box = chrome.find_element(By.CSS_SELECTOR, ".frames")
        assert box.find_element(By.TAG_NAME, "img").is_displayed()
        assert not box.find_element(By.TAG_NAME, "input").is_displayed(), "a slider that does nothing is shown"
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
