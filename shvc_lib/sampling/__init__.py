"""Coded sampling (relative entropy coding): an index into shared randomness carries a sample of a distribution that only the sender knows."""

from . import index_codes, rejection
from .distributions import Discrete, Gaussian
from .randomness import exponentials, gaussians, uniform_rows, uniforms

__all__ = ["Discrete", "Gaussian", "exponentials", "gaussians", "index_codes", "rejection", "uniform_rows", "uniforms"]
