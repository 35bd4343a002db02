"""Chained SHVC that needs no initial bits: the first image of a group is coded with ArIB, and what it leaves lends to the others.

Bits-back coding of a group costs its net and, once, the initial bits of its first image (chapter 2). An ArIB network codes that one for a little more than
its net and borrows from itself (chapter 6). From the second image on, a network of plain SHVC pops its latents from what lies on the stack.

Nothing says that enough lies there: a black image takes few bits and lends no more. So every image has a mode, a symbol pushed on top of it, at 0.02 bits
where it is the usual one:

| mode | the image is coded |
| --- | --- |
| 0 | by bits-back under the network of plain SHVC, wherever the stack holds enough |
| 1 | by the ArIB network, which works on any stack: the first image of a group, and those for which the stack is too short |
| 2 | as its pixels, 8 bits each: noise, and images so small that padding outweighs them |

Groups lie side by side, each on a stack of its own (`coding.lanes`), and what a stack holds does not depend on its neighbours. Sizes that a network does not
take are padded by repeating the last row and column. Taught in chapter 7.
"""

import math
from contextlib import nullcontext

import numpy as np

from ..coding.arib import _overdraft
from ..coding.bits_back import push_chain
from ..coding.cdf import Categorical, Uniform
from ..coding.codec import Codec, independent
from ..coding.lanes import Lanes
from ..coding.rans import TOTAL
from ..errors import CorruptFile
from .shvc_codec import codec

BITS_BACK, ARIB, PIXELS = range(3)
_RARE = TOTAL >> 7
_FIRST = Categorical(np.array([TOTAL - _RARE, _RARE]), lower=ARIB)  # modes of a group's first image
_LATER = Categorical(np.array([TOTAL - 2 * _RARE, _RARE, _RARE]))


def any_size(twin, shape):
    """Codec of batches of uint8 images of `shape`, (B, H, W, 3), over `Lanes`, of any height and width from 1 on.

    pop raises what `shvc_codec.codec` raises, and CorruptFile when what was cut off does not repeat the edge."""
    rows, columns = (-side % twin.unit for side in shape[1:3])
    inner = codec(twin, (shape[0], shape[1] + rows, shape[2] + columns, 3))

    def grown(images):
        return np.pad(images, ((0, 0), (0, rows), (0, columns), (0, 0)), "edge")

    def pop(stack):
        whole = inner.pop(stack)
        images = np.ascontiguousarray(whole[:, :shape[1], :shape[2]])
        if not np.array_equal(grown(images), whole):
            raise CorruptFile("the padding of an image does not repeat its edge: the stream is damaged")
        return images

    return Codec(lambda stack, images: inner.push(stack, grown(images)), pop, lambda images: inner.bits(grown(images)))


def _pixels(shape):
    """Codec of the batch as it is."""
    inner = independent(Uniform(256), math.prod(shape))
    return Codec(inner.push, lambda stack: inner.pop(stack).reshape(shape).astype(np.uint8), inner.bits)


class Groups:
    """Groups of images, a BitStack for each: what a class with `push(stacks, images, first)` and `pop(stacks, first)` does with an image of each, done with
    all."""

    def push_groups(self, stacks, groups):
        """Push groups[g], uint8 (n_g, H, W, 3), onto stacks[g], from its first image to its last; all groups take a step at the same time.
        Returns what `push` says of the images, a list of int32 (n_g,)."""
        modes = [np.empty(len(group), dtype=np.int32) for group in groups]
        for step in range(max(map(len, groups))):
            active = [g for g, group in enumerate(groups) if step < len(group)]
            for g, mode in zip(active, self.push([stacks[g] for g in active], np.stack([groups[g][step] for g in active]), step == 0)):
                modes[g][step] = mode
        return modes

    def pop_groups(self, stacks, counts, lowest):
        """From group g, which has counts[g] images, those from the last down to lowest[g]: a list of uint8 (counts[g] - lowest[g], H, W, 3), in the order
        in which they were pushed. Raises as `pop` does."""
        groups = [[] for _ in stacks]
        for step in reversed(range(max(counts))):
            active = [g for g, count in enumerate(counts) if lowest[g] <= step < count]
            if active:
                for g, image in zip(active, self.pop([stacks[g] for g in active], step == 0)):
                    groups[g].append(image)
        return [np.stack(group[::-1]) for group in groups]


class Chain(Groups):
    """Groups of uint8 images of `shape`, (H, W, 3), a BitStack for each. arib, plain: exact twins, the first with a split and the other without."""

    def __init__(self, arib, plain, shape):
        self.twins, self.shape = {ARIB: arib, BITS_BACK: plain}, tuple(shape)

    def _codec(self, mode, count):
        shape = (count, *self.shape)
        return _pixels(shape) if mode == PIXELS else any_size(self.twins[mode], shape)

    def _try(self, mode, lanes, images):
        """Push an image onto each lane; those that were too short for it, or on which it took more than its pixels, are restored. bool (lanes,): which."""
        before = lanes.copy()
        with _overdraft(lanes) if mode == BITS_BACK else nullcontext():  # lanes that are too short do not stop the others
            ledger, = push_chain(self._codec(mode, len(images)), [images], lanes)
        refused = ledger.net > 8 * math.prod(self.shape)
        if mode == BITS_BACK:
            refused |= ledger.initial > before.bits
        for lane in np.flatnonzero(refused):
            lanes.stacks[lane].restore(before.stacks[lane])
        return refused

    def push(self, stacks, images, first):
        """Push images[i] and its mode onto stacks[i]; first: whether they are the first of their groups. Returns the modes, int32 (B,)."""
        modes, left = np.empty(len(images), dtype=np.int32), np.arange(len(images))
        for mode in (ARIB, PIXELS) if first else (BITS_BACK, ARIB, PIXELS):
            if left.size:
                modes[left] = mode
                left = left[self._try(mode, Lanes([stacks[i] for i in left]), images[left])]
        Lanes(stacks).push(modes[:, None], _FIRST if first else _LATER)
        return modes

    def pop(self, stacks, first):
        """The inverse of `push`: uint8 (B, H, W, 3). Raises OutOfBits, InvalidInput or CorruptFile for stacks that no push left."""
        modes = Lanes(stacks).pop(_FIRST if first else _LATER, len(stacks))[:, 0]
        images = np.empty((len(stacks), *self.shape), dtype=np.uint8)
        for mode in np.unique(modes):
            chosen = np.flatnonzero(modes == mode)
            images[chosen] = self._codec(mode, chosen.size).pop(Lanes([stacks[i] for i in chosen]))
        return images
