"""The notebooks that the built book offers: each is its page's own code, to be run, and the archive holds the same files."""

import io
import json
import sys
import zipfile

import nbformat
import static_checks
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools" / "sphinx_extensions"))
try:
    import downloads
finally:
    sys.path.pop(0)

NOTEBOOKS = sorted(p.relative_to(ROOT) for p in (ROOT / "book").glob("*/*.ipynb"))


def code(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebooks_page_offers_it_to_be_run(html):
    for path in NOTEBOOKS:
        page, source = html / path.with_suffix(".html"), json.loads((ROOT / path).read_text(encoding="utf-8"))
        links = [a["href"] for a in static_checks.parsed(page).select("a.btn-download-source-button")]
        assert len(links) == 1, path
        offered = json.loads((page.parent / links[0]).resolve().read_text(encoding="utf-8"))
        nbformat.validate(nbformat.from_dict(offered))
        assert code(offered) == code(source), f"{path}: not the code of the notebook"
        assert downloads.NEEDS in "".join(offered["cells"][0]["source"])
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in offered["cells"])
        assert "To run this notebook" not in static_checks.parsed(page).get_text(), "what a download needs clutters the page"


def test_the_archive_holds_the_downloads_and_says_what_they_need(html):
    content = (html / downloads.ARCHIVE).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    offered = {path.relative_to("book").as_posix(): (html / "_sources" / path).read_bytes() for path in NOTEBOOKS}
    assert {name: text for name, text in files.items() if name != "README.txt"} == offered
    assert "make venv" in files["README.txt"].decode() and all(name in files["README.txt"].decode() for name in offered)


def test_the_archive_is_the_same_bytes_when_made_again(html, tmp_path):
    with zipfile.ZipFile(html / downloads.ARCHIVE) as archive:
        files = {name.partition("/")[2]: archive.read(name).decode() for name in reversed(archive.namelist())}
    downloads.archive(tmp_path / "again.zip", files)
    assert (tmp_path / "again.zip").read_bytes() == (html / downloads.ARCHIVE).read_bytes()


def test_a_page_links_to_the_archive(html):
    links = [a["href"] for a in static_checks.parsed(html / "book" / "how_to_use.html").find("article").find_all("a", href=True)]
    target = [html / "book" / link for link in links if link.endswith(downloads.ARCHIVE)]
    assert len(target) == 1 and target[0].resolve() == (html / downloads.ARCHIVE).resolve()
