"""Discretised VAEs: the mass of a box under a Normal, what stands for rounding in training, and the loss as it is written."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from shvc_lib import data, metrics, zoo
from shvc_lib.models import build, discretized, discretized_calibration, discretized_codec
from shvc_lib.models.discretized import LEAST_MASS, LEAST_SCALE, DiscretizedVAE, Factorised, box_mass
from shvc_lib.models.hierarchy import chessboard

TINY = {"lambdas": (0.002, 0.02), "latents": 10, "width": 8, "components": 2}
DEEP = {"upper": 4, "hidden": 8, "features": 12}
KINDS = {1: {}, 3: {**DEEP, "groups": (10,)}, 12: {**DEEP, "groups": (1, 2, 2, 2, 3), "fields": 2}}


@pytest.fixture(scope="module")
def photographs():
    torch.set_num_threads(1)
    return torch.from_numpy(data.patches([data.photograph("coffee"), data.photograph("chelsea")], 64, 12, seed=1))


@pytest.fixture(scope="module")
def images(photographs):
    return photographs.permute(0, 3, 1, 2)


def made(photographs, layers=1, shaken=True, **changes):
    """A small model, prepared; shaken: with random numbers in the place of the zeros that it begins with."""
    torch.manual_seed(0)
    model = DiscretizedVAE(**(TINY | KINDS[layers] | changes))
    model.prepare(photographs)
    if shaken:
        with torch.no_grad():
            for name, values in model.named_parameters():
                if "kernel" not in name and "log_gain" not in name and "spread" not in name:
                    fan = values[0].numel() if values.ndim > 2 else 4
                    values += 0.2 * torch.randn_like(values) / math.sqrt(fan)
            if layers > 1:
                model.upper_log_gain += 2  # or else z1 would be nought everywhere
    return model


def centred(shape):
    return torch.zeros(shape)


def some(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand(shape, generator=generator) - 0.5


# The mass of a box


@pytest.mark.parametrize("scale", [0.05, 0.3, 1, 7, 100])
@pytest.mark.parametrize("mean", [0, 0.5, -3.21, 40.9])
def test_a_density_and_a_mass_function(mean, scale):
    """It integrates to 1 over the line, and sums to 1 over the integers plus any offset, whatever the mean."""
    mean, scale = torch.tensor([mean, scale], dtype=torch.float64)
    reach = 12 * float(scale) + 2
    first, last = math.floor(float(mean) - reach), math.ceil(float(mean) + reach)
    edges = [float(mean) - 0.5, float(mean) + 0.5]

    def density(x):
        return float(box_mass(torch.tensor(x, dtype=torch.float64), mean, scale))

    assert integrate.quad(density, first, last, points=edges, limit=400, epsabs=1e-10)[0] == pytest.approx(1, abs=1e-8)
    integers = torch.arange(first, last + 1, dtype=torch.float64)
    for offset in (0, 0.25, 0.7):
        assert float(box_mass(integers + offset, mean, scale).sum()) == pytest.approx(1, abs=1e-12)
    assert (box_mass(integers, mean, scale) >= 0).all()


@pytest.mark.parametrize("scale", [0.05, 0.8, 20])
def test_it_is_the_convolution_with_a_box(scale):
    """The density of Normal + U(-1/2, 1/2), against quadrature and against a difference of CDFs in 64 bits."""
    x = np.concatenate([np.linspace(-4, 4, 17) * scale + 1.3, [0.8, 1.3, 1.8]])
    found = box_mass(torch.from_numpy(x), 1.3, scale).numpy()
    for at, value in zip(x, found):
        inside = [p for p in (1.3,) if at - 0.5 < p < at + 0.5]
        expected = integrate.quad(lambda z: stats.norm.pdf(z, 1.3, scale), at - 0.5, at + 0.5, points=inside or None, epsabs=1e-12, limit=200)[0]
        assert value == pytest.approx(expected, rel=1e-7, abs=1e-10)
    assert found == pytest.approx(stats.norm.cdf(x + 0.5, 1.3, scale) - stats.norm.cdf(x - 0.5, 1.3, scale), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("scale", [0.05, 0.2, 1, 5, 30, 100])
def test_it_is_accurate_in_float32_in_both_tails(scale):
    """Out to where a mass is 2^-40, to a few parts in ten thousand; and the same on both sides, to the last bit."""
    distance = np.unique(np.rint(np.linspace(0, 7.2 * scale + 0.5, 60) * 64) / 64)  # exact in float32
    box = (stats.norm.sf(np.maximum(distance - 0.5, 0) / scale) + np.where(distance < 0.5, stats.norm.cdf((0.5 - distance) / scale) - 0.5, 0)
           - stats.norm.sf((distance + 0.5) / scale))
    right = box_mass(torch.tensor(distance, dtype=torch.float32) + 3, torch.tensor(3.0), torch.tensor(float(scale)))
    left = box_mass(3 - torch.tensor(distance, dtype=torch.float32), torch.tensor(3.0), torch.tensor(float(scale)))
    likely = box > 2.0**-40
    assert torch.equal(left, right) and likely.sum() > 5
    assert right.double().numpy()[likely] == pytest.approx(box[likely], rel=1e-3 if scale > 5 else 1e-4)
    assert (right[~torch.from_numpy(likely)] < 2.0**-39).all()


def test_its_slopes_are_finite_and_right():
    """For scales from 0.05 to 100 and x up to a thousand away; against float64 and finite differences where the mass is not 0."""
    x, scale = torch.meshgrid(torch.tensor([0, 0.5, 1, 2.5, 10, 1000]), torch.tensor([0.05, 0.1, 1, 10, 100]), indexing="ij")
    x, scale = (torch.cat([v.flatten(), w.flatten()]) for v, w in ((x, -x), (scale, scale)))
    values = [v.clone().requires_grad_() for v in (x, torch.zeros_like(x), scale)]
    box_mass(*values).sum().backward()
    exact = [v.double().requires_grad_() for v in (x, torch.zeros_like(x), scale)]
    box_mass(*exact).sum().backward()
    for a, b in zip(values, exact):
        assert torch.isfinite(a.grad).all() and torch.allclose(a.grad, b.grad.float(), rtol=1e-3, atol=1e-6)
    assert torch.equal(values[0].grad, -values[1].grad) and values[0].grad[0] == 0
    inner = (x.abs() < 3) & (x != 0)
    assert torch.autograd.gradcheck(box_mass, [v[inner].double().requires_grad_() for v in (x, torch.zeros_like(x), scale)])


def test_bounded_lets_what_is_too_small_grow():
    values = torch.tensor([-1.0, 0.01, 0.05, 2], requires_grad=True)
    bounded = discretized._bounded(values, 0.05)
    (bounded * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert torch.allclose(bounded, torch.tensor([0.05, 0.05, 0.05, 2])) and values.grad.tolist() == [1, 2, 3, 4]
    mass = torch.tensor([0.0, 2.0**-30, 0.25], requires_grad=True)
    bits = discretized._bits(mass)
    bits.sum().backward()
    assert bits.tolist() == pytest.approx([24, 24, 2]) and torch.isfinite(mass.grad).all() and (mass.grad < 0).all()


def test_the_factorised_prior_is_a_mixture():
    torch.manual_seed(0)
    prior, gain = Factorised(2, 3, 4), torch.tensor([[0.5, 1, 8], [2, 2, 1e-3]])
    for values in (prior.mean, prior.logit, prior.shift):
        torch.nn.init.normal_(values)
    point = torch.tensor([1, 0])
    x = torch.randint(-3, 4, (2, 3, 2, 5)) + torch.rand(2, 3, 2, 5)
    with torch.no_grad():
        found, means, scales = prior.mass(x, point, gain), prior.mean.numpy(), prior.log_scale.numpy()
        weights, shift = prior.logit.softmax(-1).numpy(), prior.shift.numpy()
    for b, c, h, w in np.ndindex(*x.shape):
        g, expected = float(gain[b, c]), 0.0
        for k in range(4):
            scale = max(math.exp(scales[c, k] + shift[point[b], c]) * g, LEAST_SCALE)
            here = float(x[b, c, h, w]) - means[c, k] * g
            expected += weights[c, k] * (stats.norm.cdf((here + 0.5) / scale) - stats.norm.cdf((here - 0.5) / scale))
        assert float(found[b, c, h, w]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    one = Factorised(2, 3, 1)
    assert (one.log_scale == 0).all() and torch.allclose(one.mass(x, point, gain), box_mass(x, 0.0, gain[:, :, None, None].clamp_min(LEAST_SCALE)))


# The model


def test_it_begins_as_a_transform_coder(photographs, images):
    """Cells of fine uniform quantisation at every lambda, priors as wide as the components, a picture as good as rounding allows."""
    model = made(photographs, shaken=False, components=1)
    cell = np.exp(-model.log_gain.detach().numpy())
    lambdas = np.array(TINY["lambdas"])
    assert cell == pytest.approx(np.repeat(np.sqrt(18 / (255**2 * math.log(2) * lambdas))[:, None], 10, 1), rel=2e-3)
    assert torch.allclose(model.prior.log_scale[:, 0].exp(), model.spread) and torch.equal(model.spread, model.analysis.spread)
    with torch.no_grad():
        for k in range(2):
            point = torch.full((len(images),), k)
            y = model.latents(images, point)
            assert torch.allclose(y * float(cell[k, 0]), model.analysis(images / 255 - 0.5), atol=1e-4)
            rounded = model.everything(images, point, centred)
            assert torch.allclose(rounded.pixels, model.synthesis(y.round() * float(cell[k, 0])), atol=1e-4)
            assert rounded.bits[0].shape == (12, 10, 4, 4) and len(rounded.bits) == model.layers == 1
            error = ((y - y.round()) ** 2).mean()
            assert float(((rounded.pixels - model.synthesis(model.analysis(images / 255 - 0.5))) ** 2).mean()) == pytest.approx(float(error) * cell[k, 0] ** 2 * 10 / 768, rel=1e-3)
    finer = made(photographs, shaken=False, components=3)
    assert torch.allclose(finer.prior.log_scale[:, 1], finer.spread.log()) and torch.allclose(finer.prior.log_scale.diff(), torch.tensor(1.5))


def with_latents(model, monkeypatch, y):
    """Have the model see these latents, in integers, in the place of its analysis' own."""
    monkeypatch.setattr(model, "latents", lambda images, point: y)
    return model


