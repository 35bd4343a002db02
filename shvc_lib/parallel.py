"""The same work for many tiles: by threads of one process, and by the processes that torchrun started.

    torchrun --nproc-per-node 4 -m shvc_lib.cli encode large.png      # four processes, a quarter of the tiles each

Tiles are independent, so who does which changes nothing in the file. Threads are enough on one machine: nearly all of the time goes to numpy and torch, which
let other threads run meanwhile. Where there are fewer tiles than threads, those that are left help with the tiles (`coding.ahead`). Taught in chapter 7.
"""

import atexit
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from tqdm import tqdm

from .coding.ahead import on_threads
from .coding.checks import integer


def available():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank():
    """(number of this process, how many there are) under torchrun, else (0, 1)."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def join(backend="gloo"):
    """Meet the other processes of torchrun. The group is left in order before this process ends: a process that just ends pulls its connections from
    under threads that still serve them, and dies now and then with its work done."""
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group(backend)
        atexit.register(_leave)


def _leave():
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def over(function, items, workers=None, progress=False, around=nullcontext):
    """[function(item) for item in items], where results are bytes, on `workers` threads (None: one for each core).

    Under torchrun every process calls this with the same arguments, does its share and receives all results. progress: show a bar; around: a context to
    be in while several threads run. An error in any item is raised here, after those that have begun.
    """
    own, of = rank()
    mine = list(items)[own::of]
    wanted = available() if workers is None else integer("workers", workers, 1)
    workers = min(wanted, max(len(mine), 1))
    bar = tqdm(total=len(mine), unit="tile", disable=not progress or own > 0, leave=False)

    def one(item):
        with on_threads(wanted // workers):
            result = function(item)
        bar.update()
        return result

    with around() if workers > 1 else nullcontext(), bar:
        if workers == 1:
            results = [one(item) for item in mine]
        else:
            with ThreadPoolExecutor(workers) as pool:
                results = list(pool.map(one, mine))
    return results if of == 1 else _exchanged(results, len(items), of)


def _exchanged(results, count, of):
    """The results of all processes in the order of the items. Bytes travel as tensors: nothing is unpickled."""
    import torch
    from torch import distributed

    join()
    most = -(-count // of)
    sizes = torch.tensor([len(result) for result in results] + [0] * (most - len(results)))
    all_sizes = [torch.empty_like(sizes) for _ in range(of)]
    distributed.all_gather(all_sizes, sizes)
    room = max(int(own.sum()) for own in all_sizes)
    blob = torch.zeros(room, dtype=torch.uint8)
    joined = b"".join(results)
    blob[:len(joined)] = torch.frombuffer(bytearray(joined) or bytearray(1), dtype=torch.uint8)[:len(joined)]
    blobs = [torch.empty_like(blob) for _ in range(of)]
    distributed.all_gather(blobs, blob)
    ordered = [None] * count
    for process in range(of):
        at, data = 0, blobs[process].numpy().tobytes()
        for k, i in enumerate(range(process, count, of)):
            size = int(all_sizes[process][k])
            ordered[i], at = data[at:at + size], at + size
    return ordered
