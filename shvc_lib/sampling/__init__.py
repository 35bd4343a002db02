"""Coded sampling (relative entropy coding): an index into shared randomness carries a sample of a distribution that only the sender knows.

Sender and receiver know a proposal p (a prior) and a seed, and with them the same endless list of candidates, each of which can be made alone. The sender also
knows a target q (a posterior). `encode(target, proposal, seed, ...)` chooses candidates so that they are samples of q, exactly or nearly, and returns
their indices; `decode(index, proposal, seed, ...)` looks up the candidates that the indices name, and no others. KL[q || p] bits are what a sample is worth.

| module | the sample is | one index for | candidates looked at | an index costs |
| --- | --- | --- | --- | --- |
| `rejection` | exact | a dimension | max q / p | KL + 2 log2(KL + 1) + O(1) |
| `importance`, `groups` | biased, less with every extra bit t | a block | 2^(KL + t) | KL + t |
| `ordered` | as biased, or exact (Poisson functional representation) | a block | 2^(KL + t), or max q / p | KL + log2(KL + 1) + 4 |
| `poisson` | exact | a dimension | O(KL) | KL + log2(KL + 1) + O(1) |
| `dither` | exact, for noise around a mean | a dimension | 1 | depends on the proposal's mass there |
| `greedy` | biased | a vector, in shards | shards times 2^bits | shards times bits |
| `composite` | groups above, greedy below | | | |
| `tree` | biased, less with every survivor | a whole vector, in chains | survivors times 2^split, for each dimension | 1.06 KL, as measured |

| in the papers | here |
| --- | --- |
| q(z given x), Q (Algorithms 2, 3, 5), P (Algorithms 1, 4) | `target` |
| p(z), the other one of P and Q | `proposal` |
| x_i ~ P | `proposal.quantile(uniforms(seed, stream, i))`; stream: one per dimension |
| KL[q, p], D_infinity | `target.kl(proposal)` in bits; `target.max_log_ratio(proposal)` in nats |
| r(x) = q(x) / p(x), w | exp(`target.log_density(x) - proposal.log_density(x)`) |
| B (bits of a budget), G, K | `bits`, `budget`, `most`, `outlier` |
| t | `extra_bits` |
| I, the MIRACLE index | the index, from 0; `index_codes` for what it costs in a file |
"""

from . import composite, dither, greedy, groups, importance, index_codes, ordered, poisson, rejection, tree
from .distributions import Discrete, Gaussian
from .randomness import exponentials, gaussians, uniform_rows, uniforms

__all__ = ["Discrete", "Gaussian", "composite", "dither", "exponentials", "gaussians", "greedy", "groups", "importance", "index_codes", "ordered", "poisson",
           "rejection", "tree", "uniform_rows", "uniforms"]
