"""Closed forms and small algorithms of information theory: entropy, rate-distortion, description length.

This is the ground floor: numpy and scipy only, no images and no coder. The functions answer "how many bits at least?";
`shvc_lib.coding` then spends them.

Paper symbol -> name in code (Cover and Thomas 2006; Flamich 2019, chapter 1):

| symbol | in code | unit |
| --- | --- | --- |
| H[X], h(p) | `entropy`, `binary_entropy` | bits, or units of `base` |
| H[X], differential | `gaussian_entropy` | the same, at resolution 1 |
| -E_p log q | `cross_entropy` | |
| KL[q \\|\\| p] | `kl`, `gaussian_kl` (q first, as printed) | |
| I[X : Y] | `mutual_information`, `gaussian_mutual_information` | |
| R(D), D(R) | `bernoulli_rd`, `gaussian_rd`, `gaussian_dr` | bits per symbol; D in units of the distortion |
| lambda (water level) | `WaterFilling.water_level` | squared error |
| -dR/dD, the trade-off | `slope` of `blahut_arimoto`, `rd_curve` | bits per unit of distortion |
| d(x, y), q(y given x), q(y) | `distortion`, `RDPoint.conditional`, `RDPoint.marginal` | |
| L(H) + L(D given H) | `two_part_length`, `empirical_length`, `universal_integer_length` | |
| E_q[-log p(D given w)] + KL[q \\|\\| p] | `bits_back_length`, `bits_back_ledger` | |
| -log p(x_t given x_1 ... x_{t-1}) | `kt_probabilities`, `kt_length`, `prequential_linear_lengths` | |
"""

from .entropy import (binary_entropy, cross_entropy, entropy, gaussian_entropy, gaussian_kl, gaussian_mutual_information, kl,
                      mutual_information)
from .mdl import (Ledger, bits_back_ledger, bits_back_length, empirical_length, kt_length, kt_probabilities,
                  linear_evidence_length, prequential_linear_lengths, two_part_length, universal_integer_length)
from .rate_distortion import (RDPoint, WaterFilling, bernoulli_rd, blahut_arimoto, gaussian_dr, gaussian_rd, rd_curve,
                              reverse_water_filling)

__all__ = [
    "binary_entropy", "cross_entropy", "entropy", "gaussian_entropy", "gaussian_kl", "gaussian_mutual_information", "kl",
    "mutual_information",
    "RDPoint", "WaterFilling", "bernoulli_rd", "blahut_arimoto", "gaussian_dr", "gaussian_rd", "rd_curve",
    "reverse_water_filling",
    "Ledger", "bits_back_ledger", "bits_back_length", "empirical_length", "kt_length", "kt_probabilities",
    "linear_evidence_length", "prequential_linear_lengths", "two_part_length", "universal_integer_length",
]
