"""The library of the book *Bits Back*: coding and sampling algorithms, models, and a lossless image codec.

    import shvc_lib
    data = shvc_lib.encode(image)        # uint8 array -> bytes
    image = shvc_lib.decode(data)        # bytes -> the same array

Floors, each importing only from those below: `theory`, `coding` (numpy); `nn` (torch); `models`; `recipes`, `train`; `container`, `codec`,
`cli`, `bench`; and at the side `data`, `images`, `results`, `metrics`, `anchors`, `viz`. The codec itself does not import torch.
"""

from .codec import decode, encode, info

__version__ = "0.1.0"
__all__ = ["decode", "encode", "info", "__version__"]
