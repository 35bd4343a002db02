"""One training loop for every model of the book.

    python -m shvc_lib.train vae-tiny --out runs/vae-tiny
    torchrun --nproc-per-node 2 -m shvc_lib.train vae-stochastic-2 --out runs/v2

A model has three methods: `noise(batch, generator, side)`, the random numbers that one step needs, as a list of tensors with the batch first;
`loss(images, noise)`, bits per dimension to minimise (a scalar) and a dict of numbers to log; and what torch.nn.Module has. Everything random
is a function of the recipe's seed and the step's number, never of what happened before. So a run that was killed goes on from its checkpoint to
the very same weights, and several processes (each takes its share of the images and of the noise, gradients are averaged) follow the
same trajectory as one, up to the order of floating-point sums. Taught in chapter 2.

Files in the run's folder: checkpoint/tensors.safetensors (weights, their running average, the optimiser's moments) and checkpoint/state.json
(step, seconds spent and recipe), replaced together, so that a kill at any moment leaves the old pair or the new one; log.jsonl, a line per hundred steps.
"""

import argparse
import inspect
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from . import data, models, parallel, recipes
from .errors import InvalidInput, ShvcError


def _images(recipe):
    """The training images, uint8 (N, H, W, 3)."""
    if recipe.data == "cifar10":
        return torch.from_numpy(data.cifar10("train"))
    if recipe.data == "photographs":
        return torch.from_numpy(data.patches([data.photograph(name) for name in data.PHOTOGRAPHS], recipe.crop or 32, 4096, recipe.seed))
    if recipe.data == "bsds500":
        return torch.from_numpy(np.stack([_halved_landscape(image) for split in ("train", "val") for image in data.bsds500(split)]))
    if recipe.data == "bsds500-scales":
        return torch.from_numpy(np.concatenate([_three_scales(image) for split in ("train", "val") for image in data.bsds500(split)]))
    if recipe.data == "bsds500-shrunk":
        return torch.from_numpy(np.concatenate([_shrunk(image) for split in ("train", "val") for image in data.bsds500(split)]))
    if recipe.data == "bsds500-each":
        numbered = enumerate(data.bsds500("train") + data.bsds500("val"))
        return torch.from_numpy(np.stack([_shrunk(image)[number % 4] for number, image in numbered]))
    if recipe.data in _NOISE:
        numbered = enumerate(data.bsds500("train") + data.bsds500("val"))
        return torch.from_numpy(np.concatenate([_soft(image, recipe.seed, number, _NOISE[recipe.data]) for number, image in numbered]))
    raise InvalidInput(f"no training set is called {recipe.data!r}; there are: bsds500, bsds500-each, bsds500-grainy, bsds500-scales, bsds500-shrunk, "
                       "bsds500-soft, cifar10, photographs")


