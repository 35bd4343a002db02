"""Who may import whom: files import from lower floors only, and the codec runs without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "shvc_lib"
FLOORS = {"errors": 0, "images": 1, "theory": 1, "coding": 1, "sampling": 1, "data": 1, "metrics": 1, "results": 1, "viz": 1, "hevc": 1, "nn": 2, "models": 3,
          "recipes": 4, "download": 4, "images16": 0, "train": 5, "zoo": 5, "container": 5, "anchors": 5, "parallel": 4, "container_tiles": 6, "container_small": 6, "coders": 6, "lossy": 6, "album_pile": 5, "album_streams": 6, "album_file": 6, "album": 7, "bench_chains": 6, "bench_miracle": 6,
          "bench_speed": 6, "bench_subpixel": 6, "bench_through": 6, "codec": 7, "cli_files": 7, "bench_arib": 8, "bench_shvc": 8, "bench_discretized": 8, "bench_ladder": 8,
          "bench_samplers": 7, "bench_sampling": 8, "bench_photographs": 9, "bench": 9, "cli": 9, "__init__": 10}


def imports(path):
    """First-level names inside shvc_lib that a file imports, at any depth of nesting."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [*base, *(node.module or "").split(".")] if node.module else [*base]
            names = [n for n in names if n]
            yield from [names[0]] if names else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        if name != own and not name.startswith("_"):
            assert FLOORS[name] <= FLOORS[own], f"{path.name} imports {name}"
            assert FLOORS[name] < FLOORS[own] or FLOORS[own] <= 1 or own in ("bench", "cli"), f"{path.name} imports {name} on its own floor"


def test_the_codec_runs_without_torch():
    program = ("import sys; sys.modules['torch'] = None; import numpy as np, shvc_lib, shvc_lib.cli;"
               "image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3); assert (shvc_lib.decode(shvc_lib.encode(image)) == image).all()")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_training_runs_without_the_coder():
    """A machine that only trains needs torch, numpy and safetensors, and neither constriction nor scipy nor scikit-image."""
    program = ("import sys; [sys.modules.__setitem__(name, None) for name in ('constriction', 'scipy', 'skimage', 'matplotlib', 'imagecodecs')];"
               "import torch; from shvc_lib import recipes, train; torch.set_num_threads(1); black = torch.zeros(8, 64, 64, 3, dtype=torch.uint8);"
               "run = train.Run(recipes.get('vae-tiny')); print(run.advance(black[:, :32, :32]));"
               "run = train.Run(recipes.replace(recipes.get('dvae-12'), crop=64, batch=2)); run.model.prepare(black + 1); print(run.advance(black))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("bits_per_dim") == 2, done.stderr
