"""Whether anything of a solution is in the files of a built book.

What to look for is taken from the book's sources by other means than those that make the student edition: passages of plain words and
lines of code that are in a solution and nowhere else. Every file is looked through: pages as they are and as they read, notebooks,
the search index, the inventory of labels, each file inside an archive. A passage is compared by its words, so that line breaks, punctuation
and mark-up make no difference.
"""

import html as entities
import io
import json
import re
import zipfile
import zlib
from functools import lru_cache

from sphinx.search.en import SearchEnglish

OPENING = re.compile(r"^[ >]*(?P<fence>`{3,}|:{3,}|~{3,})\{solution\}[ ]*(?P<label>\S+)[ ]*$", re.MULTILINE)
PICTURES_AND_FONTS = {".png", ".jpg", ".svg", ".woff", ".woff2", ".ttf", ".ico", ".eot"}
DATA_URI = re.compile(r"base64,[A-Za-z0-9+/=]{100,}")


def words(text):
    """A text as its words and nothing else, so that two ways of writing it compare equal."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def cells(path):
    """The cells of a source page, as (type, text, tags, captions and the like). A Markdown page is one cell."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [("markdown", text, [], "")]
    return [(c["cell_type"], "".join(c["source"]), c["metadata"].get("tags", []), json.dumps(c["metadata"])) for c in json.loads(text)["cells"]]


def split(text):
    """The solutions in a Markdown text as {label: text}, and the text without them. Fences are matched by their length alone."""
    found = {}
    while opening := OPENING.search(text):
        closing = re.compile(rf"^[ >]*{opening['fence']}[ ]*$", re.MULTILINE).search(text, opening.end())
        found[opening["label"]] = text[opening.end():closing.start()]
        text = text[:opening.start()] + text[closing.end():]
    return found, text


def sources(root):
    """For every page of the book: its solutions, the code that only they use, and the rest."""
    pages = {}
    for path in sorted([*(root / "book").glob("*.md"), *(root / "book").glob("*/*.ipynb")]):
        solutions, code, rest = {}, [], []
        for kind, text, tags, captions in cells(path):
            if "solution" in tags:
                code.append(text)
                continue
            found, left = split(text) if kind == "markdown" else ({}, text)
            solutions |= found
            rest += [left, captions]
        pages[path.relative_to(root).with_suffix("").as_posix()] = solutions, code, "\n".join(rest)
    return pages


def passages(text, at_least=4):
    """Runs of plain words in a Markdown text, cut where mark-up begins; without its options."""
    text = re.sub(r"^:[a-z]+:.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|```.*?```|\{[\w:]+\}`[^`]*`|`[^`]*`", "|", text, flags=re.DOTALL)
    runs = (words(run) for run in re.split(r"[^\w\s,.;:'’\"“”()?!-]|_|[^\x00-\x7f’“”]", text))
    return [run for run in runs if len(run.split()) >= at_least]


def secrets(root):
    """{label: passages} of every solution, and {cell: lines} of the code that only solutions use: what is nowhere else in the book."""
    pages = sources(root)
    open_to_all = " | ".join(f" {words(rest)} " for _, _, rest in pages.values())
    found = {}
    for page, (solutions, code, _) in pages.items():
        for label, text in solutions.items():
            found[label] = [run for run in passages(text) if f" {run} " not in open_to_all]
        for number, text in enumerate(code):
            lines = {words(line) for line in text.splitlines() if len(words(line)) >= 30}
            found[f"{page}, solution cell {number + 1}"] = [line for line in sorted(lines) if f" {line} " not in open_to_all]
    return found


def texts(name, content):
    """What can be read in a file, as (name, words): one for most files, one for each file inside an archive."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for inner in archive.namelist():
                yield from texts(f"{name}/{inner}", archive.read(inner))
        return
    if name.endswith("objects.inv"):
        content = zlib.decompress(content.split(b"zlib.\n", 1)[1])
    text = DATA_URI.sub("", content.decode("utf-8", errors="replace"))
    if name.endswith(".ipynb"):
        notebook = json.loads(text)
        yield name, words("\n".join("".join(c["source"]) for c in notebook["cells"]) + json.dumps(notebook["cells"]))
    elif name.endswith((".html", ".htm")):
        yield name, words(text) + " | " + words(entities.unescape(re.sub(r"<[^>]*>", " ", text)))
    else:
        yield name, words(text.replace("\\n", " "))


def readable(html):
    """Every file of a built book as {name: words}."""
    files = (p for p in sorted(html.rglob("*")) if p.is_file() and p.suffix not in PICTURES_AND_FONTS)
    return dict(found for p in files for found in texts(p.relative_to(html).as_posix(), p.read_bytes()))


def leaks(files, found):
    """Which secrets are in which files: {label: {name of a file, ...}}."""
    leaked = {}
    for name, text in files.items():
        text = f" {text} "
        for label, runs in found.items():
            if any(f" {run} " in text for run in runs):
                leaked.setdefault(label, set()).add(name)
    return leaked


def index_of(html):
    """The search index of a built book as {page: stems of its words}."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{"):text.rindex("}") + 1])
    stems = {page: set() for page in index["docnames"]}
    for kind in ("terms", "titleterms"):
        for stem, where in index[kind].items():
            for page in where if isinstance(where, list) else [where]:
                stems[index["docnames"][page]].add(stem)
    return stems


def searchable_secrets(root):
    """{page: stems of words in its solutions that the rest of the page has nowhere}."""
    stem, found, pages = lru_cache(maxsize=None)(SearchEnglish({}).stem), {}, sources(root)
    # Any page may name authors, and other pages by their titles.
    names = (root / "book" / "references.bib").read_text(encoding="utf-8") + " ".join(rest.strip().partition("\n")[0] for _, _, rest in pages.values())
    for page, (solutions, code, rest) in pages.items():
        open_to_all = {stem(word) for word in words(f"{rest} {names}").split()}
        inside = {stem(word) for text in solutions.values() for run in passages(text, 1) for word in run.split() if len(word) > 4 and word.isalpha()}
        found[page] = inside - open_to_all
    return {page: stems for page, stems in found.items() if stems}