def _halved_landscape(image):
    """A BSDS500 image without its JPEG grid: means of 2 x 2 pixels, portraits turned, uint8 (160, 240, 3)."""
    blocks = (image if image.shape[0] < image.shape[1] else image.swapaxes(0, 1))[:320, :480].reshape(160, 2, 240, 2, 3)
    return ((blocks.sum((1, 3), dtype=np.int64) + 2) // 4).astype(np.uint8)


def _three_scales(image):
    """A BSDS500 image as it is, in quarters; one such piece of it at two thirds of its size; and all of it at half size: uint8 (6, 160, 240, 3)."""
    landscape = np.ascontiguousarray((image if image.shape[0] < image.shape[1] else image.swapaxes(0, 1))[:320, :480])
    quarters = landscape.reshape(2, 160, 2, 240, 3).swapaxes(1, 2).reshape(4, 160, 240, 3)
    two_thirds = np.array(Image.fromarray(landscape).resize((320, 214), Image.Resampling.LANCZOS))[27:187, 40:280]
    return np.concatenate([quarters, two_thirds[None], _halved_landscape(image)[None]])


def _shrunk(image):
    """Pieces of a BSDS500 image at half, 5/8 and 3/4 of its size (two of them) and as it is: uint8 (5, 160, 240, 3). Shrinking hides what JPEG did to it."""
    landscape = np.ascontiguousarray((image if image.shape[0] < image.shape[1] else image.swapaxes(0, 1))[:320, :480])
    small, middle, large = (np.array(Image.fromarray(landscape).resize((60 * n, 40 * n), Image.Resampling.LANCZOS)) for n in (4, 5, 6))
    return np.stack([small, middle[20:180, 30:270], large[:160, :240], large[80:, 120:], landscape[80:240, 120:360]])


_NOISE = {"bsds500-soft": 1.0, "bsds500-grainy": 1.25}  # training set: its largest standard deviation of noise, in levels


def _soft(image, seed, number, most):
    """Pieces of a BSDS500 image as a camera might have left them, uint8 (6, 160, 240, 3): three of it at half its size, two of them blurred a little; and pieces
    of it at 5/8 and (two) at 3/4 of its size. JPEG left the colours of these photographs half as sharp as their brightness and took their noise
    away; a network that sees nothing else expects every photograph to be so smooth, and pays for it. So all but the first and, by chance, a third of
    the others get noise, of a standard deviation of its own for every piece and colour, 0.1 to `most` levels."""
    from scipy.ndimage import gaussian_filter  # here, because every other training runs without scipy
    rng = np.random.Generator(np.random.Philox(key=[seed, number]))
    landscape = np.ascontiguousarray((image if image.shape[0] < image.shape[1] else image.swapaxes(0, 1))[:320, :480])
    small, middle, large = (np.array(Image.fromarray(landscape).resize((60 * n, 40 * n), Image.Resampling.LANCZOS), np.float32) for n in (4, 5, 6))
    blurred = [np.stack([gaussian_filter(small[..., c], sigma, mode="nearest") for c in range(3)], -1) for sigma in rng.uniform(0.35, 0.8, 2)]
    pieces = np.stack([small, *blurred, middle[20:180, 30:270], large[:160, :240], large[80:, 120:]])
    deviations = np.exp(rng.uniform(np.log(0.1), np.log(most), (6, 1, 1, 3))) * (rng.random((6, 1, 1, 1)) > 1 / 3)
    deviations[0] = 0
    noise = deviations * rng.standard_normal(pieces.shape)
    return np.clip(np.rint(pieces + noise), 0, 255).astype(np.uint8)


def batch_at(recipe, images, step):
    """The whole batch of one step, a function of (seed, step) alone: uint8 (batch, 3, height, width), cropped and mirrored at random."""
    rng = np.random.Generator(np.random.Philox(key=[recipe.seed, step]))
    chosen = images[torch.from_numpy(rng.integers(0, len(images), recipe.batch)).to(images.device)].permute(0, 3, 1, 2)
    height, width = (recipe.crop or size for size in chosen.shape[-2:])
    top, left = (int(rng.integers(0, size - side + 1)) for size, side in zip(chosen.shape[-2:], (height, width)))
    chosen = chosen[..., top:top + height, left:left + width]
    mirror = torch.from_numpy(rng.random(recipe.batch) < 0.5).to(images.device)
    return torch.where(mirror[:, None, None, None], chosen.flip(-1), chosen)


def learning_rate_at(recipe, step):
    """Linear warm-up, then a cosine down to the recipe's `end` at the last step."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (recipe.end + (1 - recipe.end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


class Run:
    """A training run: the model, its running average, the optimiser, how many steps are done and how many seconds they took."""

    def __init__(self, recipe, device="cpu"):
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.step, self.seconds = recipe, torch.device(device), 0, 0.0
        self.model = models.build(recipe.model, **recipe.arguments).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate)
        self.rank, self.size = parallel.rank()
        if recipe.batch % self.size:
            raise InvalidInput(f"a batch of {recipe.batch} images cannot be shared by {self.size} processes")

    def advance(self, images):
        """One step on its batch; returns what to log (bits per dimension and the model's own numbers, averaged over processes)."""
        recipe, share = self.recipe, slice(self.rank * self.recipe.batch // self.size, (self.rank + 1) * self.recipe.batch // self.size)
        generator = torch.Generator().manual_seed(recipe.seed << 32 | self.step)
        noise = [value[share].to(self.device) for value in self.model.noise(recipe.batch, generator, recipe.crop or images.shape[1])]
        batch = batch_at(recipe, images, self.step)[share].to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(recipe, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            bits, report = self.model.loss(batch, noise)
        bits.backward()
        numbers = torch.stack([bits.detach(), *(torch.as_tensor(v, device=self.device).detach() for v in report.values())])
        if self.size > 1:
            for value in [numbers, *(p.grad for p in self.model.parameters() if p.grad is not None)]:
                torch.distributed.all_reduce(value)
                value /= self.size
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        # While few steps are done, a plain average: the first weights must not linger.
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay) if value.is_floating_point() else self.average[name].copy_(value)
        self.step += 1
        return dict(zip(["bits_per_dim", *report], numbers.tolist()), gradient=float(norm), learning_rate=learning_rate_at(recipe, self.step - 1))

    def save(self, folder):
        """Write the checkpoint so that a kill at any moment leaves the old one or the new one, whole."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()} | {f"average.{k}": v for k, v in self.average.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        target, new = Path(folder) / "checkpoint", Path(folder) / "checkpoint.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, new / "tensors.safetensors")
        (new / "state.json").write_text(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), "recipe": self.recipe.as_dict()}, indent=1))
        old = Path(folder) / "checkpoint.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)  # killed here, `load` finds checkpoint.old
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def load(self, folder):
        """Go on from the checkpoint in `folder`, if there is one; returns whether there was. Raises InvalidInput if another recipe made it."""
        found = [path for path in (Path(folder) / "checkpoint", Path(folder) / "checkpoint.old") if (path / "state.json").exists()]
        if not found:
            return False
        state = json.loads((found[0] / "state.json").read_text())
        if {**state["recipe"], "steps": 0} != {**json.loads(json.dumps(self.recipe.as_dict())), "steps": 0}:
            raise InvalidInput(f"{found[0]} belongs to another recipe, or another revision of {state['recipe']['name']!r}; name another folder")
        tensors = load_file(found[0] / "tensors.safetensors", device=str(self.device))
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        self.average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
        for name, parameter in self.model.named_parameters():
            moments = {key: tensors.get(f"optimizer.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self.optimizer.state[parameter] = {**moments, "step": moments["step"].cpu()}
        self.step, self.seconds = state["step"], state.get("seconds", 0.0)
        return True

    def begin(self, images, folder):
        """The first weights, beyond what the model's class draws: those of the run that the recipe's `start` names, in `folder`, or else what
        the model's `prepare` makes of the training images, if it has one."""
        if self.recipe.start:
            self.begin_with(folder / self.recipe.start)
        elif hasattr(self.model, "prepare"):
            self.model.prepare(images)
            self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def begin_with(self, folder):
        """Take the averaged weights of the run in `folder` as the first ones; parts that only one of the two networks has keep their own.

        A narrower network becomes a wider one that computes the same: what is there reads nothing from what is new (as in Net2Net, Chen et al. 2016, but
        new channels are not copies). Raises InvalidInput when there is no run, or one of another architecture."""
        path = Path(folder) / "checkpoint" / "tensors.safetensors"
        if not path.exists():
            raise InvalidInput(f"{self.recipe.name} begins with the weights of {self.recipe.start}, and {path} is not there: train that first")
        self._check_start(json.loads(path.with_name("state.json").read_text())["recipe"], path)
        own, given = self.model.state_dict(), load_file(path, device=str(self.device))
        shared = {name: given[f"average.{name}"] for name in own if f"average.{name}" in given}
        if not shared or any(own[name].ndim != value.ndim or any(a < b for a, b in zip(own[name].shape, value.shape)) for name, value in shared.items()):
            raise InvalidInput(f"{path} belongs to another architecture than {self.recipe.name}")
        self.model.load_state_dict(own | {name: _widened(value, own[name]) for name, value in shared.items()})
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _check_start(self, given, path):
        """Refuse weights that would fit and mean something else here: those of a run whose recipe `given`, a dict, differs in one of `_MEANING`."""
        defaults = {name: one.default for name, one in inspect.signature(type(self.model)).parameters.items()}
        for name in ("model", *(name for name in _MEANING if name in defaults)):
            theirs, ours = ((own["model"] if name == "model" else own["arguments"].get(name, defaults[name]))
                            for own in (given, json.loads(json.dumps(self.recipe.as_dict()))))
            if theirs != ours:
                raise InvalidInput(f"{path} belongs to another architecture than {self.recipe.name}: {name} is {theirs} there and {ours} here")


_MEANING = ("levels", "latents", "k", "order", "components", "learned_scale", "downsample")  # arguments that decide what a weight is for


def _widened(given, own):
    """`given` (outputs, inputs, ...) in the corner of a tensor of `own`'s shape: new outputs keep what `own` holds, old outputs do not see new inputs."""
    wide = own.clone()
    wide[:given.shape[0]] = 0
    wide[tuple(slice(size) for size in given.shape)] = given
    return wide


def train(recipe, folder, device=None, minutes=math.inf, save_every=1000, progress=True):
    """Run `recipe` to its last step, or for `minutes` (then call again to go on); returns the Run.

    Under torchrun every process calls this with the same arguments; the first one writes the files. Raises InvalidInput
    and MissingData (no training set).
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if parallel.rank()[1] > 1 and not torch.distributed.is_initialized():
        parallel.join("nccl" if device == "cuda" else "gloo")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    run, folder, started = Run(recipe, device), Path(folder), time.monotonic()
    images = _images(recipe)
    if not run.load(folder):
        run.begin(images, folder.parent)
    images, before = images.to(run.device), run.seconds
    first = run.rank == 0
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=recipe.steps, initial=run.step, disable=not (progress and first), unit="step")
    torch.set_flush_denormal(True)  # numbers below 1e-38 are worth nothing here, and can make a step four times as slow
    try:
        while run.step < recipe.steps and time.monotonic() - started < 60 * minutes:
            report = run.advance(images)
            run.seconds = before + time.monotonic() - started
            bar.update()
            if run.step % 100 == 0 or run.step == recipe.steps:
                bar.set_postfix_str(f"{report['bits_per_dim']:.3f} bits/dim")
                if first:
                    with open(folder / "log.jsonl", "a") as log:
                        log.write(json.dumps({"step": run.step, "seconds": round(run.seconds, 1), **report}) + "\n")
            if first and run.step % save_every == 0:
                run.save(folder)
    finally:
        torch.set_flush_denormal(False)  # the setting is the processor's, and the caller's own numbers may need them
    bar.close()
    if first:
        run.save(folder)
    return run


def main(argv=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shvc_lib.train", description="Train a model of the book by its recipe.")
    parser.add_argument("recipe", help="one of: " + ", ".join(recipes.RECIPES))
    parser.add_argument("--out", help="folder of the run (default runs/RECIPE); a run that is there is gone on with")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long; call again to go on")
    parser.add_argument("--steps", type=int, help="train for another number of steps than the recipe says")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    args = parser.parse_args(argv)
    try:
        recipe = recipes.get(args.recipe)
        recipe = recipes.replace(recipe, steps=args.steps) if args.steps else recipe
        run = train(recipe, args.out or Path("runs") / recipe.name, args.device, args.minutes)
        print(f"{recipe.name}: {run.step} of {recipe.steps} steps done")
    except ShvcError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
