"""`python -m shvc_lib.bench through --start runs/dvae-start`: what may stand for rounding while training, and what a more flexible prior gains.

Four networks begin with the same weights, those that the recipe dvae-start leaves, and differ in one word of the recipe, `through`: noise, straight, mixed
or price (see `models.discretized`). After the same number of steps each is measured as a codec: ideal bits of *rounded* latents and the picture that they
give, on every third Kodak photograph; beside it the bits under noise, which all but `straight` and `price` believed they were lowering.

Then the prior of `dvae-1`: one Normal for each channel and operating point, the slides' prior, is fitted to the rounded latents of the training images, and
measured on the photographs beside the mixture of three that the network has. Chapter 4 shows both, data/results/discretized_ablations.json.
"""

import json
from pathlib import Path

import numpy as np
import torch

from . import data, metrics, recipes, train, zoo
from .errors import InvalidInput
from .images import write_bytes
from .models.discretized import box_mass

THROUGH = ("noise", "straight", "mixed", "price")


def measure(model, photographs):
    """{rate, noise, psnr: a value for each operating point}: ideal bits per pixel of rounded and of noisy latents, dB; means over photographs, uint8
    (H, W, 3)."""
    found = {"rate": [], "noise": [], "psnr": []}
    for point in range(len(model.lambdas)):
        rows, generator = [], torch.Generator().manual_seed(0)
        for image in photographs:
            pixels, index = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], torch.tensor([point])

            def uniform(shape):
                return torch.rand(shape, generator=generator) - 0.5

            with torch.no_grad():
                rounded, noisy = (model.everything(pixels, index, uniform, through) for through in ("straight", "noise"))
            levels = torch.round(((rounded.pixels[0] + 0.5) * 255).clamp(0, 255)).to(torch.uint8).permute(1, 2, 0).numpy()
            bits = [sum(float(layer.sum()) for layer in estimate.bits) / pixels[0, 0].numel() for estimate in (rounded, noisy)]
            rows.append([*bits, metrics.psnr(image, levels)])
        for key, value in zip(found, np.mean(rows, 0)):
            found[key].append(float(value))
    return found


def trained(through, start, steps, images):
    """A DiscretizedVAE (averaged weights) after `steps` steps of the recipe dvae-1 with another `through`, from the run in the folder `start`."""
    recipe = recipes.get("dvae-1")
    recipe = recipes.replace(recipe, steps=steps, start=start.name, arguments={**recipe.arguments, "through": through})
    run = train.Run(recipe)
    run.begin(images, start.parent)
    torch.set_flush_denormal(True)
    while run.step < steps:
        run.advance(images)
    torch.set_flush_denormal(False)
    run.model.load_state_dict(run.average)
    run.model.bfloat = False
    return run.model.eval()


def normal_prior(model, images, point, steps=150):
    """(means, scales), (latents, 1, 1) each, in integers: one Normal per channel, of the largest likelihood for the rounded latents of images, uint8
    (N, H, W, 3)."""
    with torch.no_grad():
        parts = [model.latents(part.permute(0, 3, 1, 2), torch.full((len(part),), point)).round() for part in images.split(32)]
        k = torch.cat(parts).transpose(0, 1).flatten(1)
    mean, log_scale = k.mean(1, keepdim=True).requires_grad_(), (k.var(1, keepdim=True) + 0.05).sqrt().log().requires_grad_()
    optimizer = torch.optim.Adam([mean, log_scale], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (-box_mass(k, mean, log_scale.exp()).clamp_min(2**-24).log2().mean(1).sum()).backward()
        optimizer.step()
    return mean.detach()[:, :, None], log_scale.detach().exp()[:, :, None]


def priors(photographs, images):
    """{"lambdas", "Normal", "mixture of 3": ideal bits per pixel for each operating point} of dvae-1's rounded latents."""
    model = zoo.load("dvae-1")
    found = {"lambdas": list(model.lambdas), "Normal": [], "mixture of 3": []}
    for point in range(len(model.lambdas)):
        mean, scale = normal_prior(model, images[:, :128, :192], point)
        rows, index = [], torch.tensor([point])
        for image in photographs:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            with torch.no_grad():
                k = model.latents(pixels, index).round()
                masses = box_mass(k[0], mean, scale), model.prior.mass(k, index, model.log_gain[index].exp())
            rows.append([float(-mass.clamp_min(2**-24).log2().sum()) / pixels[0, 0].numel() for mass in masses])
        for key, value in zip(("Normal", "mixture of 3"), np.mean(rows, 0)):
            found[key].append(float(value))
    return found


def main(args, circumstances):
    """Print a row per network and operating point; keep them in `args.json`."""
    if args.json and Path(args.json).exists():
        raise InvalidInput(f"{args.json}: this file exists; name another")
    photographs, images = data.kodak()[::3], train._images(recipes.get("dvae-1"))
    prior, through = priors(photographs, images[::24]), {}
    for values in zip(*prior.values()):
        print("lambda {:.3f}: Normal {:.4f}, mixture of 3 {:.4f} bits per pixel".format(*values), flush=True)
    for name in THROUGH:
        through[name] = measure(trained(name, Path(args.start), args.steps, images), photographs)
        for rate, noise, psnr in zip(*through[name].values()):
            print(f"{name:10} {rate:7.4f} bits per pixel, {noise:7.4f} under noise, {psnr:6.2f} dB", flush=True)
    if args.json:
        result = {"description": "Every third Kodak photograph, ideal bits per pixel. through: networks that began with the same weights and were trained "
                                 "for the same steps with noise, a straight-through gradient, both, or the price of the next integer in the place of "
                                 "rounding; rate of rounded latents, noise that of noisy ones. prior: rounded latents of dvae-1 under one Normal per channel and under its mixtures",
                  **circumstances, "steps": args.steps, "photographs": len(photographs), "through": through, "prior": prior}
        write_bytes(args.json, (json.dumps(result, indent=1) + "\n").encode())
