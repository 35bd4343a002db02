"""A Sphinx extension with one directive, `{run-times}`: a table of the book's notebooks and how long each took to run.

MyST-NB's own table names files and says how their outputs were stored; a reader wants titles and seconds. The seconds
are those of the last time that the notebook ran, which may be an earlier build than the one that made the page.
"""

from datetime import datetime

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective


class Placeholder(nodes.General, nodes.Element):
    """Stands where the table will be, until every notebook has run."""


class RunTimes(SphinxDirective):
    def run(self):
        return [Placeholder()]


class FillTable(SphinxPostTransform):
    default_priority = 8

    def run(self, **_):
        for placeholder in list(self.document.findall(Placeholder)):
            placeholder.replace_self(self.table())

    def table(self):
        rows = [[nodes.Text(text) for text in ("Notebook", "Seconds", "Ran on")]]
        for page, data in sorted(NbMetadataCollector.get_doc_data(self.env).items()):
            ran = data.get("exec_data")
            if ran and page != self.env.docname:
                day = datetime.fromtimestamp(ran["mtime"]).strftime("%Y-%m-%d")
                rows.append([self.link(page), nodes.Text(f"{ran['runtime']:.0f}"), nodes.Text(day)])
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in rows[0]), cols=len(rows[0]))
        group += nodes.thead("", _row(rows[0]))
        group += nodes.tbody("", *map(_row, rows[1:]))
        return nodes.table("", group)

    def link(self, page):
        number = ".".join(map(str, self.env.toc_secnumbers.get(page, {}).get("", ())))
        title = f"{number} {self.env.titles[page].astext()}".strip()
        uri = self.app.builder.get_relative_uri(self.env.docname, page)
        return nodes.reference("", title, refuri=uri, internal=True)


def _row(cells):
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app):
    app.add_node(Placeholder)
    app.add_directive("run-times", RunTimes)
    app.add_post_transform(FillTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