def lengths(prior, x, point, gain):
    """-log2 p(x) in float64, from the parameters of a factorised prior."""
    with torch.no_grad():
        mean, scale, weight = (v.double()[:, :, None, None] for v in prior.parameters_at(point, gain))
        mass = (weight * box_mass(x.double()[..., None], mean, scale)).sum(-1)
    return -mass.clamp_min(LEAST_MASS).log2()


def test_noise_bits_are_the_expectation_over_the_noise(photographs, images, monkeypatch):
    """The mean over midpoints of a cell is the integral of -log2 p(f + u) over u, for every latent."""
    model, many = made(photographs), 400
    y = 3 * torch.randn(1, 10, 2, 2, generator=torch.Generator().manual_seed(0))
    point = torch.zeros(many, dtype=torch.int64)
    midpoints = ((torch.arange(many) + 0.5) / many - 0.5)[:, None, None, None]
    with_latents(model, monkeypatch, y.expand(many, -1, -1, -1))
    with torch.no_grad():
        found = model.everything(images[:1], point, lambda shape: midpoints.expand(shape), "noise")
        mean, scale, weight = (v[0].double().numpy() for v in model.prior.parameters_at(point[:1], model.log_gain[point[:1]].exp()))

    def length(x, c):
        return -math.log2(max((weight[c] * (stats.norm.cdf((x + 0.5 - mean[c]) / scale[c]) - stats.norm.cdf((x - 0.5 - mean[c]) / scale[c]))).sum(), LEAST_MASS))

    bits = found.bits[0].mean(0)
    for c, h, w in [(0, 0, 0), (0, 1, 1), (4, 0, 1), (7, 1, 0), (9, 1, 1)]:
        at = float(y[0, c, h, w])
        assert float(bits[c, h, w]) == pytest.approx(integrate.quad(length, at - 0.5, at + 0.5, args=(c,), limit=200)[0], rel=2e-3)
    with torch.no_grad():
        assert torch.allclose(found.pixels[7], model.reconstruct(y + midpoints[7], point[:1])[0], atol=1e-5)


