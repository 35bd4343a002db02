"""Turn a training run into what ships: the exact twin of its averaged weights, and a model card.

    python tools/ship_checkpoint.py runs/vae-stochastic-2 --commit REVISION

writes data/checkpoints/NAME.safetensors and NAME.json. Needs the data that the model was trained on, a part of which calibrates the twin, and
what the card's rates are measured on: the first 1000 CIFAR-10 test images, or the 24 Kodak photographs for lossy models.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch

from shvc_lib import data, metrics, recipes, train, zoo
from shvc_lib.bench_chains import negative_elbo
from shvc_lib.models import (discretized_calibration, discretized_codec, expert_shvc, ladder_calibration, ladder_codec, linear_net, shvc_codec, subsampled_codec,
                              vae_codec)
from shvc_lib.nn import float_twin, save_exact, save_partly_exact

DATA = {"cifar10": "CIFAR-10, 50 000 training images", "bsds500": "BSDS500, 200 training and 100 validation images, halved",
        "bsds500-scales": "BSDS500, 200 training and 100 validation images, as they are, at two thirds and at half of their size",
        "bsds500-each": "BSDS500, 200 training and 100 validation images, a piece of each, at half, 5/8 or 3/4 of its size",
        "bsds500-shrunk": "BSDS500, 200 training and 100 validation images, at half, 5/8 and 3/4 of their size and as they are",
        "bsds500-soft": "BSDS500, 200 training and 100 validation images, at half, 5/8 and 3/4 of their size, some blurred, with noise of up to 1 level",
        "bsds500-grainy": "BSDS500, 200 training and 100 validation images, at half, 5/8 and 3/4 of their size, some blurred, with noise of up to 1.25 levels"}

CALIBRATION, IMAGES, DRAWS, LIMIT = 256, 1000, 4, 4 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--commit", required=True, help="revision of the code that trained it")
    parser.add_argument("--hardware", default=f"one core of {platform.machine()}, no GPU", help="what it was trained on")
    parser.add_argument("--note", help="what else there is to know of the training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    state = json.loads((args.run / "checkpoint" / "state.json").read_text())
    recipe = dataclasses.replace(recipes.get(state["recipe"]["name"]), steps=state["recipe"]["steps"])
    run = train.Run(recipe)
    run.load(args.run)
    run.model.load_state_dict(run.average)
    model = run.model.eval()
    save, measured = {"Ladder": _ladder, "DiscretizedVAE": _discretized, "LinearNet": _linear_net, "ExpertSHVC": _linear_net}.get(recipe.model, _lossless)(model, train._images(recipe))
    zoo.FOLDER.mkdir(parents=True, exist_ok=True)
    suffix = ".safetensors.xz" if recipe.model in ("ExpertSHVC", "SHVC", "LinearNet", "SubsampledSHVC") else ".safetensors"
    path = zoo.FOLDER / f"{recipe.name}{suffix}"
    new = zoo.FOLDER / f".{recipe.name}.new{suffix}"
    save(new)
    if new.stat().st_size > LIMIT:
        new.unlink()
        raise SystemExit(f"{recipe.name}: {new.stat().st_size} bytes, more than the {LIMIT} that a checkpoint may have")
    card = {
        "name": recipe.name, "recipe": recipe.as_dict(), "steps": state["step"],
        "data": DATA[recipe.data], "hardware": args.hardware, "minutes": round(state["seconds"] / 60, 1),
        "commit": args.commit, "date": date.today().isoformat(), "torch": torch.__version__.split("+")[0],
        "parameters": sum(p.numel() for p in model.parameters()), "bytes": new.stat().st_size, "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
        **_beginning(args.run.parent / recipe.start, recipe.start), **({"note": args.note} if args.note else {}), **measured(),
    }
    new.chmod(0o644)
    os.replace(new, path)
    (zoo.FOLDER / f"{recipe.name}.json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{recipe.name}: {card['bytes']} bytes, {({k: v for k, v in card.items() if k in ('bits_per_dim', 'kodak')})}")


def _beginning(folder, name):
    """What the card says of the run that left the first weights, if there was one, and of what that began with."""
    if not name:
        return {}
    state, before = json.loads((folder / "checkpoint" / "state.json").read_text()), recipes.get(name).start
    return {"start": {"recipe": name, "steps": state["step"], "minutes": round(state["seconds"] / 60, 1), **_beginning(folder.parent / before, before)}}


def _lossless(model, training):
    """(a function that writes the exact twin, a function that measures) of a lossless model: of CIFAR-10, or of photographs of any size."""
    photographs = training.shape[1] > 32
    typical = training[::len(training) // 48, :64, :96] if photographs else training[:CALIBRATION]
    codecs = {"SHVC": shvc_codec, "SubsampledSHVC": subsampled_codec}
    twin = codecs.get(type(model).__name__, vae_codec).exact_twin(model, typical.numpy())

    def measured():
        if photographs:
            floats, integers = ([negative_elbo(network, image[None], 1) for image in data.kodak()] for network in (model, twin))
            return {"bits_per_dim": {"what": "negative ELBO of the 24 Kodak photographs, each as a whole, ideal, one draw of z",
                                     **{kind: float(np.mean([row["total"] for row in rows])) for kind, rows in (("float", floats), ("exact", integers))},
                                     "parts": {key: float(np.mean([row[key] for row in integers])) for key in integers[0] if key[0] in "xz"}}}
        floats, integers = (negative_elbo(network, data.cifar10("test", IMAGES), DRAWS) for network in (model, twin))
        drawn = "" if model.deterministic else f", mean of {DRAWS} draws of z"
        return {"bits_per_dim": {"what": f"negative ELBO on the first {IMAGES} test images of CIFAR-10, ideal{drawn}",
                                 "float": floats["total"], "exact": integers["total"], "parts": {k: v for k, v in integers.items() if k[0] in "xz"}}}

    return lambda path: save_exact(twin, path), measured


def _linear_net(model, training):
    """The same of a linear-net, or of an SHVC whose experts are fitted to each image."""
    twin = linear_net.exact_twin(model, training[::12].numpy())

    def measured():
        def rate(module, network):
            return float(np.mean([module.codec(network, image.shape).bits(image) / image.size for image in data.kodak()]))

        fitted, what = isinstance(model, expert_shvc.ExpertSHVC), "the 24 Kodak photographs, each as a whole, ideal, with the coefficients and tunings that are sent"
        return {"bits_per_dim": {"what": what + "; float and exact without experts and latents, as linear-net" * fitted, "float": rate(linear_net, float_twin(model)),
                                 "exact": rate(linear_net, twin), **({"experts": rate(expert_shvc, twin)} if fitted else {})}}

    return lambda path: save_exact(twin, path), measured


def _ladder(model, training):
    """The same of a ladder."""
    if model.levels == 2:
        model = ladder_calibration.ready(model, training[::20, :128, :192].permute(0, 3, 1, 2))

    def measured():
        rows = [[ladder_codec.theoretical(model, image, point) for image in data.kodak()] for point in range(len(model.betas))]
        return {"kodak": {"what": "24 Kodak photographs: KL in bits per pixel (ideal) and mean PSNR in dB of exact samples of the posterior, by operating point",
                          "bits_per_pixel": [float(np.mean([row.bits / row.picture[..., 0].size for row in point])) for point in rows],
                          "psnr": [float(np.mean([metrics.psnr(image, row.picture) for image, row in zip(data.kodak(), point)])) for point in rows]}}

    return lambda path: save_partly_exact(model, path), measured


def _discretized(model, training):
    """The same of a discretised VAE."""
    model = discretized_calibration.ready(model, training[::40, :128, :192].permute(0, 3, 1, 2))

    def measured():
        rows = [[discretized_codec.encode(model, image, point) for image in data.kodak()] for point in range(len(model.lambdas))]
        return {"kodak": {"what": "24 Kodak photographs: actual bits of the payload per pixel and mean PSNR in dB, by operating point",
                          "bits_per_pixel": [float(np.mean([8 * len(row.payload) / row.picture[..., 0].size for row in point])) for point in rows],
                          "psnr": [float(np.mean([metrics.psnr(image, row.picture) for image, row in zip(data.kodak(), point)])) for point in rows]}}

    return lambda path: save_partly_exact(model, path), measured


if __name__ == "__main__":
    main()
