"""The ladder: Bayes' rule and divergences, the loss as it is written, and one network for several operating points."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from shvc_lib import data, nn
from shvc_lib.models import ladder
from shvc_lib.models.ladder import LOG2E, Ladder, Normal
from shvc_lib.sampling import Gaussian

TINY = {"betas": (0.1, 0.02), "width": 8, "latents": 6, "upper": 4, "hidden": 8}


@pytest.fixture(scope="module")
def photographs():
    torch.set_num_threads(1)
    return torch.from_numpy(data.patches([data.photograph("coffee"), data.photograph("chelsea")], 64, 8, seed=1)).permute(0, 3, 1, 2)


def made(seed=0, **changes):
    torch.manual_seed(seed)
    return Ladder(**(TINY | changes))


def normals(*pairs):
    return [Normal(torch.tensor([float(mean)], dtype=torch.float64), torch.tensor([float(scale)], dtype=torch.float64)) for mean, scale in pairs]


CASES = [((0.3, 1.0), (-0.5, 0.4)), ((2.0, 0.1), (-1.0, 3.0)), ((-1.0, 5.0), (1.0, 0.05))]


@pytest.mark.parametrize(("prior", "evidence"), CASES)
def test_the_posterior_is_bayes_rule(prior, evidence):
    """The product of prior and evidence, normalised by quadrature: its mean, its scale, its density."""
    q = ladder.posterior(*normals(prior, evidence))
    mean, scale = float(q.mean), float(q.scale)
    limits = mean - 12 * scale, mean + 12 * scale

    def product(z):
        return stats.norm.pdf(z, *prior) * stats.norm.pdf(evidence[0], z, evidence[1])

    def integral(function):
        return integrate.quad(function, *limits, points=[mean], epsabs=0, epsrel=1e-10)[0]

    mass = integral(product)
    assert integral(lambda z: z * product(z)) / mass == pytest.approx(mean, rel=1e-7)
    assert integral(lambda z: (z - mean) ** 2 * product(z)) / mass == pytest.approx(scale**2, rel=1e-7)
    z = np.linspace(*limits, 50)
    assert product(z) / mass == pytest.approx(stats.norm.pdf(z, mean, scale), rel=1e-6)


@pytest.mark.parametrize(("q", "p"), CASES)
def test_the_divergence(q, p):
    """Against the integral of q log(q / p), and against `sampling`, which counts in bits."""
    found = float(ladder.divergence(*normals(q, p)))
    width = 12 * q[1]
    nats = integrate.quad(lambda z: stats.norm.pdf(z, *q) * (stats.norm.logpdf(z, *q) - stats.norm.logpdf(z, *p)), q[0] - width, q[0] + width, epsrel=1e-10)[0]
    assert found == pytest.approx(nats, rel=1e-7) and found * LOG2E == pytest.approx(float(Gaussian(*q).kl(Gaussian(*p))), rel=1e-9)
    assert float(ladder.divergence(*normals(q, q))) == 0


@pytest.mark.parametrize(("sigma", "noise"), [(1, 1), (3, 0.2), (0.1, 2)])
def test_what_a_latent_is_expected_to_cost(sigma, noise):
    """1/2 log2(1 + sigma^2 / s1^2) bits, the mutual information, when the evidence lies where the prior expects it. A Gauss-Hermite sum, exact for squares."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    prior = Normal(torch.full((8,), 0.7, dtype=torch.float64), torch.full((8,), float(sigma), dtype=torch.float64))
    evidence = Normal(0.7 + math.hypot(sigma, noise) * torch.from_numpy(nodes), torch.full((8,), float(noise), dtype=torch.float64))
    nats = ladder.divergence(ladder.posterior(prior, evidence), prior).numpy()
    assert LOG2E * (nats * weights).sum() / weights.sum() == pytest.approx(0.5 * math.log2(1 + sigma**2 / noise**2), rel=1e-12)


