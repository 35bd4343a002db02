"""The residual block that the book's networks are made of, and weights to begin with. Taught in chapter 2."""

import math

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """x + two 3 x 3 convolutions of it with ReLU before each; (B, width, H, W) to the same shape. Starts as the identity."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight), nn.init.zeros_(self.second.bias)

    def forward(self, x):
        return x + self.second(F.relu(self.first(F.relu(x))))


def begin(layer, gain):
    """Weights such that independent inputs of variance 1 give outputs of standard deviation `gain`, and biases 0: a signal that fades out on its way through a
    convolution (transposed or not) learns slowly."""
    fan = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.weight[:, 0].numel() / math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan)) if gain else nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
