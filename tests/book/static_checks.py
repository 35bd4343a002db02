"""What can be seen in the files of the built book without a browser.

Every check takes the folder of the built book and returns its findings as lines, "page: what is wrong"; an empty
list is a pass. The tests of the real book and the tests that break a copy of it call the same functions.
"""

import json
import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

# Every attribute through which a page makes a browser fetch something by itself. A link to click is not one.
FETCHED = {
    "script": ["src"], "link": ["href"], "img": ["src", "srcset"], "source": ["src", "srcset"], "iframe": ["src"],
    "video": ["src", "poster"], "audio": ["src"], "track": ["src"], "embed": ["src"], "object": ["data"],
    "input": ["src"],
}
IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
HASH_OR_FILE = re.compile(r"\s*(_?\w*/)*([0-9a-f]{16,}|\S+\.(png|svg|jpe?g|webp|gif))\s*")
RAW_MARKUP = [
    (re.compile(r"\{[a-z][\w:.+-]*\}`"), "a MyST role"),
    (re.compile(r"(```|:::)"), "a MyST fence"),
    (re.compile(r"^\([\w-]+\)=\s*$", re.MULTILINE), "a MyST target"),
    (re.compile(r"\{\{.*?\}\}"), "a substitution"),
    (re.compile(r"\|\s*:?[-–—]+:?\s*\|"), "a Markdown table"),
    (re.compile(r"\$[^$\n]*\$|\\[A-Za-z]{2,}"), "TeX"),
]


def pages(html):
    """Every page of the book, sorted: paths of .html files outside the theme's static folder."""
    return sorted(p for p in html.rglob("*.html") if "_static" not in p.relative_to(html).parts)


def parsed(path):
    """The page as a tree; read again only when the file has changed."""
    state = path.stat()
    return _parsed(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=None)
def _parsed(path, time, size):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _findings(html, check):
    return [f"{page.relative_to(html)}: {finding}" for page in pages(html) for finding in check(html, page)]


def _is_elsewhere(html, file, url):
    """Whether `url`, used in `file`, would be fetched from outside the book's folder."""
    parts = urlsplit(url.strip())
    if parts.scheme or parts.netloc:
        return parts.scheme not in ("data", "blob", "about")
    return not _target(html, file, url)[0].is_relative_to(html.resolve())


def _target(html, file, url):
    """The file and the fragment that a relative URL means."""
    parts = urlsplit(url.strip())
    path = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
    return path, unquote(parts.fragment)


def _fetched_urls(soup):
    for tag, attributes in FETCHED.items():
        for element in soup.find_all(tag):
            for attribute in attributes:
                value = element.get(attribute)
                if value and attribute == "srcset":
                    yield from (f"{tag} {candidate.split()[0]}" for candidate in value.split(",") if candidate.split())
                elif value:
                    yield f"{tag} {value}"
    css = [style.get_text() for style in soup.find_all("style")]
    css += [element["style"] for element in soup.find_all(style=True)]
    for text in css:
        yield from (f"css {a or b}" for a, b in IN_CSS.findall(text))


def requests_elsewhere(html):
    """Scripts, styles, images, frames and fonts that a page or a style sheet takes from outside the book."""
    def check(html, page):
        for item in _fetched_urls(parsed(page)):
            kind, url = item.split(" ", 1)
            if _is_elsewhere(html, page, url):
                yield f"{kind} fetches {url[:100]}"

    findings = _findings(html, check)
    for sheet in sorted(html.rglob("*.css")):
        for a, b in IN_CSS.findall(sheet.read_text(encoding="utf-8")):
            if _is_elsewhere(html, sheet, a or b):
                findings.append(f"{sheet.relative_to(html)}: css fetches {(a or b)[:100]}")
    return findings


def missing_descriptions(html):
    """Images whose alt text is missing, empty, a hash or a file name, in the page and behind its sliders."""
    def check(html, page):
        soup = parsed(page)
        descriptions = [(i.get("src", ""), i.get("alt")) for i in soup.find_all("img")]
        for data in soup.find_all("script", class_="frames-data"):
            descriptions += [(f"frame {n}", alt) for n, (_, alt, _) in enumerate(json.loads(data.string))]
        for source, alt in descriptions:
            if not alt or not alt.strip() or HASH_OR_FILE.fullmatch(alt):
                yield f"the image {source[:60]} has the alt text {alt!r}"

    return _findings(html, check)


def broken_links(html):
    """Links and fetched files that do not exist in the book, fragments without a target, unresolved references."""
    def check(html, page):
        soup = parsed(page)
        urls = {a["href"] for a in soup.find_all("a", href=True)}
        urls |= {item.split(" ", 1)[1] for item in _fetched_urls(soup)}
        for meta in soup.find_all("meta", attrs={"http-equiv": re.compile("refresh", re.IGNORECASE)}):
            urls.add(meta["content"].split("url=")[1])
        for url in sorted(urls):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            path, fragment = _target(html, page, url)
            if not path.is_file():
                yield f"no such file: {url}"
            elif fragment and path.suffix == ".html" and fragment not in _anchors(path):
                yield f"no such place: {url}"
        for reference in soup.select(".xref"):
            if reference.name != "a" and not reference.find_parent("a"):
                yield f"an unresolved reference: {reference.get_text()}"

    return _findings(html, check)


def _anchors(path):
    """The names of the places in a page that a link can lead to."""
    state = path.stat()
    return _anchors_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=None)
def _anchors_of(path, time, size):
    soup = _parsed(path, time, size)
    return {e["id"] for e in soup.find_all(id=True)} | {e["name"] for e in soup.find_all("a", attrs={"name": True})}


def raw_markup(html):
    """MyST or TeX that was left as it was written, outside code and outside formulas."""
    def check(html, page):
        article = parsed(page).find("article")
        if article is None:
            return
        hidden = {id(e) for e in article.select("pre, code, script, style, .math")}
        text = "".join(
            "\n" if any(id(parent) in hidden for parent in string.parents) else string
            for string in article.find_all(string=True)
        )
        for pattern, name in RAW_MARKUP:
            for match in pattern.finditer(text):
                yield f"{name} is left in the text: {text[match.start():match.end() + 20].strip()!r}"

    return _findings(html, check)