@pytest.mark.parametrize("layers", KINDS)
def test_price_and_straight_are_one_forward_pass(photographs, images, layers):
    """The same integers, pictures and bits, to the last one; mixed has their picture, and the bits of noise where there is one layer."""
    model, point = made(photographs, layers), torch.arange(4) % 2
    with torch.no_grad():
        found = {through: model.everything(images[:4], point, some(), through) for through in ("price", "straight", "mixed", "noise")}
        assert all(torch.equal(a, b) for a, b in zip(found["price"].bits, found["straight"].bits))
        assert torch.equal(found["price"].pixels, found["straight"].pixels) and torch.equal(found["price"].pixels, found["mixed"].pixels)
        assert not torch.equal(found["price"].pixels, found["noise"].pixels)
        assert torch.equal(found["mixed"].bits[0], found["noise"].bits[0]) and not torch.equal(found["mixed"].bits[0], found["price"].bits[0])
        if layers > 1:  # layers further down have other means when those above them are rounded
            assert not torch.equal(found["mixed"].bits[-1], found["noise"].bits[-1])
        model.through = "noise"
        assert torch.equal(model.everything(images[:4], point, some()).pixels, found["noise"].pixels)
        alone = model.everything(images[3:4], point[3:4], some(), "price")
        together = sum(float(bits[3].sum()) for bits in found["price"].bits)
        assert sum(float(bits.sum()) for bits in alone.bits) == pytest.approx(together, rel=1e-3)
    assert len(found["price"].bits) == model.layers == layers and all((bits >= 0).all() for bits in found["price"].bits)


