"""Generalised divisive normalisation: the formula, its inverse, and numbers that stay finite."""

import numpy as np
import pytest
import torch

from shvc_lib.nn import GDN

pytestmark = pytest.mark.filterwarnings("error")


def layer(channels, inverse=False, seed=0):
    """A layer with random parameters, in float64."""
    rng, made = np.random.default_rng(seed), GDN(channels, inverse).double()
    made.root_beta.data = torch.from_numpy(rng.uniform(0.5, 2, channels))
    made.root_gamma.data = torch.from_numpy(rng.normal(size=(channels, channels)))
    return made


@pytest.mark.parametrize("inverse", [False, True])
def test_the_formula(inverse):
    """Against loops over images, positions and channels; squares make beta and gamma positive whatever their roots are."""
    gdn, x = layer(3, inverse), np.random.default_rng(1).normal(size=(2, 3, 2, 4))
    beta, gamma = gdn.root_beta.detach().numpy() ** 2 + 1e-6, gdn.root_gamma.detach().numpy() ** 2
    expected = np.empty_like(x)
    for b, h, w in np.ndindex(2, 2, 4):
        for i in range(3):
            energy = beta[i] + sum(gamma[i, j] * x[b, j, h, w] ** 2 for j in range(3))
            expected[b, i, h, w] = x[b, i, h, w] * (energy**0.5 if inverse else energy**-0.5)
    assert gdn(torch.from_numpy(x)).detach().numpy() == pytest.approx(expected, rel=1e-12)


def test_how_it_starts():
    gdn = GDN(4)
    assert torch.allclose(gdn.root_gamma**2, 0.1 * torch.eye(4), atol=2e-4) and (gdn.root_gamma > 0).all()  # the root of 0 has no slope
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gdn(x), x / (1 + 0.1 * x**2).sqrt(), atol=1e-2) and gdn(x).dtype == torch.float32


def test_the_inverse_undoes_it_nearly():
    """With the same parameters and beta = 1, what is left is of fourth order: half the signal, a sixteenth of the relative error."""
    gdn, igdn = GDN(5).double(), GDN(5, inverse=True).double()
    x = 0.5 * torch.randn(1, 5, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(back, x):
        return float(((back - x).norm() / x.norm()).detach())

    assert error(igdn(gdn(x)), x) < 0.01 < 0.03 < error(gdn(x), x)
    assert error(igdn(gdn(x)), x) / error(igdn(gdn(x / 2)), x / 2) == pytest.approx(16, rel=0.3)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients(inverse):
    gdn, x = layer(2, inverse), torch.randn(1, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    parameters = [p.detach().requires_grad_() for p in (gdn.root_beta, gdn.root_gamma)]

    def run(x, root_beta, root_gamma):
        return torch.func.functional_call(gdn, {"root_beta": root_beta, "root_gamma": root_gamma}, (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_floor(inverse):
    """beta = gamma = 0 is harmless: a gain of 1000 and no more, and slopes that are numbers, even for a black image."""
    gdn = GDN(2, inverse)
    gdn.root_beta.data.zero_(), gdn.root_gamma.data.zero_()
    x = torch.tensor([0.0, 1.0, -2.0, 0.5]).reshape(1, 2, 1, 2).requires_grad_()
    y = gdn(x)
    assert torch.allclose(y, x * (1e-3 if inverse else 1e3))
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (x, gdn.root_beta, gdn.root_gamma))
