"""Each check of the built book can fail: break a copy of a page in one way, and see the check that should notice, notice.

Every case names what it does to the page, the kind of finding that must come of it, and words that the finding holds.
That the whole page passes is tested first, so a finding is due to the damage.
"""

import re
import shutil

import browser_checks
import pytest
import static_checks
from browser_checks import visit


def insert(markup):
    """The edit that adds markup at the end of the article."""
    return lambda page: page.replace("</article>", markup + "</article>", 1)


def replace(pattern, by):
    """The edit that changes the first match of a pattern; it must match."""
    def edit(page):
        changed, count = re.subn(pattern, by, page, count=1, flags=re.DOTALL)
        assert count, f"nothing matches {pattern}"
        return changed

    return edit


@pytest.fixture(scope="module")
def copy(html, tmp_path_factory):
    """A copy of the built book with one damaged page at a time: the first page with formulas and a slider."""
    folder = tmp_path_factory.mktemp("broken") / "html"
    shutil.copytree(html, folder)
    page = next(
        p for p in static_checks.pages(folder)
        if 'class="frames"' in (text := p.read_text(encoding="utf-8")) and 'class="math' in text
    )
    return folder, page


@pytest.fixture
def damage(copy):
    """A function that edits the page; the page is whole again after the test."""
    _, page = copy
    whole = page.read_text(encoding="utf-8")

    def apply(edit):
        page.write_text(edit(whole), encoding="utf-8")

    yield apply
    page.write_text(whole, encoding="utf-8")


STATIC = [
    (insert('<script src="https://cdn.example/a.js"></script>'), "requests_elsewhere", "script fetches https://cdn"),
    (insert('<link rel="stylesheet" href="//cdn.example/a.css">'), "requests_elsewhere", "link fetches //cdn"),
    (insert('<img alt="a dot" src="http://cdn.example/a">'), "requests_elsewhere", "img fetches"),
    (insert('<img alt="a dot" srcset="https://cdn.example/a 2x">'), "requests_elsewhere", "img fetches"),
    (insert('<iframe src="https://video.example/1"></iframe>'), "requests_elsewhere", "iframe fetches"),
    (insert("<style>@import 'https://cdn.example/a.css';</style>"), "requests_elsewhere", "css fetches"),
    (insert('<p style="background: url(https://cdn.example/a)"></p>'), "requests_elsewhere", "css fetches"),
    (insert('<script src="../../../../somewhere/else.js"></script>'), "requests_elsewhere", "script fetches"),
    (insert('<img src="data:,">'), "missing_descriptions", "None"),
    (insert('<img src="data:," alt=" ">'), "missing_descriptions", "' '"),
    (insert('<img src="data:," alt="0123456789abcdef01234567">'), "missing_descriptions", "0123456789abcdef"),
    (insert('<img src="data:," alt="../_images/0123456789abcdef01234567.png">'), "missing_descriptions", "_images"),
    (replace(r'(class="frames-data">\[\["[^"]*", )"[^"]*"', r'\1""'), "missing_descriptions", "frame 0"),
    (insert('<a href="no_such_page.html">there</a>'), "broken_links", "no such file: no_such_page.html"),
    (insert('<a href="#no-such-place">there</a>'), "broken_links", "no such place: #no-such-place"),
    (insert('<a href="../intro.html#no-such-place">there</a>'), "broken_links", "no such place: ../intro.html"),
    (insert('<img alt="a dot" src="../../_images/no_such.png">'), "broken_links", "no such file"),
    (insert('<span class="xref std std-numref">fig-none</span>'), "broken_links", "unresolved reference: fig-none"),
    (insert("<p>see {numref}`fig-none`</p>"), "raw_markup", "a MyST role"),
    (insert("<p>```{note}</p>"), "raw_markup", "a MyST fence"),
    (insert("<p>(fig-none)=</p>"), "raw_markup", "a MyST target"),
    (insert("<p>{{ bits }}</p>"), "raw_markup", "a substitution"),
    (insert("<p>| a | b | | —: | --- |</p>"), "raw_markup", "a Markdown table"),
    (insert("<p>costs $h(p)$ bits</p>"), "raw_markup", "TeX"),
    (insert(r"<p>costs \log p bits</p>"), "raw_markup", "TeX"),
]

