"""Turn a training run into what ships: the exact twin of its averaged weights, and a model card.

    python tools/ship_checkpoint.py runs/vae-stochastic-2

writes data/checkpoints/NAME.safetensors and NAME.json. Needs CIFAR-10: its first 256 training images calibrate the twin, its first 1000 test images
are what the card's rates are measured on.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
from datetime import date
from pathlib import Path

import torch

from shvc_lib import data, recipes, train, zoo
from shvc_lib.bench_chains import negative_elbo
from shvc_lib.models.vae_codec import exact_twin
from shvc_lib.nn import save_exact

CALIBRATION, IMAGES, DRAWS, LIMIT = 256, 1000, 4, 4 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--commit", required=True, help="revision of the code that trained it")
    parser.add_argument("--hardware", default=f"one core of {platform.machine()}, no GPU", help="what it was trained on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    state = json.loads((args.run / "checkpoint" / "state.json").read_text())
    recipe = dataclasses.replace(recipes.get(state["recipe"]["name"]), steps=state["recipe"]["steps"])
    run = train.Run(recipe)
    run.load(args.run)
    run.model.load_state_dict(run.average)
    model = run.model.eval()
    twin, images = exact_twin(model, data.cifar10("train", CALIBRATION)), data.cifar10("test", IMAGES)
    zoo.FOLDER.mkdir(parents=True, exist_ok=True)
    path = zoo.FOLDER / f"{recipe.name}.safetensors"
    new = path.with_suffix(".new")
    save_exact(twin, new)
    if new.stat().st_size > LIMIT:
        new.unlink()
        raise SystemExit(f"{recipe.name}: {new.stat().st_size} bytes, more than the {LIMIT} that a checkpoint may have")
    floats, integers = (negative_elbo(network, images, DRAWS) for network in (model, twin))
    card = {
        "name": recipe.name, "recipe": recipe.as_dict(), "steps": state["step"],
        "data": "CIFAR-10, 50 000 training images", "hardware": args.hardware, "minutes": round(state["seconds"] / 60, 1),
        "commit": args.commit, "date": date.today().isoformat(), "torch": torch.__version__.split("+")[0],
        "parameters": sum(p.numel() for p in model.parameters()), "bytes": new.stat().st_size, "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
        "bits_per_dim": {"what": f"negative ELBO on the first {IMAGES} test images of CIFAR-10, ideal, mean of {DRAWS} draws of z",
                         "float": floats["total"], "exact": integers["total"], "parts": {k: v for k, v in integers.items() if k != "total"}},
    }
    new.chmod(0o644)
    os.replace(new, path)
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{recipe.name}: {card['bytes']} bytes, {floats['total']:.4f} bits/dim in floats, {integers['total']:.4f} exact")


if __name__ == "__main__":
    main()
