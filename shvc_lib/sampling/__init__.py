"""Coded sampling (relative entropy coding): an index into shared randomness carries a sample of a distribution that only the sender knows."""

from .distributions import Discrete, Gaussian
from .randomness import exponentials, gaussians, uniforms

__all__ = ["Discrete", "Gaussian", "exponentials", "gaussians", "uniforms"]
