"""A Sphinx extension that numbers a notebook by its place in the tree: chapter 1, second notebook, is 1.2.

`book/1_rate_distortion_mdl/2_rate_and_distortion.ipynb` gets the number 1.2, and its figures, equations and exercises
1.2.1, 1.2.2, and so on. Sphinx would count the pages of the table of contents instead, which gives the notebooks of
all chapters one running number.
"""

import re

from docutils import nodes
from sphinx.environment.collectors.toctree import TocTreeCollector

NOTEBOOK = re.compile(r"book/(\d+)_[^/]+/(\d+)_[^/]+")


def assign_section_numbers(collector, env):
    """Number the titles of notebooks, and nothing else. Returns the pages whose number has changed."""
    before, env.toc_secnumbers = env.toc_secnumbers, {}
    for page, contents in env.tocs.items():
        match = NOTEBOOK.fullmatch(page)
        if not match:
            continue
        number = tuple(int(digits) for digits in match.groups())
        title, *sections = contents.findall(nodes.reference)
        title["secnumber"] = env.titles[page]["secnumber"] = number
        # No number of its own keeps a section's heading bare, while its figures still count under the notebook's number.
        env.toc_secnumbers[page] = {title["anchorname"]: number} | {s["anchorname"]: None for s in sections}
    return [page for page, numbers in env.toc_secnumbers.items() if numbers != before.get(page)]


def setup(app):
    TocTreeCollector.assign_section_numbers = assign_section_numbers
    return {"parallel_read_safe": True, "parallel_write_safe": True}