@pytest.mark.parametrize("through", ["price", "straight", "noise", "mixed"])
def test_the_slope_of_a_latents_bits(photographs, images, monkeypatch, through):
    """The price of the next integer, L(n + 1) - L(n), n <= f < n + 1; or the derivative of L, where it rounds to or where the noise takes it."""
    model, point = made(photographs), torch.tensor([1])
    y = (4 * torch.randn(1, 10, 4, 4, generator=torch.Generator().manual_seed(3)))
    y[0, 0, 0] = torch.tensor([0.0, -1, 0.5, 2.5])  # integers and ties
    y.requires_grad_()
    gain, u = model.log_gain[point].exp().detach(), some(5)((1, 10, 4, 4))
    found = with_latents(model, monkeypatch, y).everything(images[:1], point, lambda shape: u, through)
    found.bits[0].sum().backward()
    if through == "price":
        below = y.detach().floor()
        expected = lengths(model.prior, below + 1, point, gain) - lengths(model.prior, below, point, gain)
    else:
        at = y.detach().round() if through == "straight" else y.detach() + u
        expected = (lengths(model.prior, at.double() + 1e-4, point, gain) - lengths(model.prior, at.double() - 1e-4, point, gain)) / 2e-4
    near = lengths(model.prior, y.detach(), point, gain) < 20
    assert near.sum() > 100 and torch.allclose(y.grad[near].double(), expected[near], atol=2e-3)
    pixels = with_latents(model, monkeypatch, y).everything(images[:1], point, lambda shape: u, through).pixels
    y.grad = None
    pixels.square().sum().backward()  # for distortion, rounding counts as no rounding at all
    given = (y.detach() + u if through == "noise" else y.detach().round()).requires_grad_()
    model.reconstruct(given, point).square().sum().backward()
    assert torch.allclose(y.grad, given.grad, atol=1e-5) and (y.grad != 0).any()


