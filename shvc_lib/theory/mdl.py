"""Description lengths: what it costs to send data together with the model that explains it.

The minimum description length principle picks the model under which the whole message, model included, is shortest
(Rissanen 1978; Gruenwald 2007; thesis of Flamich 2019, eq. 1.1). The message can be written in three ways, all here:

* two-part: first the parameters, rounded to a sensible precision, then the data given them;
* bits-back: send parameters drawn at random from q and get the random bits back, which leaves
  E_q[-log p(D | w)] + KL[q || p]  (Hinton and van Camp 1993; Flamich eq. 1.2 with its sign turned round);
* prequential: no parameters at all; every symbol is coded with what the symbols before it taught (Rissanen 1984;
  Dawid 1984), for discrete symbols with the estimator of Krichevsky and Trofimov (1981).

Taught in chapter 1, "Description length". Every function takes `base`: 2 gives bits (the default), `math.e` gives nats.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from ..errors import InvalidInput
from ._checks import log_base, number_or_array, real, scalar, together, whole

RISSANEN_CONSTANT = 2.865064  # sum over n >= 1 of 2^(-log2*(n)): makes the lengths of all integers a probability


def universal_integer_length(n, base=2):
    """log*(n) + log c = log n + log log n + ... + log c: Rissanen's (1983) price of an integer n >= 1 of unknown size.

    n: whole numbers >= 1, any shape (floats are taken if they are whole). The iterated logarithm is to base 2 and stops
    before it turns negative; sum_n 2^(-length) = 1. Returns lengths of the same shape. Raises InvalidInput.
    """
    unit = log_base(base) / math.log(2)
    n = real(n, "n", minimum=1.0)
    if (n != np.floor(n)).any():
        raise InvalidInput("n must be whole numbers")
    total, term = np.full(n.shape, math.log2(RISSANEN_CONSTANT)), np.log2(n)
    while (term > 0).any():
        total = total + np.maximum(term, 0.0)
        term = np.log2(np.where(term > 1, term, 1.0))
    return number_or_array(total / unit)


def two_part_length(data_length, parameters, samples, base=2):
    """Rissanen's (1978) two-part length: data_length + (parameters / 2) log(samples).

    A parameter estimated from n samples is uncertain by about 1/sqrt(n), so half of log n is the precision worth sending;
    constants that do not grow with n are left out. data_length: -log p(data | best parameters), in units of `base`;
    parameters >= 0 and samples >= 1: whole numbers. Arguments broadcast. Raises InvalidInput.
    """
    unit = log_base(base)
    data_length, parameters, samples = together(
        data_length=real(data_length, "data_length"), parameters=real(parameters, "parameters", minimum=0.0),
        samples=real(samples, "samples", minimum=1.0))
    return number_or_array(data_length + parameters / 2 * np.log(samples) / unit)


def empirical_length(counts, base=2):
    """The code length of symbols under their own frequencies, n H[counts / n]: the data half of a two-part code.

    counts: (..., m) occurrences of each of m symbols, >= 0. Returns (...); a context never seen costs 0. Raises InvalidInput.
    """
    unit, counts = log_base(base), real(counts, "counts", minimum=0.0)
    if counts.ndim == 0:
        raise InvalidInput("counts must have an axis of symbols")
    n = counts.sum(-1)
    return number_or_array((xlogy(n, n) - xlogy(counts, counts).sum(-1)) / unit)


def kt_length(counts, base=2):
    """The Krichevsky-Trofimov (1981) code length of symbols with these counts, in whatever order they came.

    Coding symbol a with probability (count(a) + 1/2) / (n + m/2) and counting on gives, by the chain rule,
    -log [ Gamma(m/2) / Gamma(n + m/2) * prod_a Gamma(count(a) + 1/2) / Gamma(1/2) ], which is also the Bayesian mixture
    over all distributions under Jeffreys' prior. counts: (..., m), >= 0. Returns (...). Raises InvalidInput.
    """
    unit, counts = log_base(base), real(counts, "counts", minimum=0.0)
    if counts.ndim == 0 or counts.shape[-1] < 2:
        raise InvalidInput(f"counts must have an axis of at least two symbols, not shape {counts.shape}")
    m, n = counts.shape[-1], counts.sum(-1)
    inside = gammaln(counts + 0.5).sum(-1) - m * gammaln(0.5)
    return number_or_array(0.0 + (gammaln(n + m / 2) - gammaln(m / 2) - inside) / unit)


def kt_probabilities(symbols, contexts=None, alphabet=2):
    """The Krichevsky-Trofimov prediction in front of every symbol, from the earlier symbols of the same context.

    symbols: (n,) integers in [0, alphabet). contexts: (n,) integers >= 0, or None for a single context. Returns (n, alphabet)
    float64 rows summing to one; without a Python loop, by counting inside each context. Raises InvalidInput.
    """
    alphabet = whole(alphabet, "alphabet", minimum=2)
    symbols = _labels(symbols, "symbols")
    contexts = np.zeros_like(symbols) if contexts is None else _labels(contexts, "contexts")
    if symbols.max() >= alphabet:
        raise InvalidInput(f"symbols must be below alphabet = {alphabet}, but contain {symbols.max()}")
    if contexts.shape != symbols.shape:
        raise InvalidInput(f"contexts and symbols must have the same shape, not {contexts.shape} and {symbols.shape}")
    order = np.argsort(contexts, kind="stable")  # contexts side by side, time kept inside each
    hits = np.zeros((len(symbols), alphabet))
    hits[np.arange(len(symbols)), symbols[order]] = 1.0
    before = hits.cumsum(0) - hits
    first = np.flatnonzero(np.diff(contexts[order], prepend=-1))  # where each context starts
    lengths = np.diff(first, append=len(symbols))
    before -= np.repeat(before[first], lengths, axis=0)
    probabilities = np.empty_like(before)
    probabilities[order] = (before + 0.5) / (before.sum(1, keepdims=True) + alphabet / 2)
    return probabilities


def linear_evidence_length(features, targets, noise_variance, prior_variance, base=2):
    """-log p(targets | features) of Bayesian linear regression, every weight integrated out.

    targets = features @ w + noise with w ~ N(0, prior_variance) and noise ~ N(0, noise_variance) gives
    targets ~ N(0, prior_variance * features @ features.T + noise_variance). features: (n, k). targets: (n,). Returns a float,
    the length of targets known to a resolution of 1; subtract n log(d) for a resolution d. Raises InvalidInput.
    """
    unit = log_base(base)
    features, targets, noise, prior = _regression(features, targets, noise_variance, prior_variance)
    n, k = features.shape
    # The k x k form (matrix determinant and inversion lemmas): n may be large.
    precision = np.eye(k) / prior + features.T @ features / noise
    mean = np.linalg.solve(precision, features.T @ targets) / noise
    fit = ((targets - features @ mean) ** 2).sum() / noise + (mean**2).sum() / prior
    logdet = np.linalg.slogdet(precision)[1] + k * math.log(prior) + n * math.log(noise)
    return float((n * math.log(2 * math.pi) + logdet + fit) / 2 / unit)


def prequential_linear_lengths(features, targets, noise_variance, prior_variance, *, plug_in=False, base=2):
    """The price of every target when it is predicted from the targets before it (Dawid 1984; Rissanen 1984).

    Recursive least squares. The Bayesian prediction adds the weights' remaining uncertainty to the noise, and its prices sum
    to `linear_evidence_length` exactly (the chain rule); the plug-in prediction uses the mean weights as if they were known.
    features: (n, k). targets: (n,). Returns (n,) lengths at a resolution of 1. Raises InvalidInput.
    """
    unit = log_base(base)
    features, targets, noise, prior = _regression(features, targets, noise_variance, prior_variance)
    mean, covariance = np.zeros(features.shape[1]), np.eye(features.shape[1]) * prior
    lengths = np.empty(len(targets))
    for t, (x, y) in enumerate(zip(features, targets)):
        direction = covariance @ x
        variance = noise + x @ direction
        surprise = y - x @ mean
        spread = noise if plug_in else variance
        lengths[t] = (math.log(2 * math.pi * spread) + surprise**2 / spread) / 2
        mean = mean + direction * (surprise / variance)
        covariance -= np.outer(direction, direction / variance)
    return lengths / unit


def bits_back_length(expected_nll, kl):
    """E_q[-log p(D | w)] + KL[q || p], the net length of the bits-back message (Hinton and van Camp 1993).

    expected_nll, kl: in the same unit, bits or nats; kl >= 0. Arguments broadcast. Raises InvalidInput.
    """
    expected_nll, kl = together(expected_nll=real(expected_nll, "expected_nll"), kl=real(kl, "kl", minimum=0.0))
    return number_or_array(expected_nll + kl)


@dataclass(frozen=True)
class Ledger:
    """The sender's account of bits-back messages, one entry per drawn w; all in one unit, bits or nats."""

    weights: np.ndarray  # -log p(w): paid to send w under the prior
    data: np.ndarray  # -log p(D | w): paid to send the data given w
    returned: np.ndarray  # -log q(w): the random bits that chose w, which the receiver hands back

    @property
    def net(self):
        return self.weights + self.data - self.returned


