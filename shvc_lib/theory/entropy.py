"""Entropy and its relatives: what a symbol costs, and what a wrong model or a known neighbour changes.

A symbol of probability p costs -log p. Everything here is an average of that price: the entropy under the true
distribution, the cross-entropy when the code was built for another one, the Kullback-Leibler divergence between the
two, and the mutual information that a second variable saves. Shannon (1948); Cover and Thomas (2006), chapters 2 and 8;
thesis of Flamich (2019), section 1.5. Taught in chapter 1, "Codes" and "Rate and distortion".

Every function takes `base`: 2 gives bits (the default), `math.e` gives nats. Symbols of probability zero cost nothing
(0 log 0 = 0), and a model that excludes a symbol that does occur costs infinitely much.
"""

import math

import numpy as np
from scipy.special import entr, rel_entr, xlogy

from ..errors import InvalidInput
from ._checks import distribution, log_base, number_or_array, real, together, whole


def entropy(p, base=2):
    """H[p] = -sum p log p of discrete distributions. Cover and Thomas, eq. 2.1.

    p: (..., n), nonnegative, each row along the last axis sums to one. Returns a float for one distribution and an array
    of shape (...) for several, in bits (or in units of `base`). Raises InvalidInput.
    """
    unit = log_base(base)
    return number_or_array(entr(distribution(p)).sum(-1) / unit)


def binary_entropy(p, base=2):
    """h(p) = -p log p - (1-p) log(1-p), the entropy of a coin. p: probabilities of any shape. Raises InvalidInput."""
    unit = log_base(base)
    p = real(p, "p", minimum=0.0)
    if p.max() > 1:
        raise InvalidInput(f"p must be at most 1, but contains {p.max():g}")
    return number_or_array((entr(p) + entr(1 - p)) / unit)


def cross_entropy(p, q, base=2):
    """-sum p log q: the mean price of symbols from p under a code built for q. It is entropy(p) + kl(p, q).

    p, q: (..., n), each row sums to one; the leading axes broadcast. Infinite where q = 0 < p. Raises InvalidInput.
    """
    unit, (p, q) = log_base(base), _pair(p, q)
    return number_or_array(0.0 - xlogy(p, q).sum(-1) / unit)


def kl(p, q, base=2):
    """KL[p || q] = sum p log(p/q) >= 0: what coding p with a code built for q wastes. Cover and Thomas, eq. 2.26.

    p, q: (..., n), each row sums to one; the leading axes broadcast. Infinite where q = 0 < p. Raises InvalidInput.
    """
    unit, (p, q) = log_base(base), _pair(p, q)
    return number_or_array(np.maximum(rel_entr(p, q).sum(-1), 0.0) / unit)  # rounding may leave -1e-17


def mutual_information(joint, base=2):
    """I[X : Y] = KL[p(x, y) || p(x) p(y)]: what knowing one variable saves in coding the other.

    joint: (n, m), nonnegative, sums to one. Returns a float. Raises InvalidInput.
    """
    unit = log_base(base)
    joint = distribution(joint, "joint", ndim=2, axes=(-2, -1))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float(max(rel_entr(joint, independent).sum(), 0.0) / unit)


def gaussian_entropy(cov, base=2):
    """Differential entropy of a Gaussian, log((2 pi e)^n det cov) / 2. Cover and Thomas, theorem 8.4.1.

    cov: one variance, n variances of independent coordinates, or an (n, n) covariance matrix. Returns a float, which may
    be negative: a density can exceed one. Add -log(d) per coordinate for the price at resolution d. Raises InvalidInput.
    """
    unit = log_base(base)
    cov = _covariance(cov, "cov")
    return float((max(len(np.atleast_1d(cov)), 1) * math.log(2 * math.pi * math.e) + _logdet(cov)) / 2 / unit)


def gaussian_kl(mean_q, cov_q, mean_p, cov_p, base=2):
    """KL[N(mean_q, cov_q) || N(mean_p, cov_p)].

    Means: a number or (n,). Covariances: one variance for every coordinate, n variances of independent coordinates, or an
    (n, n) matrix. Numbers broadcast to the n of the other arguments. Returns a float. Raises InvalidInput.
    """
    unit = log_base(base)
    means = [real(m, name, ndim=(0, 1)) for m, name in ((mean_q, "mean_q"), (mean_p, "mean_p"))]
    covs = [_covariance(c, name) for c, name in ((cov_q, "cov_q"), (cov_p, "cov_p"))]
    sizes = {len(x) for x in (*means, *covs) if x.ndim}
    if len(sizes) > 1:
        raise InvalidInput(f"means and covariances disagree about the number of coordinates: {sorted(sizes)}")
    n = sizes.pop() if sizes else 1
    shift = np.broadcast_to(means[0] - means[1], n)
    cov_q, cov_p = (c if c.ndim == 2 else np.broadcast_to(c, n) for c in covs)
    if cov_q.ndim == cov_p.ndim == 1:  # independent coordinates: no matrix of a million weights is ever built
        spread = (cov_q / cov_p).sum() + (shift**2 / cov_p).sum()
    else:
        matrix_q, matrix_p = (c if c.ndim == 2 else np.diag(c) for c in (cov_q, cov_p))
        spread = np.trace(np.linalg.solve(matrix_p, matrix_q)) + shift @ np.linalg.solve(matrix_p, shift)
    return float(max((spread - n + _logdet(cov_p) - _logdet(cov_q)) / 2, 0.0) / unit)


def gaussian_mutual_information(cov, split, base=2):
    """I between the first `split` coordinates of a Gaussian vector and the others: log(det A det B / det cov) / 2.

    cov: (n, n) covariance matrix, 1 <= split < n. Returns a float. Raises InvalidInput.
    """
    unit = log_base(base)
    cov = _covariance(real(cov, "cov", ndim=2), "cov")
    split = whole(split, "split", minimum=1)
    if split >= len(cov):
        raise InvalidInput(f"split must leave a coordinate on each side of {len(cov)}, not {split}")
    return float(max(_logdet(cov[:split, :split]) + _logdet(cov[split:, split:]) - _logdet(cov), 0.0) / 2 / unit)


def _pair(p, q):
    p, q = distribution(p, "p"), distribution(q, "q")
    if p.shape[-1] != q.shape[-1]:
        raise InvalidInput(f"p and q must have the same number of symbols, not {p.shape[-1]} and {q.shape[-1]}")
    return together(p=p, q=q)


def _covariance(cov, name):
    """One variance, a vector of variances or a positive definite matrix, checked."""
    cov = real(cov, name, ndim=(0, 1, 2))
    if cov.ndim < 2:
        if cov.min() <= 0:
            raise InvalidInput(f"{name} must be positive, but contains {cov.min():g}")
        return cov
    if cov.shape[0] != cov.shape[1] or not np.allclose(cov, cov.T, rtol=1e-9, atol=1e-12 * np.abs(cov).max()):
        raise InvalidInput(f"{name} must be a symmetric square matrix")
    try:
        np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        raise InvalidInput(f"{name} must be positive definite") from None
    return cov


def _logdet(cov):
    return np.linalg.slogdet(cov)[1] if cov.ndim == 2 else np.log(cov).sum()
