"""The SHVC: what training minimises, what each part of it may see, and where it begins."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from shvc_lib import data, models, recipes, train
from shvc_lib.errors import InvalidInput
from shvc_lib.models.shvc import BINS_PER_UNIT, LOWEST, REACH, SIZE
from shvc_lib.nn import logistic_log_mass, mixture_log_mass, with_floor
from shvc_lib.nn.subpixel import space_to_depth

torch.set_num_threads(1)
TINY = {"width": 8, "blocks": 1, "levels": 2}
KINDS = {"plain": {}, "split": {"split": 3}, "deterministic": {"deterministic": True}, "channel": {"order": "channel"}, "not weak": {"weak": False},
         "k = 1": {"k": 1}, "k = 4": {"k": 4}, "mixed": {"k": (4, 2, 1)},
         "no skips": {"skips": "none"}, "means": {"skips": "means"}, "one level": {"levels": 1}}


def photographs(count, side=32, seed=0, names=("coffee",)):
    return data.patches([data.photograph(name) for name in names], side, count, seed)


def lively(size=0.5, **arguments):
    """An untrained model after `prepare`, whose last layers, zero to begin with, got random weights, so that every network matters."""
    torch.manual_seed(0)
    model = models.build("SHVC", **{**TINY, **arguments})
    model.prepare(torch.from_numpy(photographs(32, names=data.PHOTOGRAPHS)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("last.weight", "second.weight")):
                parameter.add_(size * torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter[0].numel()))
    return model.eval()


def batch_of(images):
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def noise_of(model, batch, seed=0):
    return model.noise(len(batch), torch.Generator().manual_seed(seed), batch.shape[-1])


@pytest.fixture(scope="module")
def batch():
    return batch_of(photographs(4))


# --- the loss ---------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_sum_to_the_elbo_and_every_weight_learns(kind, batch):
    model = lively(**KINDS[kind])
    bits, parts = model.loss(batch, noise_of(model, batch))
    names = ["x", *(f"z{level}" for level in range(1, model.levels + 1))]
    assert list(parts) == names + ([] if kind == "deterministic" else ["lent", "rest", "short"])
    assert torch.isclose(bits, sum(parts[name] for name in names)) and 1 < bits < 16
    bits.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    unused = {name for name, gradient in gradients.items() if gradient is None or not gradient.any()}
    assert all(torch.isfinite(g).all() for g in gradients.values() if g is not None)
    allowed = ("skip",) if kind == "no skips" else ("skip.parametrizations",) if 1 in model.ks else ()
    if kind != "deterministic":
        assert all(any(word in name for word in allowed) for name in unused), unused


@pytest.mark.parametrize("kind", ["plain", "split", "k = 4", "channel", "not weak"])
def test_log_masses_are_those_of_the_distributions_written_out(kind, batch):
    """Sub-block by sub-block and channel by channel, with the weak shift as eq 7 has it: a mixture of five for x, one logistic for z_1; and both sum to 1."""
    model = lively(**KINDS[kind])
    with torch.no_grad():
        z = torch.randint(-30, 30, (4, 4, 16, 16), generator=torch.Generator().manual_seed(0)) / BINS_PER_UNIT
        upper = torch.randint(-30, 30, (4, 4, 8, 8), generator=torch.Generator().manual_seed(1)) / BINS_PER_UNIT
        for level, values, above, unit, middle in [(0, model.pixels(batch), z, 128, 128), (1, z, upper, BINS_PER_UNIT, 0)]:
            seen = model.context(level, above, model.blocks(level, values))
            found = model.log_mass(level, values, seen)
            blocks = model.blocks(level, values)
            for i in (0, 1, model.ks[level] ** 2 - 1):
                centres, outputs = model.conditionals[level].step(blocks, seen, i)
                corrections, log_scales, logits, factors = model.split_outputs(level, outputs)
                channels = model.conditionals[level].channels
                own = blocks.unflatten(1, (-1, channels))[:, i]
                factor = 0
                for c in range(channels):
                    mean = centres[:, c]
                    for earlier in range(c):
                        mean = mean + (own[:, earlier] - centres[:, earlier]) * factors[:, factor + earlier] * (kind != "not weak")
                    factor += c
                    x = unit * own[:, c] + middle
                    if level == 0:
                        mean = unit * mean[..., None] + middle + (unit // 8) * corrections[:, c].movedim(1, -1)
                        rest = mean, log_scales[:, c].movedim(1, -1).clamp(-3, 6), logits[:, c].movedim(1, -1)
                        expected = mixture_log_mass(x, *rest)
                        total = sum(with_floor(mixture_log_mass(torch.full_like(x, v), *rest), 256).exp() for v in range(256)) if c == i == 0 else None
                    else:
                        expected = logistic_log_mass(x, unit * mean + middle + (unit // 8) * corrections[:, c], log_scales[:, c].clamp(-1.5, 4), SIZE, LOWEST)
                        total = None
                    assert torch.allclose(found[:, i, c], with_floor(expected, 256), atol=2e-3, rtol=1e-4), (level, i, c)
                    assert total is None or torch.allclose(total, torch.ones(()), atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("split", [4, 3, 1])
def test_the_penalty_is_added_while_training_and_where_there_is_a_shortage(training, split, batch):
    """Eq 10 with the sign of a loss: lambda times the mean over images of max(0, H_q - H_p), and nothing of what other images have to spare."""
    images = batch.clone()
    images[0] = 90  # a flat one has little to lend
    model = lively(split=split, penalty=0.0).train(training)
    noise = noise_of(model, images)
    with torch.no_grad():
        plain, parts = model.loss(images, noise)
        model.penalty = 2.5
        total, again = model.loss(images, noise)
        alone = [model.loss(images[i:i + 1], [n[i:i + 1] for n in noise])[1] for i in range(4)]
    assert all(torch.equal(parts[name], again[name]) for name in parts)
    assert torch.isclose(parts["short"], sum((p["lent"] - p["rest"]).clamp_min(0) for p in alone) / 4, atol=1e-6)
    assert torch.isclose(total - plain, 2.5 * parts["short"] * training, atol=1e-6)
    assert (parts["short"] > 0) == any(p["lent"] > p["rest"] for p in alone)
    if split == 4:
        assert parts["rest"] == 0 and parts["short"] == parts["lent"] > 0  # nothing is lent, everything borrowed
    if split == 1:
        assert parts["rest"] > parts["lent"] and parts["short"] < parts["lent"]


def test_the_penalty_makes_the_latents_borrow_less_or_the_rest_lend_more(batch):
    """A step down its gradient shortens the shortage; the sign that is printed would lengthen it."""
    model = lively(split=3, penalty=1.0).train()
    images = (batch.float() * 0.1 + 100).to(torch.uint8)  # nearly flat: short
    noise = noise_of(model, images)
    total, parts = model.loss(images, noise)
    assert parts["short"] > 0
    parts["short"].backward()
    with torch.no_grad():
        scale = 0.02 / math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(scale * parameter.grad)
        assert model.loss(images, noise)[1]["short"] < parts["short"]


def test_lent_and_rest_are_entropies_of_what_is_drawn_and_of_the_last_sub_blocks(batch):
    model = lively(split=3)
    noise = noise_of(model, batch)
    with torch.no_grad():
        _, parts = model.loss(batch, noise)
        means, log_scales = model.posterior(1, model.pixels(batch))
        z = model.sample(means, log_scales, noise[0])
        lent = -logistic_log_mass(z, means, log_scales).sum() / math.log(2) / batch.numel()
        nats = model.log_mass(0, model.pixels(batch), model.context(0, z / BINS_PER_UNIT, model.blocks(0, model.pixels(batch))))
    assert torch.isclose(parts["lent"], lent, rtol=1e-4)
    assert torch.isclose(parts["rest"], -nats[:, 3:].sum() / math.log(2) / batch.numel(), rtol=1e-4)
    assert torch.isclose(parts["x"], -nats.sum() / math.log(2) / batch.numel(), rtol=1e-4)


# --- who sees whom ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("k, split", [(2, 3), (2, 1), (4, 9)])
def test_the_split_hides_the_last_sub_blocks_from_z_and_z_from_them(k, split, batch):
    model = lively(k=k, split=split)
    x = model.pixels(batch)
    blocks = model.blocks(0, x).unflatten(1, (k * k, 3)).clone()
    with torch.no_grad():
        for i in range(k * k):
            other = blocks.clone()
            other[:, i] += 0.25
            moved = [not torch.equal(a, b) for a, b in zip(model.posterior(1, x), model.posterior(1, model.values(0, other.flatten(1, 2))))]
            assert moved == [i < split] * 2, i
        above = torch.randint(-30, 30, (4, 4, 16, 16), generator=torch.Generator().manual_seed(0)) / BINS_PER_UNIT
        masses = [model.log_mass(0, x, model.context(0, z, blocks.flatten(1, 2))) for z in (above, above + 1)]
        changed = (masses[0] != masses[1]).flatten(2).any(2).any(0)
        assert changed.tolist() == [i < split for i in range(k * k)]
        whole = lively(k=k)
        assert not torch.equal(*[whole.log_mass(0, x, whole.context(0, z, blocks.flatten(1, 2)))[:, -1] for z in (above, above + 1)])


@pytest.mark.parametrize("kind", ["plain", "channel", "k = 4", "k = 1", "mixed"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_no_value_sees_itself_or_what_comes_later(kind, level):
    """A value's log-mass given its own, by perturbing one value at a time: earlier sub-blocks and channels stay, to the last bit."""
    model, side = lively(**KINDS[kind]), 16
    generator, batch = torch.Generator().manual_seed(0), batch_of(photographs(1, 2 * side))
    shape = (1, model.latents, side * 2 >> level, side * 2 >> level)
    values = model.pixels(batch) if level == 0 else torch.randint(-20, 20, shape, generator=generator) / BINS_PER_UNIT
    above = None if level == 2 else torch.randint(-20, 20, (1, model.latents, side >> level, side >> level), generator=generator) / BINS_PER_UNIT
    blocks, count, channels = model.blocks(level, values), model.ks[level] ** 2, model.conditionals[level].channels
    seen, middle = model.context(level, above, blocks), blocks.shape[-1] // 2
    with torch.no_grad():
        before = model.log_mass(level, values, seen)
        for n in {0, 1, count * channels // 2, count * channels - 1}:
            other = blocks.clone()
            other[0, n, middle, middle] += 3 / (128 if level == 0 else 16)
            changed = (model.log_mass(level, model.values(level, other), seen) != before)[0].flatten(0, 1)
            assert not changed[:n].any() and changed[n, middle, middle]
            own = changed[:(n // channels + 1) * channels]  # in its own sub-block, only that pixel's later channels
            assert int(own.sum()) == int(own[:, middle, middle].sum())


def test_contexts_reach_every_sub_block(batch):
    """z_1 informs x and z_2 informs z_1 at every k, also where they must be made larger (k = 1) or cut up (k = 4)."""
    for k in (1, 2, 4):
        model = lively(k=k)
        for level, side in [(0, 32), (1, 16)]:
            values = torch.randint(-20, 20, (1, 3 if level == 0 else 4, side, side), generator=torch.Generator().manual_seed(k)) / 128
            above = torch.zeros(1, 4, side // 2, side // 2, requires_grad=True)
            blocks = model.blocks(level, values)
            for i in range(k * k):
                mass = model.log_mass(level, values, model.context(level, above, blocks))[:, i]
                gradient, = torch.autograd.grad(mass.sum(), above)
                assert (gradient[0, :, 1:-1, 1:-1] != 0).float().mean() > 0.8, (k, level, i)


# --- the latents ------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels, side", [(1, 32), (2, 32), (3, 64)])
def test_noise_is_one_number_per_latent(levels, side):
    model = models.build("SHVC", **{**TINY, "levels": levels, "latents": 5})
    noise = model.noise(3, torch.Generator().manual_seed(0), side)
    assert [tuple(n.shape) for n in noise] == [(3, 5, side >> level, side >> level) for level in range(1, levels + 1)]
    assert all(((n >= 0) & (n < 1)).all() for n in noise)
    assert all(torch.equal(a, b) for a, b in zip(noise, model.noise(3, torch.Generator().manual_seed(0), side)))
    assert model.noise(1, torch.Generator())[0].shape[-1] == 16  # 32 x 32 unless something else is said


def test_latents_are_on_their_grid_while_training(batch, monkeypatch):
    model, seen = lively(), []
    inner = model.context
    monkeypatch.setattr(model, "context", lambda level, above, like: (seen.append(above), inner(level, above, like))[1])
    for deterministic in (False, True):
        for training in (True, False):
            model.deterministic, seen[:] = deterministic, []
            model.train(training).loss(batch, noise_of(model, batch))
            z = torch.cat([v.flatten() for v in seen if v is not None]) * BINS_PER_UNIT
            assert torch.equal(z, z.round()) == (not deterministic or not training)
            assert z.min() >= LOWEST and z.max() <= LOWEST + SIZE - 1 and len(z.round().unique()) > 20


def test_a_deterministic_posterior_says_its_rounded_mean(batch):
    """Tested: the same whatever the noise. Training: the mean and uniform noise of one bin, without entropy."""
    model = lively(deterministic=True)
    means, log_scales = model.posterior(1, model.pixels(batch))
    noise = [noise_of(model, batch, seed) for seed in (0, 1)]
    with torch.no_grad():
        assert torch.equal(model.sample(means, log_scales, noise[0][0]), means.round())
        assert torch.equal(model.loss(batch, noise[0])[0], model.loss(batch, noise[1])[0])
        drawn = model.train().sample(means, log_scales, noise[0][0]) - means
        assert drawn.abs().max() <= 0.5 and drawn.std() == pytest.approx(12**-0.5, rel=0.05)
        assert not torch.equal(model.loss(batch, noise[0])[0], model.loss(batch, noise[1])[0])


def test_samples_follow_their_posterior(batch):
    """Many draws of one latent: shares are the masses of its bins."""
    model = lively()
    means, log_scales = torch.full((200_000,), 3.3), torch.full((200_000,), 0.4)
    z = model.sample(means, log_scales, torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    bins = torch.arange(-2, 10)
    shares = (z[:, None] == bins).float().mean(0)
    assert torch.allclose(shares, logistic_log_mass(bins, means[:12], log_scales[:12]).exp(), atol=0.004)


def test_posteriors_stay_within_reach(batch):
    model = lively()
    with torch.no_grad():
        model.posteriors[0].skip.weight.mul_(100), model.posteriors[0].last.weight.mul_(100)
        means, log_scales = model.posterior(1, model.pixels(batch))
    assert means.abs().max() == REACH and log_scales.min() >= -1.5 and log_scales.max() <= 1


# --- sizes ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels, k, unit", [(3, 2, 16), (2, 2, 8), (2, 1, 4), (2, 4, 16), (2, 8, 32), (2, (4, 2, 1), 4), (1, (8, 2), 8), (3, (2, 2, 2, 1), 8)])
def test_the_unit_is_what_divides_every_size(levels, k, unit):
    """The smallest image that every level can be cut up in; with one more or less than a multiple of it, none of them is."""
    model = models.build("SHVC", **{**TINY, "levels": levels, "k": k})
    assert model.unit == unit
    batch = torch.randint(0, 256, (1, 3, unit, 2 * unit), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise = [torch.rand(1, 4, unit >> level, 2 * unit >> level) for level in range(1, levels + 1)]
    with torch.no_grad():
        assert torch.isfinite(model.eval().loss(batch, noise)[0])


def test_blocks_and_values_are_inverse(batch):
    for order in ("subpixel", "channel"):
        model = models.build("SHVC", **TINY, k=4, order=order)
        assert torch.equal(model.values(0, model.blocks(0, batch)), batch) and torch.equal(model.blocks(0, batch), space_to_depth(batch, 4, order))


# --- where it begins, and training --------------------------------------------------------------------------------------------------------------

def test_prepared_is_better_than_means_and_means_than_nothing(batch):
    """Before the first step, on images of another photograph."""
    reached = {}
    for skips in ("none", "means", "fitted"):
        model = lively(0.0, skips=skips)
        with torch.no_grad():
            reached[skips] = float(model.loss(batch, noise_of(model, batch))[0])
    assert reached["fitted"] < reached["means"] - 0.3 < reached["none"] - 0.6


def test_preparing_is_deterministic_and_does_nothing_where_nothing_is_fitted(batch):
    images = torch.from_numpy(photographs(16))
    for skips in ("fitted", "means"):
        torch.manual_seed(0)
        model = models.build("SHVC", **TINY, skips=skips)
        other = copy.deepcopy(model)
        before = copy.deepcopy(model.state_dict())
        model.prepare(images)
        torch.rand(5)
        other.prepare(images)
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values())) == (skips == "means")


def test_preparing_crops_to_the_unit_and_keeps_what_a_split_hides():
    model = models.build("SHVC", **TINY, split=3)
    images = photographs(16, 45)
    model.prepare(torch.from_numpy(images))
    again = models.build("SHVC", **TINY, split=3)
    again.prepare(torch.from_numpy(images[:, :40, :40]))
    assert torch.equal(model.conditionals[0].skip.weight, again.conditionals[0].skip.weight)
    hidden = model.posteriors[0].skip.weight[:, 9:]  # the fourth pixel of 2 x 2, which the posterior does not see
    assert hidden.abs().max() < 1e-6 < model.posteriors[0].skip.weight[:, :9].abs().max()


RECIPE = dataclasses.replace(recipes.get("shvc-tiny"), arguments={**TINY, "split": 3, "penalty": 1.0, "bfloat": True}, batch=2, steps=8, warmup=2)


def test_training_goes_on_after_a_break_to_the_same_weights(tmp_path):
    images = torch.from_numpy(photographs(64, 40))
    straight, first = train.Run(RECIPE), train.Run(RECIPE)
    for run in (straight, first):
        run.begin(images, None)
    reports = [straight.advance(images) for _ in range(5)]
    for _ in range(2):
        first.advance(images)
    first.save(tmp_path)
    torch.manual_seed(999)
    second = train.Run(RECIPE)
    assert second.load(tmp_path) and second.step == 2
    for report in reports[2:]:
        assert second.advance(images) == report
    for ours, theirs in [(second.model.state_dict(), straight.model.state_dict()), (second.average, straight.average)]:
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {"x", "z1", "z2", "lent", "rest", "short"} < set(reports[0])
    mask = straight.model.conditionals[0].skip.parametrizations.weight[0].mask
    assert (straight.model.conditionals[0].skip.weight[mask == 0] == 0).all()


def test_training_lowers_the_bits():
    images = torch.from_numpy(photographs(64, 32))
    run = train.Run(dataclasses.replace(RECIPE, arguments={**TINY, "skips": "means"}, batch=4, steps=30, warmup=5))
    run.begin(images, None)
    reports = [run.advance(images)["bits_per_dim"] for _ in range(30)]
    assert sum(reports[-5:]) < 0.93 * sum(reports[:5])


def test_a_start_of_another_split_keeps_its_own_masks(tmp_path):
    """An ArIB model that begins with the weights of one without a split: what is hidden stays hidden."""
    images = torch.from_numpy(photographs(16))
    plain = dataclasses.replace(RECIPE, name="plain", arguments=TINY)
    start = train.Run(plain)
    start.begin(images, None)
    start.save(tmp_path / "plain")
    run = train.Run(dataclasses.replace(RECIPE, start="plain"))
    run.begin(images, tmp_path)
    assert torch.equal(run.model.posteriors[0].skip.weight, start.average["posteriors.0.skip.weight"])
    skip = run.model.conditionals[0].skip
    assert (skip.weight[9:, :4] == 0).all() and skip.weight[:9, :4].any()
    with torch.no_grad():
        model, x = run.model.eval(), run.model.pixels(batch_of(photographs(1)))
        other = x.clone()
        other[..., 1::2, 1::2] = 0
        assert all(torch.equal(a, b) for a, b in zip(model.posterior(1, x), model.posterior(1, other)))


def test_unknown_skips_are_refused():
    """A slip of the keys must not train another model than was meant."""
    with pytest.raises(InvalidInput, match="skips are"):
        models.build("SHVC", **{**TINY, "skips": "fited"})
