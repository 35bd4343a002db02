"""Measure the table of results in README.md: bits per sub-pixel of the five embedded photographs, losslessly coded.

Each codec writes a whole file in memory, which is decoded and compared with the photograph before its size counts.
Sizes do not depend on the machine, but the classical codecs' may change with the version of their library, so the
versions stand under the table.

    python tools/readme_results.py            # measures everything and rewrites the table (two or three minutes)
"""

import importlib.metadata
import re
from pathlib import Path

import shvc_lib
from shvc_lib import anchors, data

README = Path(__file__).resolve().parent.parent / "README.md"
CODECS = {"PNG": "PNG", "WebP": "WebP slowest", "JPEG XL": "JPEG XL effort 9"}  # column: name in shvc_lib.anchors
MODELS = ("linear", "shvc-arib-photo", "shvc-photo", "linear-net")
BLOCK = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", re.S)


def measure(image, codecs):
    """Actual bits per sub-pixel by column: the classical codecs first, then our models."""
    found = {anchor.name: anchor.bits_per_dim for anchor in anchors.lossless(image, [CODECS[c] for c in codecs])}
    own = {}
    for model in MODELS:
        coded = shvc_lib.encode(image, model=model)
        if not (shvc_lib.decode(coded) == image).all():
            raise AssertionError(f"{model}: decoded to other pixels")
        own[f"`{model}`"] = 8 * len(coded) / image.size
    return {**{c: found[CODECS[c]] for c in codecs}, **own}


def table():
    rows = {name: measure(data.photograph(name), list(CODECS)) for name in data.PHOTOGRAPHS}
    columns = list(next(iter(rows.values())))
    lines = ["| photograph | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += [f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |" for name, row in rows.items()]
    versions = " and ".join(f"{package} {importlib.metadata.version(package)}" for package in ("Pillow", "imagecodecs"))
    return "\n".join(lines) + f"\n\nPNG is optimised, WebP at its slowest, JPEG XL at effort 9; {versions}.\n"


def main():
    text = README.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda match: match[1] + table() + match[2], text)
    README.write_text(new, encoding="utf-8")
    print(BLOCK.search(new)[0])


if __name__ == "__main__":
    main()
