"""shvc_lib.theory.entropy against sums written out, closed forms and sampling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import multivariate_normal

from shvc_lib.errors import InvalidInput
from shvc_lib.theory import (binary_entropy, cross_entropy, entropy, gaussian_entropy, gaussian_kl,
                             gaussian_mutual_information, kl, mutual_information)


@st.composite
def distributions(draw, rows=None):
    """Probabilities, exact zeros among them."""
    n = draw(st.integers(1, 12))
    shape = (n,) if rows is None else (rows, n)
    weights = draw(arrays(float, shape, elements=st.one_of(st.just(0.0), st.floats(1e-3, 1.0))))
    weights[..., draw(st.integers(0, n - 1))] += 1.0  # no row is all zero
    return weights / weights.sum(-1, keepdims=True)


def covariance(n, seed):
    a = np.random.default_rng(seed).normal(size=(n, n + 2))
    return a @ a.T / n + 0.1 * np.eye(n)


def test_hand_computed_values():
    assert entropy([0.5, 0.25, 0.25]) == 1.5
    assert entropy([1.0, 0.0, 0.0]) == 0.0
    assert entropy(np.full(256, 1 / 256)) == pytest.approx(8.0, abs=1e-12)
    assert cross_entropy([0.5, 0.5], [0.25, 0.75]) == pytest.approx(1 + 0.5 * math.log2(4 / 3))
    assert kl([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.5 * math.log2(4 / 3))
    assert binary_entropy([0.0, 0.5, 1.0]).tolist() == [0.0, 1.0, 0.0]
    assert mutual_information([[0.5, 0.0], [0.0, 0.5]]) == 1.0
    assert gaussian_entropy(1.0) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e))
    assert gaussian_kl(1.0, 1.0, 0.0, 1.0, base=math.e) == pytest.approx(0.5)


def test_zero_probabilities():
    assert kl([0.5, 0.5, 0.0], [0.5, 0.5, 0.0]) == 0.0  # 0 log 0 = 0, and 0 log(0/0) = 0
    assert kl([1.0, 0.0], [0.5, 0.5]) == 1.0
    assert kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert cross_entropy([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert cross_entropy([1.0, 0.0], [1.0, 0.0]) == 0.0
    assert math.copysign(1, cross_entropy([1.0, 0.0], [1.0, 0.0])) == 1  # 0, not -0


@given(distributions(rows=2))
def test_inequalities_and_identities(pair):
    p, q = pair
    assert 0 <= entropy(p) <= math.log2(len(p)) + 1e-12
    assert kl(p, q) >= 0 and kl(p, p) == 0
    if np.isfinite(kl(p, q)):
        assert cross_entropy(p, q) == pytest.approx(entropy(p) + kl(p, q), abs=1e-9)
        assert kl(p, q) >= np.abs(p - q).sum() ** 2 / (2 * math.log(2)) - 1e-9  # Pinsker
    else:
        assert ((q == 0) & (p > 0)).any()


@given(st.floats(0, 1))
def test_a_coin_is_a_distribution_of_two(p):
    assert binary_entropy(p) == pytest.approx(entropy([p, 1 - p]), abs=1e-12)


@given(distributions())
def test_bits_and_nats(p):
    assert entropy(p, base=math.e) == pytest.approx(entropy(p) * math.log(2), abs=1e-12)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_mutual_information_is_entropy_saved(n, m, seed):
    joint = np.random.default_rng(seed).gamma(0.3, size=(n, m)) + 1e-12
    joint /= joint.sum()
    saved = entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint.ravel())
    assert mutual_information(joint) == pytest.approx(saved, abs=1e-9)
    independent = np.outer(joint.sum(1), joint.sum(0))
    assert mutual_information(independent) == pytest.approx(0, abs=1e-12)


def test_many_distributions_at_once():
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 4))
    q = np.random.default_rng(1).dirichlet(np.ones(5))
    assert entropy(p).shape == (3, 4)
    assert kl(p, q)[2, 1] == pytest.approx(kl(p[2, 1], q))
    assert isinstance(kl(p[0, 0], q), float)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_gaussian_formulas_agree_across_shapes(n, seed):
    rng = np.random.default_rng(seed)
    variances, others = rng.gamma(2, size=(2, n)) + 0.1
    mean, other_mean = rng.normal(size=(2, n))
    assert gaussian_entropy(variances) == pytest.approx(gaussian_entropy(np.diag(variances)))
    assert gaussian_entropy(variances) == pytest.approx(sum(gaussian_entropy(v) for v in variances))
    diagonal = gaussian_kl(mean, variances, other_mean, others)
    assert diagonal == pytest.approx(gaussian_kl(mean, np.diag(variances), other_mean, others))
    assert diagonal == pytest.approx(sum(map(gaussian_kl, mean, variances, other_mean, others)))
    assert gaussian_kl(mean, variances, 0.0, 2.0) == pytest.approx(gaussian_kl(mean, variances, np.zeros(n), np.full(n, 2.0)))


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_formulas_against_densities(seed):
    rng = np.random.default_rng(seed)
    mean_q, mean_p = rng.normal(size=(2, 3))
    q, p = (multivariate_normal(m, c) for m, c in ((mean_q, covariance(3, seed)), (mean_p, covariance(3, seed + 9))))
    assert gaussian_entropy(q.cov, base=math.e) == pytest.approx(q.entropy())
    w = q.rvs(200_000, random_state=rng)
    ratio = q.logpdf(w) - p.logpdf(w)
    error = 5 * ratio.std() / math.sqrt(len(w))
    assert gaussian_kl(mean_q, q.cov, mean_p, p.cov, base=math.e) == pytest.approx(ratio.mean(), abs=error)


def test_gaussian_mutual_information():
    rho = 0.8
    assert gaussian_mutual_information([[1, rho], [rho, 1]], 1) == pytest.approx(-0.5 * math.log2(1 - rho**2))
    cov = covariance(5, 0)
    independent = cov.copy()
    independent[:2, 2:] = independent[2:, :2] = 0
    as_kl = gaussian_kl(0.0, cov, 0.0, independent)  # the definition: KL of the joint from the product
    assert gaussian_mutual_information(cov, 2) == pytest.approx(as_kl)
    assert gaussian_mutual_information(independent, 2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("call, words", [
    (lambda: entropy([0.5, 0.4]), "sum to one"),
    (lambda: entropy([[0.5, 0.5], [0.5, 0.4]]), "sum to one"),
    (lambda: entropy([1.5, -0.5]), "at least 0"),
    (lambda: entropy([0.5, float("nan")]), "NaN"),
    (lambda: entropy([0.5, float("inf")]), "infinite"),
    (lambda: entropy([]), "empty"),
    (lambda: entropy(1.0), "axes"),
    (lambda: entropy(["a", "b"]), "real numbers"),
    (lambda: entropy([[0.5, 0.5], [1.0]]), "real numbers"),
    (lambda: entropy([0.5 + 1j, 0.5]), "real numbers"),
    (lambda: entropy([0.5, 0.5], base=1), "base"),
    (lambda: entropy([0.5, 0.5], base="2"), "base"),
    (lambda: binary_entropy(1.1), "at most 1"),
    (lambda: kl([0.5, 0.5], [1.0]), "same number of symbols"),
    (lambda: kl(np.full((2, 2), 0.5), np.full((3, 2), 0.5)), "broadcast"),
    (lambda: mutual_information([0.5, 0.5]), "axes"),
    (lambda: mutual_information(np.ones((2, 2))), "sum to one"),
    (lambda: gaussian_entropy(0.0), "positive"),
    (lambda: gaussian_entropy([1.0, -1.0]), "positive"),
    (lambda: gaussian_entropy([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
    (lambda: gaussian_entropy([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
    (lambda: gaussian_entropy(np.ones((2, 3))), "symmetric"),
    (lambda: gaussian_kl([0.0, 0.0], 1.0, [0.0, 0.0, 0.0], 1.0), "disagree"),
    (lambda: gaussian_mutual_information(np.eye(2), 2), "each side"),
    (lambda: gaussian_mutual_information(np.eye(2), 0), "at least 1"),
    (lambda: gaussian_mutual_information(np.eye(2), 1.0), "whole number"),
])
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
