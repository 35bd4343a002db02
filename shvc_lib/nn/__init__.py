"""Pieces of networks: distributions to train with, their integer parameters, and networks whose arithmetic is exact.

Paper symbol -> name in code: log p(x | z), log q(z | x), in nats -> `logistic_log_mass`, `mixture_log_mass`; mu, log s -> `means`, `log_scales`;
pi -> softmax of `logits`; bin width b of a latent -> `width`; round(z / b) * b -> `round_to_grid`; z ~ q(z | x) -> `sample_logistic`.
Integers for `coding`: mu, log s, pi -> `exact_means`, `exact_scales`, `exact_weights`; q(z | x) -> `logistic_window`.
w_i / (beta_i + sum_j gamma_ij w_j^2)^(1/2), and its inverse -> `GDN`; beta, gamma -> the squares of `root_beta`, `root_gamma`.
"""

from .distributions import logistic_log_mass, mixture_log_mass, round_to_grid, sample_logistic, with_floor
from .exact import arithmetic, load_exact, save_exact, to_exact
from .exact_layer import ExactLayer, exact_kernels
from .gdn import GDN
from .partly_exact import load_partly_exact, save_partly_exact
from .parameters import exact_means, exact_scales, exact_weights, float_twin, logistic_window, relative_mixture, to_integers

__all__ = ["ExactLayer", "GDN", "arithmetic", "exact_kernels", "exact_means", "exact_scales", "exact_weights", "float_twin", "load_exact",
           "load_partly_exact", "logistic_log_mass", "logistic_window", "mixture_log_mass", "relative_mixture", "round_to_grid", "sample_logistic", "save_exact",
           "save_partly_exact", "to_exact", "to_integers", "with_floor"]