def test_the_price_in_a_hierarchy(photographs, images, monkeypatch):
    """The last layer's latents, on which nothing else hangs: the price of the next offset from their means."""
    model, point = made(photographs, 12), torch.tensor([0])
    with torch.no_grad():
        y = 6 * model.latents(images[:1], point) + 0.3
    y.requires_grad_()
    upper = [values.detach() for values in model.upper_latents(y, point)]
    monkeypatch.setattr(model, "upper_latents", lambda y, point: upper)
    seen = []
    monkeypatch.setattr(discretized, "box_mass", lambda x, mean, scale: seen.append((x, scale)) or box_mass(x, mean, scale))
    found = with_latents(model, monkeypatch, y).everything(images[:1], point, centred, "price")
    sum(bits.sum() for bits in found.bits).backward()
    assert len(seen) == 3 * 12  # of every layer: the integer, the next one, the one below
    (rounded, scale), (above, _), (below, _) = (tuple(v.detach().double() for v in one) for one in seen[-3:])
    assert torch.equal(above, below + 1) and ((rounded == below) | (rounded == above)).all()
    length = [-box_mass(at, 0.0, scale).clamp_min(LEAST_MASS).log2() for at in (below, above)]
    black = chessboard(4, 4, True)[0, 0]
    assert torch.allclose(y.grad[0, -3:][:, black].double(), (length[1] - length[0])[0][:, black], atol=2e-3)


@pytest.mark.parametrize("layers", KINDS)
@pytest.mark.parametrize("through", ["price", "straight", "noise", "mixed"])
def test_every_parameter_has_a_slope(photographs, images, layers, through):
    model = made(photographs, layers, through=through)
    loss, report = model.loss(images[:4], (torch.arange(4) % 2, torch.arange(4)))
    loss.backward()
    for name, values in model.named_parameters():
        assert values.grad is not None and torch.isfinite(values.grad).all() and (values.grad != 0).any(), name
    assert math.isfinite(float(loss.detach())) and all(math.isfinite(float(value)) for value in report.values())


@pytest.mark.parametrize("layers", KINDS)
def test_the_loss_as_it_is_written(photographs, images, layers):
    """(bits per pixel + lambda d) / sqrt(lambda / 0.01), d in squared grey levels; an image's noise is its seed's, alone or in a batch."""
    model, point, seeds = made(photographs, layers, through="noise"), torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    with torch.no_grad():
        together, report = model.loss(images[:3], (point, seeds))
        alone = []
        for k in range(3):
            generator = torch.Generator().manual_seed(int(seeds[k]))
            found = model.everything(images[k:k + 1], point[k:k + 1], lambda shape: torch.rand(shape[1:], generator=generator)[None] - 0.5)
            rate = sum(float(bits.sum()) for bits in found.bits) / 64**2
            error = float(((255 * (found.pixels + 0.5) - images[k:k + 1]) ** 2).mean())
            alone.append((rate, error, TINY["lambdas"][point[k]]))
            assert float(model.loss(images[k:k + 1], (point[k:k + 1], seeds[k:k + 1]))[0]) == pytest.approx((rate + alone[k][2] * error) / math.sqrt(alone[k][2] / 0.01), rel=1e-4)
    assert float(together) == pytest.approx(np.mean([(rate + weight * error) / math.sqrt(weight / 0.01) for rate, error, weight in alone]), rel=1e-3)
    assert float(report["bpp_0"]) == pytest.approx(alone[0][0], rel=1e-3) and float(report["distortion_0"]) == pytest.approx(alone[0][1], rel=1e-3)
    assert float(report["bpp_1"]) == pytest.approx((alone[1][0] + alone[2][0]) / 2, rel=1e-3)
    assert float(report["distortion_1"]) == pytest.approx((alone[1][1] + alone[2][1]) / 2, rel=1e-3)
    noise = model.noise(400, torch.Generator().manual_seed(0))
    assert noise[0].unique().tolist() == [0, 1] and noise[1].unique().numel() == 400


