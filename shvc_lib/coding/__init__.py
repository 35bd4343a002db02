"""Entropy coding with integer models: ANS as a stack of bits, integer CDFs, and codecs built from them.

Paper symbol -> name in code: P(x) = freq / 2^24 -> `IntegerCDF.intervals`; -log2 P(x) -> `bits`; ANS state -> `head`, `tail`;
mu, s, pi of a (mixture of) discretised logistic(s) -> `means`, `scales`, `weights`; p(x_i | x_<i) -> a generator for `autoregressive`.
Nothing here knows torch: a model hands over integers.
"""

from .ahead import Ahead
from .bins import Bins, binned_posterior, binned_prior, equal_mass_bins, uniform_bins
from .bitstack import BitStack
from .cdf import Categorical, IntegerCDF, Uniform, quantize
from .codec import Codec, autoregressive, independent, sequence
from .discretized import DiscretizedMixture, gaussian, laplace, logistic, logistic_mixture
from .rans import PRECISION, RANS, TOTAL
from .tables import mean_index, scale_index, weight_index

__all__ = ["Ahead", "Bins", "BitStack", "Categorical", "Codec", "DiscretizedMixture", "IntegerCDF", "PRECISION", "RANS", "TOTAL", "Uniform",
           "autoregressive", "binned_posterior", "binned_prior", "equal_mass_bins", "gaussian", "independent", "laplace", "logistic",
           "logistic_mixture", "mean_index", "quantize", "scale_index", "sequence", "uniform_bins", "weight_index"]