def test_shapes_and_pieces():
    """`everything` is its pieces, one after the other; a latent for 16 x 16 and one for 64 x 64 pixels."""
    model, point = made(), torch.tensor([1, 0])
    images = torch.randint(0, 256, (2, 3, 64, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    asked = []

    def sample(q):
        asked.append(q)
        return q.mean + 0.5 * q.scale

    picture, lower, upper = model.everything(images, point, sample)
    assert picture.shape == images.shape and lower.shape == (2, 6, 4, 8) and upper.shape == (2, 4, 1, 2)
    evidence = model.evidence(images, point)
    assert torch.equal(evidence.scale[:, :, 0, 0], model.log_scale[point].exp()) and (evidence.scale.std((2, 3)) == 0).all()
    q2, p2 = model.upper_posterior(evidence, point)
    p1 = model.lower_prior(sample(q2), point)
    q1 = ladder.posterior(p1, evidence)
    assert all(torch.equal(a, b) for a, b in zip((*asked[0], *asked[1]), (*q2, *q1))) and len(asked) == 3  # the third one is this test's
    assert torch.equal(upper, ladder.divergence(q2, p2)) and torch.equal(lower, ladder.divergence(q1, p1)) and (lower >= -1e-6).all()
    assert (p2.mean == 0).all() and (p2.scale == 1).all() and (q2.scale < 1).all() and (q1.scale < evidence.scale).all()
    assert torch.equal(picture, model.reconstruct(sample(q1), point))
    exact = model.synthesis_in_float64()(sample(q1).double(), point)
    assert exact.dtype == torch.float64 and torch.allclose(exact.float(), picture, atol=1e-5) and model.synthesis[0].weight.dtype == torch.float32


def test_operating_points_have_numbers_of_their_own():
    """Scales and gains, inward and outward; nothing of one point moves another's picture."""
    model, images = made(), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def outputs():
        with torch.no_grad():
            return model.everything(images, torch.tensor([0, 1]), lambda q: q.mean + q.scale)

    before = outputs()
    for table in (model.log_scale, model.gain_in, model.gain_out, model.upper_log_scale, model.prior.shift, model.prior.hidden_shift):
        old = table.data.clone()
        table.data[1] += 0.3
        after = outputs()
        table.data = old
        assert all(torch.equal(a[0], b[0]) for a, b in zip(before, after)) and not all(torch.equal(a[1], b[1]) for a, b in zip(before, after))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs()))


def test_the_scale_of_the_prior_is_bounded():
    model = made()
    for bias, scale in ((-100, math.exp(-4)), (100, math.exp(5))):
        model.prior.third.bias.data[6:] = bias
        p1 = model.lower_prior(torch.zeros(1, 4, 1, 1), torch.tensor([0]))
        assert torch.allclose(p1.scale, torch.tensor(scale)) and p1.mean.shape == (1, 6, 4, 4)


@pytest.mark.parametrize("learned_scale", [False, True])
def test_the_loss_as_it_is_written(photographs, learned_scale):
    """(D / gamma + log(2 gamma) + beta KL) / sqrt(beta) from the parts that it reports, the warm-up of beta (PLN only), one image at a time or together."""
    model, seeds = made(learned_scale=learned_scale, warmup=10).eval(), torch.arange(8) + 5
    with torch.no_grad():
        for steps, weight in ((0, 0.1), (4, 0.5), (9, 1), (500, 1)):
            model.steps.fill_(steps)
            for k, beta in enumerate(TINY["betas"]):
                loss, report = model.loss(photographs, (torch.full((8,), k), seeds))
                gamma = 0.1 if learned_scale else 1.0
                distortion = LOG2E * (float(report[f"error_{k}"]) / gamma + math.log(2 * gamma))
                rate = (1 if learned_scale else weight) * beta * float(report[f"bpp_{k}"]) / 3
                assert float(loss) == pytest.approx((distortion + rate) / math.sqrt(beta), rel=1e-4, abs=1e-4) and float(report[f"error_{1 - k}"]) == 0
        assert int(model.steps) == 500  # evaluation is no step
        point = torch.arange(8) % 2
        together, report = model.loss(photographs, (point, seeds))
        alone = [model.loss(photographs[i:i + 1], (point[i:i + 1], seeds[i:i + 1])) for i in range(8)]
        assert float(together) == pytest.approx(np.mean([float(loss) for loss, _ in alone]), rel=1e-4, abs=1e-4)
        assert float(report["error_1"]) == pytest.approx(np.mean([float(r["error_1"]) for _, r in alone[1::2]]), rel=1e-4, abs=1e-4)
        assert float(report["bpp_0"]) == pytest.approx(np.mean([float(r["bpp_0"]) for _, r in alone[::2]]), rel=1e-4, abs=1e-4)
        generator = torch.Generator().manual_seed(int(seeds[3]))  # the noise of an image is its seed's, of z2 first
        picture, lower, upper = model.everything(photographs[3:4], point[3:4], lambda q: q.mean + q.scale * torch.randn(q.mean.shape[1:], generator=generator))
        assert float(alone[3][1]["bpp_1"]) == pytest.approx(LOG2E * float(lower.sum() + upper.sum()) / 64**2, rel=1e-4, abs=1e-4)
        assert float(alone[3][1]["error_1"]) == pytest.approx(float((picture - photographs[3:4] / 255).abs().mean()), rel=1e-4, abs=1e-4)
    model.train().loss(photographs, (point, seeds))
    assert int(model.steps) == 501
    noise = model.noise(500, torch.Generator().manual_seed(0))
    assert noise[0].unique().tolist() == [0, 1] and noise[1].unique().numel() == 500


