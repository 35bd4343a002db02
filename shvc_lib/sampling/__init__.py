"""Coded sampling (relative entropy coding): an index into shared randomness carries a sample of a distribution that only the sender knows."""

from . import composite, dither, greedy, groups, importance, index_codes, ordered, poisson, rejection
from .distributions import Discrete, Gaussian
from .randomness import exponentials, gaussians, uniform_rows, uniforms

__all__ = ["Discrete", "Gaussian", "composite", "dither", "exponentials", "gaussians", "greedy", "groups", "importance", "index_codes", "ordered", "poisson",
           "rejection", "uniform_rows", "uniforms"]
