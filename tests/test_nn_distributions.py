"""Float log-masses and their integer twins: sums, edges, gradients, and that both mean the same distribution."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from shvc_lib import nn
from shvc_lib.coding import TOTAL, BitStack, logistic, logistic_mixture, mean_index, scale_index, weight_index
from shvc_lib.errors import InvalidInput, ShvcError
from shvc_lib.nn import parameters
from shvc_lib.nn.distributions import MAX_LOG_SCALE, MIN_LOG_SCALE

torch.set_num_threads(1)
GRID_SIZES = [(256, 0, 1.0), (2, 0, 1.0), (17, -8, 0.25), (4096, -2048, 1 / 16)]


def spread(size, lower, width, count=400, dtype=torch.float64, seed=0):
    """Means inside and outside the support, scales over the whole range."""
    generator = torch.Generator().manual_seed(seed)
    means = (torch.rand(count, generator=generator, dtype=dtype) * (size + 200) + lower - 100) * width
    log_scales = torch.linspace(MIN_LOG_SCALE - 1, MAX_LOG_SCALE + 1, count, dtype=dtype) + math.log(width)
    return means, log_scales


@pytest.mark.parametrize("size, lower, width", GRID_SIZES)
def test_masses_sum_to_one(size, lower, width):
    means, log_scales = spread(size, lower, width)
    x = (torch.arange(size) + lower).double() * width
    mass = nn.logistic_log_mass(x, means[:, None], log_scales[:, None], size, lower, width).exp()
    assert (mass.sum(-1) - 1).abs().max() < 1e-12
    shape = (100, 4)
    means, log_scales, logits = means.reshape(shape), log_scales.reshape(shape), torch.randn(shape, dtype=torch.float64) * 5
    mass = nn.mixture_log_mass(x, *(p[:, None, :] for p in (means, log_scales, logits)), size, lower, width).exp()
    assert (mass.sum(-1) - 1).abs().max() < 1e-12
    if size < TOTAL:
        assert (nn.with_floor(mass.log(), size).exp().sum(-1) - 1).abs().max() < 1e-12


def test_masses_without_ends_sum_to_one():
    x = torch.arange(-3000, 3001).double() / 8
    means, log_scales = torch.tensor([0.3, -7.01, 5.0]).double(), torch.tensor([-9.0, 0.0, 2.0]).double()
    mass = nn.logistic_log_mass(x, means[:, None], log_scales[:, None], width=1 / 8).exp()
    assert (mass.sum(-1) - 1).abs().max() < 1e-12


def test_masses_are_those_of_scipy():
    """The difference of two CDFs, in the nearer tail, where it is well-conditioned; ends and all."""
    means, log_scales = spread(256, 0, 1.0)
    log_scales = log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)
    edges = np.concatenate([[-np.inf], np.arange(1, 256) - 0.5, [np.inf]])
    u = (edges - means.numpy()[:, None]) / log_scales.exp().numpy()[:, None]
    below, above = scipy.stats.logistic.cdf(u), scipy.stats.logistic.sf(u)
    expected = np.where(u[:, 1:] <= 0, np.diff(below), -np.diff(above))
    mass = nn.logistic_log_mass(torch.arange(256), means[:, None], log_scales[:, None], 256).exp().numpy()
    np.testing.assert_allclose(mass, expected, rtol=1e-6, atol=1e-300)


def test_no_mass_is_zero_in_float32_where_the_naive_difference_is():
    means, x = torch.linspace(0, 255, 256)[:, None], torch.arange(256.0)
    log_scales = torch.full_like(means, -2.9)
    stable = nn.logistic_log_mass(x, means, log_scales, 256)
    scale = log_scales.exp()
    naive = torch.sigmoid((x + 0.5 - means) / scale) - torch.sigmoid((x - 0.5 - means) / scale)
    assert torch.isfinite(stable).all() and (naive == 0).float().mean() > 0.5
    exact = nn.logistic_log_mass(x, means.double(), log_scales.double(), 256)
    torch.testing.assert_close(stable.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [None, 256])
def test_values_and_gradients_are_finite_everywhere(dtype, size):
    values = torch.tensor([-1e30, -1e4, -300, -100, -3, -0.5, 0, 0.5, 100, 255, 256, 300, 1e4, 1e30])
    means, log_scales, x = torch.meshgrid(values.clamp(-1e6, 1e6), values, torch.tensor([0.0, 1, 128, 254, 255]), indexing="ij")
    means, log_scales = means.to(dtype).requires_grad_(), log_scales.to(dtype).requires_grad_()
    x = x.to(dtype).requires_grad_()
    log_mass = nn.logistic_log_mass(x, means, log_scales, size)
    assert log_mass.dtype == (dtype if dtype == torch.float64 else torch.float32) and (log_mass <= 1e-6).all()
    log_mass.sum().backward()
    assert all(torch.isfinite(t).all() for t in (log_mass, means.grad, log_scales.grad, x.grad))
    if size:
        parts = [p.detach()[..., None].repeat(1, 1, 1, 3).requires_grad_() for p in (means, log_scales, log_scales)]
        nn.mixture_log_mass(x.detach(), *parts).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in parts)


def test_gradients_are_right():
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (40,), generator=generator).double()
    x[:4] = torch.tensor([0.0, 0, 255, 255])
    means = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 255).requires_grad_()
    log_scales = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 4).requires_grad_()
    logits = torch.randn(40, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda *p: nn.mixture_log_mass(x, *p), (means, log_scales, logits))


def test_rounding_is_to_the_grid_and_its_gradient_is_one():
    values = torch.tensor([-0.3, 0.1, 0.124, 0.126, 7.9], requires_grad=True)
    rounded = nn.round_to_grid(values, 0.25)
    assert rounded.tolist() == [-0.25, 0.0, 0.0, 0.25, 8.0]
    (3 * rounded).sum().backward()
    assert (values.grad == 3).all()


def test_samples_follow_their_masses():
    """Chi-square over the bins with enough samples; and the mean negative log-mass is the entropy."""
    generator = torch.Generator().manual_seed(1)
    count, width = 200_000, 0.25
    means, log_scales = torch.full((count,), 0.3), torch.full((count,), -0.7)
    z = nn.sample_logistic(means, log_scales, width, generator)
    bins = torch.arange(-40, 41) * width
    mass = nn.logistic_log_mass(bins, torch.tensor(0.3).double(), torch.tensor(-0.7).double(), width=width).exp()
    counts = torch.stack([(z == b).sum() for b in bins])
    assert counts.sum() > count - 50
    likely = mass * count > 20
    chi = ((counts - mass * count) ** 2 / (mass * count))[likely].sum()
    assert chi < scipy.stats.chi2.ppf(0.9999, int(likely.sum()))
    entropy = -(mass * mass.log()).sum()
    assert abs(-nn.logistic_log_mass(z, means, log_scales, width=width).mean() - entropy) < 0.01


# --- integer twins ----------------------------------------------------------------------------------------------------------------------------

def test_exact_means_and_scales_are_the_rounded_floats():
    values = np.arange(-(1 << 20), 1 << 20, 37)
    keep = values % 256 != 128  # halves go upwards here, to even there
    np.testing.assert_array_equal(nn.exact_means(values)[keep], mean_index(values / 4096)[keep])
    np.testing.assert_array_equal(nn.exact_means(values, bits=5), np.floor(values / 2 + 0.5))
    np.testing.assert_array_equal(nn.exact_means(values, bits=3), values * 2)
    inside = keep & (np.abs(values) < 50 * 4096)
    np.testing.assert_array_equal(nn.exact_scales(values)[inside], scale_index(np.exp(values / 4096))[inside])


def test_exact_weights_are_a_softmax_that_sums_to_4096():
    rng = np.random.default_rng(0)
    for components in (1, 2, 5, 12):
        logits = rng.integers(-(1 << 16), 1 << 16, (2000, components))
        logits[0], logits[1] = 0, rng.permutation(components) * (1 << 20)
        weights = nn.exact_weights(logits)
        assert weights.dtype == np.int32 and (weights.sum(-1) == 4096).all() and weights.min() >= 0
        real = np.exp((logits - logits.max(-1, keepdims=True)) / 4096)
        real /= real.sum(-1, keepdims=True)
        assert np.abs(weights - 4096 * real).max() < 1 + 4096 * 0.25 / 64
        coarse = logits // 64 * 64  # on the table's own grid only the last rounding is left
        real = np.exp((coarse - coarse.max(-1, keepdims=True)) / 4096)
        np.testing.assert_array_equal(nn.exact_weights(coarse), weight_index(np.rint(real * 2**24)))
    assert nn.exact_weights(np.array([[5, 5, 5]])).tolist() == [[1366, 1365, 1365]]


def test_the_exponential_table_is_what_it_says():
    table = parameters.exp_table()
    np.testing.assert_allclose(table[:-1], np.exp(-np.arange(table.size - 1) / 64) * 2**24, atol=0.500001)
    assert table[0] == 2**24 and table[-1] == 0 and (np.diff(table) <= 0).all()
    assert not table.flags.writeable


@pytest.mark.parametrize("scales, tolerance", [((1.0, 200.0), 0.0025), ((0.35, 1.0), 0.004)])
def test_float_and_integer_mixtures_agree(scales, tolerance):
    """Excess codelength of the integer twin under the float distribution, KL in bits per symbol: at most the tolerance, and less than a third of it on average."""
    rng = np.random.default_rng(7)
    shape = (600, 5)
    means, logits = rng.integers(-10 * 4096, 265 * 4096, shape), rng.integers(-3 * 4096, 3 * 4096, shape)
    log_scales = rng.integers(int(math.log(scales[0]) * 4096), int(math.log(scales[1]) * 4096) + 1, shape)
    real = [torch.from_numpy(p / 4096)[:, None, :] for p in (means, log_scales, logits)]
    log_mass = nn.with_floor(nn.mixture_log_mass(torch.arange(256), *real), 256).numpy()

    def excess(means):
        twin = logistic_mixture(nn.exact_means(means), nn.exact_scales(log_scales), nn.exact_weights(logits)).frequencies() / TOTAL
        return (np.exp(log_mass) * (log_mass / math.log(2) - np.log2(twin))).sum(-1)

    assert excess(means).min() > -1e-12 and excess(means).max() < tolerance and excess(means).mean() < tolerance / 3
    assert excess(means + 4096 // 2).max() > tolerance  # half a level off would be noticed


def test_a_posterior_window_has_no_wild_draws_and_agrees_with_its_density():
    rng = np.random.default_rng(2)
    count, size, lower, prior = 20_000, 128, -1024, 2048
    means, scales = rng.integers(-1000 * 16, 1000 * 16, count), rng.integers(10, 70, count)  # scales of 0.09 ... 4 bins
    means[:3] = [-5000 * 16, 5000 * 16, 0]
    posterior = nn.logistic_window(means, scales, size, lower, prior)
    z = BitStack.random(1 << 20, 5).pop(posterior)
    assert z.min() >= lower and z.max() < lower + prior
    distance = np.abs(z - means / 16)[3:] / np.exp((scales[3:] - 48) / 16)
    assert (distance > 20).sum() == 0  # a floor over the whole support would draw one in 8192 from anywhere
    step = slice(3, 400)
    mass = nn.logistic_log_mass(torch.from_numpy(z[step]), torch.from_numpy(means[step] / 16), torch.from_numpy((scales[step] - 48) / 16))
    assert np.abs(posterior.bits(z)[step] + mass.numpy() / math.log(2)).mean() < 2e-3
    inside = logistic(means[step], scales[step], prior, lower)
    assert np.abs(posterior.bits(z)[step] - inside.bits(z[step])).mean() < 2e-3


def test_bad_input_is_one_line():
    one = torch.zeros(3)
    for call in (lambda: nn.logistic_log_mass(one, one, one, size=1), lambda: nn.logistic_log_mass(one, one, one, width=0.0),
                 lambda: nn.logistic_log_mass(one, one.long(), one), lambda: nn.mixture_log_mass(one, one.numpy(), one, one),
                 lambda: nn.to_integers(torch.tensor([0.3])), lambda: nn.to_integers(torch.tensor([math.nan])),
                 lambda: nn.exact_weights(np.array([0.5])), lambda: nn.exact_weights(np.array(3)), lambda: nn.exact_means(np.zeros(2)),
                 lambda: nn.exact_scales(np.array([], dtype=int)), lambda: nn.logistic_window(np.zeros(1, int), np.zeros(1, int), 64, 0, 32)):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert "\n" not in str(caught.value) and isinstance(caught.value, ShvcError)