@pytest.mark.parametrize("changes", [{}, {"learned_scale": True}, {"levels": 1}])
def test_it_learns(photographs, changes):
    model = made(warmup=1, **changes)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, fixed = photographs[:3], [torch.tensor([0, 1, 1]), torch.arange(3)]
    losses = []
    for _ in range(15):
        loss, _ = model.loss(images, fixed)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3 and np.mean(losses[-3:]) < np.mean(losses[5:8])
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and (p.grad != 0).any() for p in model.parameters())


def test_the_learned_scale(photographs):
    """Its best value is the mean absolute error, where the loss is level in it; below the floor it stays at the floor."""
    model, noise = made(learned_scale=True, floor=1 / 64), (torch.zeros(8, dtype=torch.int64), torch.arange(8))
    error = float(model.loss(photographs, noise)[1]["error_0"])
    slopes = []
    for gamma in (error / 2, error, 2 * error, 1e-9):
        model.log_gamma.data[0] = math.log(gamma)
        assert float(model.scale[0].detach()) == pytest.approx(max(gamma, 1 / 64), rel=1e-5) and float(model.scale[1].detach()) == pytest.approx(0.1)
        model.zero_grad()
        loss, _ = model.loss(photographs, noise)
        loss.backward()
        slopes.append(float(model.log_gamma.grad[0]))
        assert math.isfinite(float(loss.detach())) and float(model.log_gamma.grad[1]) == 0
    assert error > 1 / 32 and slopes[0] < -1 and abs(slopes[1]) < 1e-3 and slopes[2] > 0.5 and slopes[3] == 0
    assert not hasattr(made(), "log_gamma") and made().scale.tolist() == [1, 1]


def test_one_level_is_a_vae(photographs):
    """p(z1) = N(0, 1), and nothing of the second level is there."""
    model, point = made(levels=1), torch.zeros(8, dtype=torch.int64)
    picture, lower, upper = model.everything(photographs, point, lambda q: q.mean)
    evidence = model.evidence(photographs, point)
    standard = Normal(torch.zeros(()), torch.ones(()))
    assert upper is None and torch.allclose(lower, ladder.divergence(ladder.posterior(standard, evidence), standard), atol=1e-5)
    assert picture.shape == photographs.shape and not hasattr(model, "prior") and not hasattr(model, "upper_analysis") and model.EXACT == ()
    assert float(model.loss(photographs, (point, torch.arange(8)))[1]["bpp_0"]) > 0


def test_the_prior_has_an_exact_twin():
    """The part that sender and receiver must compute alike: bit for bit in float32, float64 and integers, in a batch or alone, and close to the trained one."""
    model, generator = made(hidden=12), torch.Generator().manual_seed(0)
    model.prior.third.weight.data *= 10
    model.prior.shift.data, model.prior.hidden_shift.data = torch.randn(2, 12, generator=generator), torch.randn(2, 12, generator=generator)
    z2, point = torch.round(torch.randn(6, 4, 2, 3, generator=generator) * 4096) / 4096, torch.arange(6) % 2
    twin = nn.to_exact(model.prior, lambda prior: prior(z2, point))
    assert isinstance(twin, ladder.Prior) and model.EXACT == ("prior",)
    with torch.no_grad():
        outputs, trained = twin(z2, point), model.prior(z2, point)
        for name in ("float64", "int64"):
            with nn.arithmetic(twin, name):
                assert all(torch.equal(a.double(), b.double()) for a, b in zip(outputs, twin(z2, point)))
        for i in range(6):
            assert all(torch.equal(a[i:i + 1], b) for a, b in zip(outputs, twin(z2[i:i + 1], point[i:i + 1])))
        model.prior = twin
        assert torch.equal(model.lower_prior(z2, point).mean, outputs[0])
    for a, b in zip(outputs, trained):
        assert torch.allclose(a, b, atol=0.02) and (a * 4096 == torch.round(a * 4096)).all() and float(a.std()) > 0.3
