"""shvc_lib.theory.mdl: every code length against the probability it stands for, written out or integrated."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from shvc_lib.errors import InvalidInput
from shvc_lib.theory import (bits_back_ledger, bits_back_length, empirical_length, entropy, gaussian_kl, kt_length,
                             kt_probabilities, linear_evidence_length, prequential_linear_lengths, two_part_length,
                             universal_integer_length)


def regression(n=30, k=4, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, k))
    return features, features @ rng.normal(size=k) * 2 + rng.normal(size=n) * 0.7


def test_universal_integers():
    constant = math.log2(2.865064)
    np.testing.assert_allclose(universal_integer_length([1, 2, 4, 16, 65536]) - constant, [0, 1, 3, 7, 23])
    assert universal_integer_length(2, base=math.e) == pytest.approx(universal_integer_length(2) * math.log(2))
    # Kraft with equality: the sum below 2^16, and the integral above it, where each further logarithm costs a factor ln 2.
    below = (2.0 ** -universal_integer_length(np.arange(1, 65536))).sum()
    above = math.log(2) ** 5 / (1 - math.log(2)) / 2.865064
    assert below + above == pytest.approx(1, abs=1e-4)


def test_two_part_length():
    assert two_part_length(100.0, 3, 256) == 100 + 3 * 4
    assert two_part_length(100.0, 3, 256, base=math.e) == pytest.approx(100 + 1.5 * math.log(256))
    np.testing.assert_allclose(two_part_length([10.0, 20.0], [0, 2], 4), [10, 22])


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6))
def test_empirical_length_is_n_times_entropy(counts):
    n = sum(counts)
    expected = n * entropy(np.array(counts) / n) if n else 0.0
    assert empirical_length(counts) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n, m", [(6, 2), (4, 3)])
def test_kt_is_a_code(n, m):
    """Over all sequences of one length, 2^-length sums to one."""
    counts = [np.bincount(s, minlength=m) for s in itertools.product(range(m), repeat=n)]
    assert (2.0 ** -kt_length(counts)).sum() == pytest.approx(1)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 1000))
def test_kt_predictions_multiply_to_the_kt_length(symbols, seed):
    symbols = np.array(symbols)
    contexts = np.random.default_rng(seed).integers(0, 4, size=len(symbols)) * 3  # gaps: some contexts never occur
    table = kt_probabilities(symbols, contexts, alphabet=3)
    np.testing.assert_allclose(table.sum(1), 1)
    spent = -np.log2(table[np.arange(len(symbols)), symbols]).sum()
    counts = [np.bincount(symbols[contexts == c], minlength=3) for c in range(12)]
    assert spent == pytest.approx(kt_length(counts).sum())


def test_kt_predictions_by_a_plain_loop():
    rng = np.random.default_rng(0)
    symbols, contexts = rng.integers(0, 2, 200), rng.integers(0, 5, 200)
    counts = np.zeros((5, 2))
    for s, c, row in zip(symbols, contexts, kt_probabilities(symbols, contexts)):
        np.testing.assert_allclose(row, (counts[c] + 0.5) / (counts[c].sum() + 1))
        counts[c, s] += 1


def test_kt_is_the_jeffreys_mixture_and_costs_half_a_log_n():
    jeffreys = quad(lambda t: t**2.5 * (1 - t) ** 6.5 / math.pi, 0, 1)[0]  # heads 3, tails 7
    assert kt_length([7, 3], base=math.e) == pytest.approx(-math.log(jeffreys))
    for n in (100, 10_000):
        counts = np.array([0.3, 0.7]) * n
        regret = kt_length(counts) - empirical_length(counts)
        assert regret == pytest.approx(0.5 * math.log2(n) + 0.5 * math.log2(math.pi / 2), abs=1.0 / math.sqrt(n))
    worst = max(kt_length([a, 1000 - a]) - empirical_length([a, 1000 - a]) for a in range(1001))
    assert worst <= 0.5 * math.log2(1000) + 1  # Krichevsky and Trofimov's bound for every sequence


@pytest.mark.parametrize("seed", range(3))
def test_evidence_is_the_gaussian_density(seed):
    features, targets = regression(seed=seed)
    covariance = 2.0 * features @ features.T + 0.5 * np.eye(len(targets))
    expected = -multivariate_normal(np.zeros(len(targets)), covariance).logpdf(targets)
    assert linear_evidence_length(features, targets, 0.5, 2.0, base=math.e) == pytest.approx(expected)


def test_prequential_bayes_is_the_evidence_and_plug_in_pays_more():
    features, targets = regression(n=200)
    bayes = prequential_linear_lengths(features, targets, 0.5, 2.0)
    plug_in = prequential_linear_lengths(features, targets, 0.5, 2.0, plug_in=True)
    assert bayes.sum() == pytest.approx(linear_evidence_length(features, targets, 0.5, 2.0))
    assert plug_in.sum() > bayes.sum()
    first = -norm(0, math.sqrt(0.5 + 2.0 * (features[0] ** 2).sum())).logpdf(targets[0])
    assert bayes[0] == pytest.approx(first / math.log(2))
    changed = np.where(np.arange(200) > 50, targets + 9, targets)  # later targets cannot change earlier prices
    np.testing.assert_array_equal(prequential_linear_lengths(features, changed, 0.5, 2.0)[:51], bayes[:51])


def test_bits_back_ledger():
    """With q the exact posterior every draw nets -log p(D); with any other q the mean net is the formula, and no less."""
    features, targets = regression()
    noise, prior, k = 0.5, 2.0, 4
    precision = features.T @ features / noise + np.eye(k) / prior
    exact = np.linalg.solve(precision, features.T @ targets) / noise, np.linalg.inv(precision)
    evidence = linear_evidence_length(features, targets, noise, prior)
    for (mean, cov), is_exact in ((exact, True), ((exact[0] + 0.2, np.diag(0.1 * np.ones(k))), False)):
        q = multivariate_normal(mean, cov)
        w = q.rvs(20_000, random_state=0)
        nll = -norm(0, math.sqrt(noise)).logpdf(targets - w @ features.T).sum(1)
        ledger = bits_back_ledger(nll, norm(0, math.sqrt(prior)).logpdf(w).sum(1), q.logpdf(w))
        np.testing.assert_allclose(ledger.net, ledger.weights + ledger.data - ledger.returned)
        if is_exact:
            np.testing.assert_allclose(ledger.net, evidence)
        else:
            fit = ((targets - features @ mean) ** 2).sum() + np.trace(features @ cov @ features.T)
            expected_nll = (len(targets) * math.log(2 * math.pi * noise) + fit / noise) / 2 / math.log(2)
            formula = bits_back_length(expected_nll, gaussian_kl(mean, cov, 0.0, prior))
            assert ledger.net.mean() == pytest.approx(formula, abs=5 * ledger.net.std() / math.sqrt(len(w)))
            assert formula == pytest.approx(evidence + gaussian_kl(mean, cov, *exact))


@pytest.mark.parametrize("call, words", [
    (lambda: universal_integer_length(0), "at least 1"),
    (lambda: universal_integer_length(1.5), "whole"),
    (lambda: universal_integer_length(float("nan")), "NaN"),
    (lambda: two_part_length(10.0, -1, 10), "at least 0"),
    (lambda: two_part_length(10.0, 1, 0), "at least 1"),
    (lambda: two_part_length(float("nan"), 1, 10), "NaN"),
    (lambda: two_part_length(np.ones(2), np.ones(3), 10), "broadcast"),
    (lambda: empirical_length([1, -1]), "at least 0"),
    (lambda: empirical_length(3), "axis"),
    (lambda: kt_length([3]), "two symbols"),
    (lambda: kt_length([]), "empty"),
    (lambda: kt_probabilities([0, 2]), "below alphabet"),
    (lambda: kt_probabilities([0, -1]), "at least 0"),
    (lambda: kt_probabilities([0.0, 1.0]), "integers"),
    (lambda: kt_probabilities([]), "empty"),
    (lambda: kt_probabilities([0, 1], [0]), "same shape"),
    (lambda: kt_probabilities([0, 1], alphabet=1), "at least 2"),
    (lambda: linear_evidence_length(np.ones((3, 1)), np.ones(2), 1.0, 1.0), "same length"),
    (lambda: linear_evidence_length(np.ones(3), np.ones(3), 1.0, 1.0), "axes"),
    (lambda: linear_evidence_length(np.ones((3, 1)), np.ones(3), 0.0, 1.0), "positive"),
    (lambda: prequential_linear_lengths(np.ones((3, 1)), np.ones(3) * np.nan, 1.0, 1.0), "NaN"),
    (lambda: prequential_linear_lengths(np.ones((3, 1)), np.ones(3), 1.0, -1.0), "positive"),
    (lambda: bits_back_length(10.0, -1.0), "at least 0"),
    (lambda: bits_back_length(np.ones(2), np.ones(3)), "broadcast"),
    (lambda: bits_back_ledger(np.ones(2), np.ones(3), np.ones(2)), "one shape"),
    (lambda: bits_back_ledger(np.ones(2), np.ones(2), [1.0, float("inf")]), "infinite"),
])
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
