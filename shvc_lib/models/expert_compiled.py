"""What is added up for every pixel under every expert of `shvc-photo`, compiled. Used for images with enough pixels to be worth it."""

from ..coding.compiled import compiled


@compiled(nogil=True)
def add_log_masses(symbols, means, scales, rows, columns, table, tails, shifts, nats):
    """As `expert_shvc.add_log_masses`."""
    for i in range(rows.size):
        for j in range(columns.size):
            symbol, to = 16 * symbols[i, j], nats[rows[i], columns[j]]
            end = symbol == 0 or symbol == 16 * 255
            for k in range(means.shape[1]):
                scale, away = scales[i, k, j], symbol - means[i, k, j]
                if end:
                    beyond = (away if symbol == 0 else -away) >> shifts[scale]
                    to[k] += tails[scale, min(max(beyond + table.shape[1], 0), 2 * table.shape[1] - 1)]
                else:
                    to[k] += table[scale, min(abs(away) >> shifts[scale], table.shape[1] - 1)]