def bits_back_ledger(nll, log_prior, log_posterior, base=2):
    """Enter draws w ~ q in the sender's ledger. Averaged over the draws, `net` is E_q[-log p(D | w)] + KL[q || p].

    nll: -log p(D | w). log_prior: log p(w). log_posterior: log q(w). All in nats and of one shape, one entry per draw (log
    densities of a continuous w are taken at the same resolution on both sides, so the resolution cancels). Returns a Ledger in
    units of `base`. Raises InvalidInput.
    """
    unit = log_base(base)
    entries = [real(x, name) / unit for x, name in
               ((nll, "nll"), (log_prior, "log_prior"), (log_posterior, "log_posterior"))]
    if len({x.shape for x in entries}) > 1:
        raise InvalidInput(f"nll, log_prior and log_posterior must have one shape, not {[x.shape for x in entries]}")
    return Ledger(weights=-entries[1], data=entries[0], returned=-entries[2])


def _labels(values, name):
    """Nonnegative integers along one axis."""
    labels = np.asarray(values)
    if labels.size == 0:
        raise InvalidInput(f"{name} is empty")
    if labels.ndim != 1 or labels.dtype.kind not in "bui":
        raise InvalidInput(f"{name} must be integers along one axis, not {labels.dtype} of shape {labels.shape}")
    return real(labels, name, minimum=0.0).astype(np.int64)


def _regression(features, targets, noise_variance, prior_variance):
    features, targets = real(features, "features", ndim=2), real(targets, "targets", ndim=1)
    if len(features) != len(targets):
        raise InvalidInput(f"features and targets must have the same length, not {len(features)} and {len(targets)}")
    return (features, targets, scalar(noise_variance, "noise_variance", positive=True),
            scalar(prior_variance, "prior_variance", positive=True))