def test_ms_ssim_as_a_distortion():
    """1300 times what it lacks of 1; nothing for the image itself, and slopes that lead there."""
    image = torch.from_numpy(data.photograph("astronaut")[:128, :128].copy()).permute(2, 0, 1)[None]
    noisy = (image / 255 - 0.5 + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for kind, least, most in (("mse", 600, 700), ("ms-ssim", 10, 650)):
        own = discretized.distortion_of(image / 255 - 0.5, image, kind)
        error = discretized.distortion_of(noisy, image, kind)
        assert own.shape == (1,) and float(own) == pytest.approx(0, abs=1e-2) and least < float(error.detach()) < most
        noisy.grad = None
        error.sum().backward()
        with torch.no_grad():
            assert torch.isfinite(noisy.grad).all() and float(discretized.distortion_of(noisy - 1e-3 * noisy.grad.sign(), image, kind)) < float(error)
    both = discretized.distortion_of(torch.cat([image / 255 - 0.5, noisy.detach()]), image.expand(2, -1, -1, -1), "ms-ssim")
    assert both.tolist() == pytest.approx([float(own), float(error.detach())], abs=1e-2)
    torch.manual_seed(0)
    model = DiscretizedVAE(**TINY, distortion="ms-ssim")
    model.prepare(image.permute(0, 2, 3, 1))
    loss, report = model.loss(image, (torch.tensor([1]), torch.tensor([0])))
    expected = float(report["bpp_1"]) + 0.02 * float(report["distortion_1"])
    assert float(loss.detach()) == pytest.approx(expected / math.sqrt(2), rel=1e-4) and 0 < float(report["distortion_1"]) < 600


def test_the_upper_latents_are_those_of_standardised_ones(photographs, images):
    """z = gain * network(y / unit), one row of gains for z1 and one for z2; with slopes to all three."""
    model, point = made(photographs, 3), torch.tensor([1])
    torch.nn.init.normal_(model.upper_log_gain)
    y = model.latents(images[:1], point).detach().requires_grad_()
    unit, *upper_units = model.units(point)
    assert torch.allclose(unit[0, :, 0, 0], model.log_gain[1].exp() * model.spread + 0.5) and unit.shape == (1, 10, 1, 1)
    gains = model.upper_log_gain[1].exp().split(4)
    for found, raw, gain, upper_unit in zip(model.upper_latents(y, point), model.upper_analysis(y / unit), gains, upper_units):
        assert torch.allclose(found[0], raw[0] * gain[:, None, None], atol=1e-6) and torch.allclose(upper_unit[0, :, 0, 0], gain + 0.5)
        slopes = torch.autograd.grad(found.square().sum(), [y, model.upper_log_gain, model.log_gain], retain_graph=True)
        assert all((slope != 0).any() for slope in slopes) and torch.allclose(slopes[1][1].sum(), 2 * found.square().sum(), rtol=1e-4)
    assert model.upper_latents(y, point)[0].shape == (1, 4, 1, 1) and model.upper_latents(y, point)[1].shape == (1, 4, 2, 2)


def test_operating_points_have_numbers_of_their_own(photographs, images):
    """Nothing of one point moves another's picture or bits."""
    for layers in (1, 12):
        model = made(photographs, layers)
        tables = [model.log_gain] + ([model.prior.shift] if layers == 1 else
                                     [model.upper_log_gain, model.top.shift, model.hierarchy.upper_shift, model.hierarchy.hidden_shift,
                                      *model.hierarchy.shift, *model.hierarchy.last_shift])

        def outputs():
            with torch.no_grad():
                found = model.everything(images[:2], torch.tensor([0, 1]), centred, "noise")  # no noise, and nothing rounded that could hide a change
            return [found.pixels, *found.bits]

        before = outputs()
        for table in tables:
            old = table.data.clone()
            table.data[1] += 0.4
            after = outputs()
            table.data = old
            assert all(torch.equal(a[0], b[0]) for a, b in zip(before, after)) and not all(torch.equal(a[1], b[1]) for a, b in zip(before, after))


@pytest.mark.parametrize("layers", KINDS)
def test_it_learns(photographs, images, layers):
    """Thirty steps from priors that know nothing."""
    model = made(photographs, layers, shaken=False)
    optimizer, losses = torch.optim.Adam(model.parameters(), 5e-3), []
    for _ in range(30):
        loss, _ = model.loss(images[:4], (torch.arange(4) % 2, torch.arange(4)))
        optimizer.zero_grad(), loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.97 * losses[0]


def test_bfloat_is_for_training_alone(photographs, images):
    """A network in evaluation mode computes in float32, so that a file does not hang on what the processor makes of 16 bits."""
    model, point = made(photographs, 3, bfloat=True), torch.tensor([1, 0])
    with torch.no_grad():
        training = model.latents(images[:2], point)
        evaluation = model.eval().latents(images[:2], point)
        model.bfloat = False
        assert torch.equal(model.latents(images[:2], point), evaluation) and torch.equal(model.train().latents(images[:2], point), evaluation)
    assert training.dtype == torch.float32 and not torch.equal(training, evaluation) and torch.allclose(training, evaluation, rtol=0.1, atol=0.5)


def test_the_model_by_its_class_name():
    model = build("DiscretizedVAE", **TINY, groups=[4, 6], **DEEP)
    assert isinstance(model, DiscretizedVAE) and model.layers == 4 and model.groups == (4, 6) and model.EXACT == ("hierarchy",)
    assert not hasattr(model, "prior") and DiscretizedVAE(**TINY).EXACT == () and not hasattr(DiscretizedVAE(**TINY), "hierarchy")


# The integer codec against the float model


@pytest.mark.parametrize("layers", KINDS)
def test_integers_cost_what_the_float_model_said(photographs, layers):
    """Integer tables, means in sixteenths, 192 scales: less than 2 % even on a small picture under an untrained network."""
    model = made(photographs, layers)
    twin = discretized_calibration.ready(model, photographs[:4].permute(0, 3, 1, 2))
    image = data.photograph("chelsea")[64:192, 128:320].copy()
    for point in range(2):
        with torch.no_grad():
            floats = model.eval().everything(torch.from_numpy(image).permute(2, 0, 1)[None], torch.tensor([point]), centred, "price")
        coded = discretized_codec.encode(twin, image, point)
        assert [bits.shape for bits in coded.bits] == [bits.shape[1:] for bits in floats.bits]
        assert sum(bits.sum() for bits in coded.bits) == pytest.approx(sum(float(bits.sum()) for bits in floats.bits), rel=0.02)
        picture = ((floats.pixels[0] + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        assert metrics.psnr(image, coded.picture) == pytest.approx(metrics.psnr(image, picture), abs=0.2)


@pytest.mark.parametrize("name", [name for name in zoo.names() if name.startswith("dvae")])
def test_integers_cost_what_a_trained_model_said(name):
    """Within 0.5 %, on a photograph."""
    network, image = zoo.load(name), data.photograph("coffee")[:320, :448].copy()
    for point in (0, len(network.lambdas) - 1):
        with torch.no_grad():
            floats = network.everything(torch.from_numpy(image).permute(2, 0, 1)[None], torch.tensor([point]), centred, "price")
        coded = discretized_codec.encode(network, image, point)
        assert sum(bits.sum() for bits in coded.bits) == pytest.approx(sum(float(bits.sum()) for bits in floats.bits), rel=0.005)
