"""Groups of images under a network that draws nothing, one on top of the other.

Where no latents are drawn (`models.subsampled`), nothing is borrowed and nothing is lost, so images can lie on one stack just so: each costs what the network
says. And as a picture is as likely in the mirror, each is coded in whichever of four ways is shortest, of eight if it is square and can be lain on its side, and
two or three bits on top of it say which. A group saves the end of the stack that every image by itself has. Taught in chapter 7.
"""

import numpy as np

from .coding import Uniform
from .coding.lanes import Lanes
from .images import turned
from .models.shvc_chain import Groups, any_size

WAYS = 4  # to mirror an image, see `images.turned`; and as many to mirror a square one that is transposed


def _lain(pixels, way, back=False):
    """Pixels (..., H, W, C) as they are coded in the way of this number, or back."""
    sideways = (lambda values: np.ascontiguousarray(values.swapaxes(-3, -2))) if way >= WAYS else (lambda values: values)
    return sideways(turned(pixels, way % WAYS)) if back else turned(sideways(pixels), way % WAYS)


class Pile(Groups):
    """Groups of uint8 images of `shape`, (H, W, 3), under the exact twin of a SubsampledSHVC."""

    def __init__(self, twin, shape):
        self.twin, self.shape = twin, tuple(shape)
        self.ways = WAYS * (1 + (shape[0] == shape[1]))

    def _codec(self, count):
        return any_size(self.twin, (count, *self.shape))

    def push(self, stacks, images, first=False):
        """Push images[i] onto stacks[i], and how it is mirrored. Returns that, int32 (B,); `first` makes no difference."""
        before, least, ways = Lanes(stacks).copy(), np.full(len(stacks), np.iinfo(np.int64).max), np.zeros(len(stacks), dtype=np.int32)
        for way in range(self.ways):
            lanes = before.copy()
            self._codec(len(stacks)).push(lanes, _lain(images, way))
            bits = lanes.bits
            for i in np.flatnonzero(bits < least):
                stacks[i].restore(lanes.stacks[i])
                least[i], ways[i] = bits[i], way
        Lanes(stacks).push(ways[:, None], Uniform(self.ways))
        return ways

    def pop(self, stacks, first=False):
        """The inverse of `push`: uint8 (B, H, W, 3). Raises OutOfBits, InvalidInput or CorruptFile for stacks that no push left."""
        ways = Lanes(stacks).pop(Uniform(self.ways), len(stacks))[:, 0]
        images = self._codec(len(stacks)).pop(Lanes(stacks))
        return np.stack([_lain(image, way, back=True) for image, way in zip(images, ways)])
