"""Figures for the book: one style, one palette, and a slider that works in a static page.

`style()` makes every matplotlib figure look like the book, `show_images` lays photographs side by side, and
`frames` turns a function of one parameter into a figure that a reader can play with, in a page that was built
once and is read offline. Chapter 1 uses all three; `book/how_to_use.md` shows the reader what the slider does.
"""

from .frames import MAX_FRAMES, Frames, frames
from .style import ACCENT, AMBER, CLASSICAL, HIGHLIGHT, MODEL, THEORY, show_images, style

__all__ = [
    "ACCENT", "AMBER", "CLASSICAL", "HIGHLIGHT", "MAX_FRAMES", "MODEL", "THEORY",
    "Frames", "frames", "show_images", "style",
]
