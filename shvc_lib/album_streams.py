"""What is in an album's streams: groups of images, one or several, coded side by side and by several processes.

Every group has a stack of its own, which starts with a checksum in its head (see `album`), so batches and processes leave no trace in the bytes. A group that
would take more than its pixels is stored as these. There are three kinds of groups: a single image, by a network that needs no initial bits; a chain, by
bits-back (`models.shvc_chain`); and a pile, of one image or several, by a network that draws nothing (`album_pile`). Taught in chapters 6 and 7.
"""

import signal
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import lru_cache
from math import prod
from multiprocessing import get_context
from zlib import crc32

import numpy as np

from .coding import BitStack
from .coding.checks import integer
from .coding.lanes import Lanes
from .errors import CorruptFile, InvalidInput, OutOfBits, ShvcError, UnknownModel

NETWORK = "shvc-cifar10"  # of piles
FIRST, CHAINED = "shvc-arib-cifar10", "shvc-lite-cifar10"  # of the first image of a chain, and of its others
BATCH, BATCH_PIXELS = 32, 1 << 17  # groups that the networks see at once, at most, and pixels of an image in each


@lru_cache(maxsize=4)
def network(name, first=True):
    """(the exact twin, its revision). Raises UnknownModel, and InvalidInput if it cannot code what it is for: first, an image on an empty stack."""
    from . import zoo  # with torch

    choose = f"choose {NETWORK} or {FIRST}, and for the others of a chain {CHAINED}"
    try:
        twin = zoo.load(name)
    except UnknownModel:
        raise UnknownModel(f"no network for albums is called {name!r}: {choose}") from None
    if not hasattr(twin, "split"):
        raise InvalidInput(f"{name} is no network for albums: {choose}")
    if first and twin.split == twin.ks[0]**2 and not twin.deterministic:
        raise InvalidInput(f"{name} needs initial bits, which single images do not have: choose {NETWORK}, or one with ArIB")
    if not first and (twin.split < twin.ks[0]**2 or twin.deterministic):
        raise InvalidInput(f"{name} is no network for the others of a group: choose one of plain SHVC, {CHAINED} for example")
    return twin, int(zoo.card(name)["sha256"][:4], 16)


def _start(pixels):
    """An empty stack but for the checksum in its head."""
    return BitStack.from_bytes(crc32(pixels).to_bytes(4, "little") + b"\x01")


def piled(name):
    """Whether groups are piles under this network. Raises what `network` raises."""
    return getattr(network(name)[0], "turns", False)


def _coder(names, shape, pile):
    """(push, pop) of groups of images: push(stacks, groups), pop(stacks, counts, lowest) -> the images lowest[g] ... counts[g] - 1 of each group."""
    from . import album_pile
    from .models import shvc_chain

    if len(names) == 2:
        chain = shvc_chain.Chain(network(names[0])[0], network(names[1], False)[0], shape)
        return chain.push_groups, chain.pop_groups
    twin = network(*names)[0]
    if pile:
        own = album_pile.Pile(twin, shape)
        return own.push_groups, own.pop_groups

    def codec(count):
        return shvc_chain.any_size(twin, (count, *shape))

    return (lambda stacks, groups: codec(len(stacks)).push(Lanes(stacks), np.concatenate(groups)),
            lambda stacks, counts, lowest: list(codec(len(stacks)).pop(Lanes(stacks))[:, None]))


def streams_of(names, shape, pile, groups):
    """The streams of groups of images, arrays (n, H, W, 3): a list of bytes. pile: whether groups are piles."""
    stacks = [_start(group) for group in groups]
    _coder(names, shape, pile)[0](stacks, groups)
    streams = [stack.to_bytes() for stack in stacks]
    return [stream if len(stream) < group.nbytes + 4 else group.tobytes() + crc32(group).to_bytes(4, "little") for stream, group in zip(streams, groups)]


def images_of(names, shape, pile, streams, counts, lowest):
    """The inverse of `streams_of`: of each group the images lowest[g] ... counts[g] - 1, a list of uint8 (n, H, W, 3). Raises CorruptFile."""
    groups, coded = [None] * len(streams), []
    for g, stream in enumerate(streams):
        pixels = counts[g] * prod(shape)
        if len(stream) != pixels + 4:
            coded.append(g)
            continue
        if stream[pixels:] != crc32(stream[:pixels]).to_bytes(4, "little"):
            raise CorruptFile("stored pixels do not match their checksum: the album is damaged")
        groups[g] = np.frombuffer(stream, np.uint8, pixels).reshape(counts[g], *shape)[lowest[g]:]
    if coded:
        try:
            stacks = [BitStack.from_bytes(streams[g]) for g in coded]
            for g, images in zip(coded, _coder(names, shape, pile)[1](stacks, [counts[g] for g in coded], [lowest[g] for g in coded])):
                groups[g] = images
        except (OutOfBits, InvalidInput, CorruptFile) as error:
            raise CorruptFile(f"a stream cannot be decoded, the album is damaged ({error})") from None
        if any(lowest[g] == 0 and stack != _start(np.ascontiguousarray(groups[g])) for g, stack in zip(coded, stacks)):
            raise CorruptFile("an image does not match its checksum: the album is damaged")
    return groups


def _begin():
    """In a new process: one thread, and Ctrl-C, which reaches all processes, ends it without a word; the first one has said what there is to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)


def batch_size(shape):
    """How many groups of images of `shape` are coded side by side."""
    return max(1, min(BATCH, BATCH_PIXELS // (shape[0] * shape[1])))


def in_batches(function, fixed, lists, shape, workers):
    """The lists that function(*fixed, *parts) returns for batches of the groups in `lists` (and of what there is about them), joined; by `workers` processes
    when there is more than one."""
    count, workers = len(lists[0]), integer("workers", workers, 1)
    batch = min(batch_size(shape), -(-count // workers))
    arguments = [(*fixed, *(own[k:k + batch] for own in lists)) for k in range(0, count, batch)]
    if min(workers, len(arguments)) < 2:
        return [item for own in arguments for item in function(*own)]
    try:
        with ProcessPoolExecutor(min(workers, len(arguments)), mp_context=get_context("spawn"), initializer=_begin) as pool:
            return [item for part in pool.map(function, *zip(*arguments)) for item in part]
    except BrokenExecutor:
        raise ShvcError(f"one of {workers} processes ended before its work did, perhaps for want of memory: try fewer workers") from None
