"""Recipes: everything that decides how a model is trained, as data.

A recipe is small enough to print. With the code at one revision it determines the training run: the images of every step, their
flips, the noise and the initial weights all come from its seed. `train` runs it, the checkpoint's model card quotes it. Taught in chapter 2.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import partial

from .errors import InvalidInput


@dataclass(frozen=True)
class Recipe:
    """One training run.

    model: class name in `shvc_lib.models`, called with `arguments`; data: a training set by name; crop: side of the training images
    (whole images when 0); batch: images per step, over all processes; learning_rate: peak, reached after `warmup` steps and
    then lowered by a cosine to `end` times that; clip: largest gradient norm (bits per dimension per unit of weight); ema: decay of the averaged
    weights that are kept; seed: of everything random; start: a recipe whose run, in the folder beside this one's, leaves the first weights; it may have
    trained a narrower network.
    """

    name: str
    model: str
    arguments: dict = field(default_factory=dict)
    data: str = "cifar10"
    crop: int = 0
    batch: int = 16
    steps: int = 100_000
    learning_rate: float = 2e-3
    warmup: int = 200
    clip: float = 100.0
    ema: float = 0.999
    seed: int = 0
    start: str = ""
    end: float = 0.02

    def as_dict(self):
        """The recipe as JSON can hold it."""
        later = {"start": "", "end": 0.02}  # fields that older recipes did not have
        return {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}


def _vae(name, **changes):
    arguments = {"levels": 1, "width": 32, "blocks": 1, "latents": 8, **changes}
    return Recipe(name, "BitsBackVAE", arguments, batch=8, steps=10_000, learning_rate=8e-3, ema=0.998)


# Figure 2 of SHVC: L = 1 ... 5 latents, with and without repeated down-sampling, stochastic or deterministic posterior. Sized for one CPU core:
# small batches and a large learning rate make the most of few images. (One level has nothing to sample down: vae-stochastic-1 serves both.)
_FIGURE_2 = [
    _vae(f"vae-{kind}-{levels}", levels=levels, **settings)
    for kind, settings in {"stochastic": {}, "downsampling": {"downsample": True}, "deterministic": {"downsample": True, "deterministic": True}}.items()
    for levels in range(2 if kind == "downsampling" else 1, 6)
]
RECIPES = {recipe.name: recipe for recipe in _FIGURE_2}
# Chapter 3: networks whose latents are sent as samples, each for five operating points, on photographs of half size. The ladders begin with a
# narrow range of betas: with a wide one from the first step on, the coarse points would teach most latents to say nothing.
_LADDER = {"width": 96, "latents": 96}
_GAMMA = {**_LADDER, "learned_scale": True}
_ladder = partial(Recipe, model="Ladder", data="bsds500", crop=128, batch=8, learning_rate=1e-3, warmup=500, clip=1.0)
for _recipe in (
    _ladder("vae-photo", arguments={**_LADDER, "levels": 1}, steps=7_000),
    _ladder("pln-start", arguments=_LADDER, steps=11_000),
    _ladder("pln", arguments={**_LADDER, "betas": (0.2, 0.08, 0.03, 0.01, 0.003)}, steps=8_000, start="pln-start"),
    _ladder("gamma-pln-start", arguments={**_GAMMA, "betas": (5.0, 2.5, 1.3, 0.7, 0.35)}, steps=7_000),
    _ladder("gamma-pln", arguments={**_GAMMA, "betas": (5.0, 2.0, 0.8, 0.3, 0.1)}, steps=8_000, start="gamma-pln-start"),
):
    RECIPES[_recipe.name] = _recipe
# Chapter 4: discretised VAEs, one network for six lambdas. Rates under noise overstate what nearly dead channels cost, so only the first steps see noise,
# and then the price of the next integer is the gradient.
_dvae = partial(Recipe, model="DiscretizedVAE", data="bsds500-scales", crop=128, batch=8, learning_rate=2e-3, warmup=200, clip=5.0, ema=0.998)
_PRICE, _TWELVE = {"through": "price", "bfloat": True}, {"groups": (6, 18, 40, 64, 64), "fields": 2}
for _recipe in (
    _dvae("dvae-start", arguments={"through": "mixed", "bfloat": True}, steps=5_000, warmup=300),
    _dvae("dvae-1", arguments=_PRICE, steps=22_000, learning_rate=1.5e-3, warmup=100, start="dvae-start"),
    _dvae("dvae-3", arguments={**_PRICE, "groups": (192,)}, steps=4_500, start="dvae-1"),
    _dvae("dvae-12-start", arguments={**_PRICE, **_TWELVE}, steps=22_500, start="dvae-1"),
    _dvae("dvae-12", arguments={**_PRICE, **_TWELVE, "through": "graded"}, steps=2_400, learning_rate=6e-4, warmup=50, start="dvae-12-start"),
):
    RECIPES[_recipe.name] = _recipe
# Chapters 5 and 6: SHVC on CIFAR-10, sized for one CPU core. The three that chapter 6 compares share their first 9000 steps. At lambda = 1 the penalty of
# eq 10 is what a shortage costs at most: a bit that z cannot borrow does not come back.
_shvc = partial(Recipe, model="SHVC", batch=8, steps=9_000, learning_rate=4e-3, ema=0.998)
_ARIB = {"split": 3, "penalty": 1.0}
for _recipe in (
    _shvc("shvc-start", arguments={"bfloat": True}, learning_rate=5e-3),
    _shvc("shvc-short", arguments={"bfloat": True}, start="shvc-start"),
    _shvc("shvc-short-arib", arguments={"bfloat": True, **_ARIB}, start="shvc-start"),
    _shvc("shvc-short-deterministic", arguments={"bfloat": True, "deterministic": True}, start="shvc-start"),
):
    RECIPES[_recipe.name] = _recipe
# Chapter 7: these trained on, wider. First a long way at one learning rate, then down along a cosine. The two networks for CIFAR-10 part for the last 13 000
# steps, of which the last 4000 see twice as many images each.
_LITE, _PHOTO = {"bfloat": True, "width": 40}, {"bfloat": True, "width": 64, **_ARIB}
_last = partial(_shvc, batch=16, steps=4_000, learning_rate=2e-3, ema=0.999)
_photo = partial(_shvc, arguments=_PHOTO, data="bsds500-shrunk", crop=48, batch=4, learning_rate=3e-3)
for _recipe in (
    _shvc("shvc-lite-start", arguments=_LITE, start="shvc-short", end=1.0),
    _shvc("shvc-lite-middle", arguments=_LITE, steps=14_000, start="shvc-lite-start"),
    _shvc("shvc-lite-late", arguments=_LITE, learning_rate=3e-3, start="shvc-lite-middle"),
    _shvc("shvc-arib-late", arguments={**_LITE, **_ARIB}, learning_rate=3e-3, start="shvc-lite-middle"),
    _last("shvc-lite-cifar10", arguments=_LITE, start="shvc-lite-late"),
    _last("shvc-arib-cifar10", arguments={**_LITE, **_ARIB}, start="shvc-arib-late"),
    _photo("shvc-photo-start", steps=7_000, start="shvc-short-arib", end=1.0),
    _photo("shvc-photo-middle", steps=22_000, start="shvc-photo-start"),
    _photo("shvc-photo-late", data="bsds500-soft", steps=24_000, learning_rate=2.5e-3, start="shvc-photo-middle"),
    _photo("shvc-arib-photo", data="bsds500-grainy", steps=5_000, learning_rate=1e-3, start="shvc-photo-late"),
):
    RECIPES[_recipe.name] = _recipe
# A network of another kind: what the fitted predictions of `linear` leave over.
_fitted = partial(Recipe, model="LinearNet", arguments={"width": 96}, data="bsds500-each", batch=4, clip=1.0, ema=0.998)
for _recipe in (_fitted("linear-net-start", steps=14_000, learning_rate=3e-3),
                _fitted("linear-net", steps=7_000, learning_rate=1.5e-3, ema=0.999, start="linear-net-start")):
    RECIPES[_recipe.name] = _recipe
# The same, narrow, with a single logistic and fewer neighbours: for decoders in a hurry.
RECIPES["linear-net-fast"] = _fitted("linear-net-fast", arguments={"width": 24, "components": 1, "lean": True}, steps=14_000, learning_rate=5e-3)
# Trained for longer: the hidden layers of an SHVC whose last layer, a mixture of experts, is fitted to each image.
RECIPES["shvc-photo"] = _fitted("shvc-photo", model="ExpertSHVC", arguments={"width": 24, "components": 1, "lean": True}, steps=30_000, learning_rate=3e-3,
                                ema=0.999, start="linear-net-fast")
# A deterministic SHVC whose latents are pixels: no posterior to be learned.
_subsampled = partial(Recipe, model="SubsampledSHVC", arguments={"bfloat": True}, batch=32, learning_rate=8e-3, clip=1.0, ema=0.999)
for _recipe in (_subsampled("shvc-pixels-start", steps=8_000, end=1.0), _subsampled("shvc-pixels-cifar10", steps=10_000, start="shvc-pixels-start"),
                _subsampled("shvc-cifar10", arguments={"width": 224, "bfloat": True}, steps=26_000, learning_rate=6e-3, start="shvc-pixels-cifar10")):
    RECIPES[_recipe.name] = _recipe
# For a GPU: 1.9 million parameters, and our guess at the size that the paper's result would take. No network of theirs is shipped, and no number is claimed.
_gpu = partial(_shvc, batch=64, learning_rate=2e-3, warmup=1000, ema=0.9995)
for _recipe in (
    _gpu("shvc-latents-cifar10", arguments={"width": 84}, steps=60_000),
    _gpu("shvc-full", arguments={"width": 192, "blocks": 6, "latents": 8}, steps=1_000_000, learning_rate=5e-4, ema=0.9999),
):
    RECIPES[_recipe.name] = _recipe
RECIPES["shvc-tiny"] = _shvc("shvc-tiny", arguments={"levels": 2, "width": 16, "blocks": 1}, data="photographs", crop=32, steps=300,
                             learning_rate=5e-3, warmup=20, ema=0.98)
RECIPES["vae-tiny"] = replace(_vae("vae-tiny", levels=2, width=16, latents=4), batch=16, steps=400, warmup=20, ema=0.98)


def get(name):
    """The recipe of this name. Raises InvalidInput, naming those that there are."""
    if name not in RECIPES:
        raise InvalidInput(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]