BROWSER = [
    (replace(r'<script[^>]*tex-chtml\.js"></script>', ""), "mathematics", "a formula is not set"),
    (insert(r'<span class="math">\(\frobnicate{x}\)</span>'), "mathematics", r"does not know \frobnicate"),
    (insert(r'<span class="math">\(\frac{1}\)</span>'), "mathematics", "reports an error"),
    (insert(r'<p class="mathjax_ignore">costs \(h(p)\) bits</p>'), "mathematics", "TeX is left"),
    (insert("<style>.frames-control { display: none !important }</style>"), "sliders", "not shown"),
    (insert("<style>.frames input { pointer-events: none }</style>"), "sliders", "the mouse does not change the picture"),
    (insert("<script>document.querySelector('.frames input').onkeydown = () => false</script>"), "sliders",
     "the keyboard does not change the picture"),
    (insert("<script>document.querySelector('.frames input').oninput = null</script>"), "sliders",
     "the mouse does not change the picture"),
    (insert("<script>document.querySelector('.frames input').oninput = function () {"
            " this.closest('.frames').querySelector('img').src = 'data:,' + this.value }</script>"), "sliders",
     "the picture cannot be shown"),
    (insert('<div style="width: 600px">wide</div>'), "width", "pixels wide"),
    (insert('<div style="position: absolute; width: 600px; left: 0">wide</div>'), "width", "reaches to 600"),
    (insert("<script>throw new Error('a slip')</script>"), "console", "a slip"),
    (insert('<img alt="a dot" src="no_such.png">'), "console", "ERR_FILE_NOT_FOUND"),
    (insert("<script>new Image().src = 'https://cdn.example/a.png'</script>"), "requests", "https://cdn.example/a.png"),
    (insert('<img alt="a dot" src="../../../elsewhere.png">'), "requests", "elsewhere.png"),
]


def test_the_whole_copy_passes(copy, chrome):
    folder, page = copy
    for check in ("requests_elsewhere", "missing_descriptions", "broken_links", "raw_markup"):
        assert getattr(static_checks, check)(folder) == []
    assert visit(chrome, folder, page) == dict.fromkeys(["mathematics", "width", "sliders", "console", "requests"], [])


@pytest.mark.parametrize("edit, check, words", STATIC, ids=[f"{check}-{words}" for _, check, words in STATIC])
def test_a_damaged_file_is_noticed(copy, damage, edit, check, words):
    folder, page = copy
    damage(edit)
    findings = getattr(static_checks, check)(folder)
    assert findings and all(finding.startswith(str(page.relative_to(folder))) for finding in findings)
    assert any(words in finding for finding in findings), findings


@pytest.mark.parametrize("edit, kind, words", BROWSER, ids=[f"{kind}-{words}" for _, kind, words in BROWSER])
def test_a_damaged_page_is_noticed(copy, damage, chrome, edit, kind, words):
    folder, page = copy
    damage(edit)
    findings = visit(chrome, folder, page)[kind]
    assert any(words in finding for finding in findings), findings


def test_a_style_sheet_that_fetches_is_noticed(copy):
    folder, _ = copy
    sheet = folder / "_static" / "book.css"
    whole = sheet.read_text(encoding="utf-8")
    sheet.write_text(whole + "@font-face { src: url('https://fonts.example/a.woff2') }", encoding="utf-8")
    try:
        assert any("fonts.example" in finding for finding in static_checks.requests_elsewhere(folder))
    finally:
        sheet.write_text(whole, encoding="utf-8")


def test_without_a_browser_its_tests_are_skipped_and_say_so(monkeypatch):
    monkeypatch.setattr(browser_checks.shutil, "which", lambda name: None)
    assert browser_checks.find_browser() is None
