"""What is done for every pixel under every expert of `shvc-photo`, compiled. Used for images with enough pixels to be worth it."""

import numpy as np

from ..coding import tables
from ..coding.compiled import compiled
from ..coding.rans import TOTAL
from ..coding.tables import MARGIN, MEAN_STEPS, ROW, ROW_SIZE


def add_log_masses(symbols, means, scales, rows, columns, logs, nats):
    """As `expert_shvc.add_log_masses`, with the table of logarithms."""
    _add(np.asarray(symbols, dtype=np.int32), means, scales, rows, columns, logs, tables.row_table("logistic", TOTAL - ROW_SIZE), nats)


@compiled(nogil=True)
def _add(symbols, means, scales, rows, columns, logs, table, nats):
    for i in range(rows.size):
        for j in range(columns.size):
            symbol, to = symbols[i, j], nats[rows[i], columns[j]]
            for k in range(means.shape[1]):
                mean = min(max(means[i, k, j], -MARGIN * MEAN_STEPS), (ROW_SIZE + MARGIN) * MEAN_STEPS - MEAN_STEPS) + MEAN_STEPS // 2
                at = (scales[i, k, j] * MEAN_STEPS + mean % MEAN_STEPS) * ROW + ROW_SIZE + MARGIN - mean // MEAN_STEPS + symbol
                low = table[at] if symbol > 0 else 0
                high = table[at + 1] + 1 if symbol < ROW_SIZE - 1 else TOTAL - symbol
                mass = high - low
                if mass >= 1 << 19:
                    to[k] += logs[mass >> 10] + 2 * logs[32]
                elif mass >= 1 << 14:
                    to[k] += logs[mass >> 5] + logs[32]
                else:
                    to[k] += logs[mass]
