"""Discretised VAEs: the posterior is a uniform distribution, and so the latents can be rounded and sent.

    posterior    q(z | x) = U(f(x) - 1/2, f(x) + 1/2)                 in training z = f(x) + u, for a file z = the nearest integer
    prior        p(z) = F(z + 1/2) - F(z - 1/2)                       F Normal: a density (of Normal + uniform), and at the integers a mass function
    likelihood   p(x | z) proportional to exp(-lambda d(g(z), x))     d the mean squared error

The free energy of one picture x is then its length in bits plus lambda times its distortion (Duan 2022; Balle et al. 2017). One network serves all
`lambdas`: each has its own gain per channel, which is how finely that channel is cut (Cui et al. 2021). The latents of the transforms are called y, as is
usual, and those above them z1 and z2.

With one layer every channel has one prior, a mixture of Normals, for all positions; with more, a network forecasts each layer's Normals from the layers above,
see `hierarchy`, and the integers are offsets from its means. Taught in chapter 4.

| on the slides (Duan 2022) | here |
| --- | --- |
| Y, f, g | `images`; `analysis` and the gain; the gain's inverse and `synthesis` |
| X, F(x + 1/2) - F(x - 1/2) | `rounded`, `noisy`; `box_mass` |
| lambda | `lambdas`, for d in squared grey levels 0 ... 255 and rates in bits per pixel |
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.transforms import Analysis, Synthesis, principal_components
from .hierarchy import TopDown, proceed

LEAST_SCALE, LEAST_MASS = 0.05, 2.0**-24  # of a prior, in integers
MS_SSIM_WEIGHT = 1300.0
_STEP = 4e-4  # the best cell of a fine uniform quantiser: cell^2 lambda, see `DiscretizedVAE.prepare`


def _bounded(values, least):
    """max(values, least), with the gradient of `values` everywhere: what is too small must be able to grow."""
    return values + (values.clamp_min(least) - values).detach()


def box_mass(x, mean, scale):
    """F((x + 1/2 - mean) / scale) - F((x - 1/2 - mean) / scale), F the standard Normal CDF: the density at x of Normal + U(-1/2, 1/2), and the mass of an
    integer x."""
    far = -(x - mean).abs()  # on the left of the mean neither value is near 1, and their difference is accurate
    root = scale * math.sqrt(2)
    return 0.5 * (torch.erfc(-(far + 0.5) / root) - torch.erfc(-(far - 0.5) / root))


class Factorised(nn.Module):
    """One prior per channel: a mixture of `components` Normals (1: the slides' prior), the same at every position and, but for a shift of the log scales,
    at every lambda."""

    def __init__(self, points, latents, components):
        super().__init__()
        spread = torch.linspace(-1, 1, components) * 1.5 if components > 1 else torch.zeros(1)
        self.mean = nn.Parameter(torch.zeros(latents, components))
        self.log_scale = nn.Parameter(spread.repeat(latents, 1))
        self.logit = nn.Parameter(torch.zeros(latents, components))
        self.shift = nn.Parameter(torch.zeros(points, latents))
        for name in ("means", "scales", "weights"):  # the same as integers, for the coder: see discretized_calibration.ready
            self.register_buffer(name, torch.zeros(points, latents, components, dtype=torch.int32))

    def parameters_at(self, point, gain):
        """(means, scales, weights), (B, latents, components) each, in integers. gain: (B, latents)."""
        scale = (self.log_scale + self.shift[point][..., None]).exp() * gain[..., None]
        return self.mean * gain[..., None], _bounded(scale, LEAST_SCALE), self.logit.softmax(-1).expand_as(scale)

    def mass(self, x, point, gain):
        """p(x), the shape of x (B, latents, h, w)."""
        mean, scale, weight = (v[:, :, None, None] for v in self.parameters_at(point, gain))
        return (weight * box_mass(x[..., None], mean, scale)).sum(-1)


class Estimate(NamedTuple):
    """What `DiscretizedVAE.everything` returns. pixels: x hat, (B, 3, H, W), -1/2 to 1/2; bits: of every latent, a tensor (B, channels, h, w) for each
    layer, the top one first, with zeros where a layer has no latents."""

    pixels: torch.Tensor
    bits: list


class UpperAnalysis(nn.Module):
    """Standardised latents y (B, latents, h, w) to z1 (B, upper, h / 4, w / 4) and z2 (B, upper, h / 2, w / 2)."""

    def __init__(self, latents, hidden, upper):
        super().__init__()
        self.first, self.second = nn.Conv2d(latents, hidden, 1), nn.Conv2d(hidden, hidden, 3, 2, 1)
        self.third = nn.Conv2d(hidden, hidden, 3, 2, 1)
        self.to_z1, self.to_z2 = nn.Conv2d(hidden, upper, 3, padding=1), nn.Conv2d(hidden, upper, 3, padding=1)

    def forward(self, y):
        h = F.leaky_relu(self.second(F.leaky_relu(self.first(y), 0.2)), 0.2)
        return self.to_z1(F.leaky_relu(self.third(h), 0.2)), self.to_z2(h)


class DiscretizedVAE(nn.Module):
    """lambdas: one for each operating point, the coarsest first; latents: channels of y; width: of the transforms' networks; components: of factorised
    priors; groups, fields, upper, hidden, features: of the hierarchy (`hierarchy.TopDown`, whose `width` is `features`), one layer if there are no groups;
    distortion: d, "mse" or "ms-ssim" (see `distortion_of`); through: what training puts in the place of rounding, see `everything`; bfloat: train the
    transforms in bfloat16. Images are uint8 (B, 3, H, W), H and W multiples of 64."""

    def __init__(self, lambdas=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032), latents=192, width=96, components=3, groups=(), fields=1, upper=24, hidden=40,
                 features=64, distortion="mse", through="price", bfloat=False):
        super().__init__()
        points, self.upper, self.groups = len(lambdas), upper if groups else 0, tuple(groups)
        self.lambdas, self.distortion, self.through, self.bfloat = tuple(lambdas), distortion, through, bfloat
        self.analysis, self.synthesis = Analysis(latents, width), Synthesis(latents, width)
        self.log_gain = nn.Parameter((torch.tensor(lambdas) / _STEP).log()[:, None].repeat(1, latents) / 2)
        self.register_buffer("spread", torch.ones(latents))
        self.EXACT = ("hierarchy",) if groups else ()  # parts that sender and receiver must agree on to the last bit: see nn.partly_exact
        if groups:
            self.upper_analysis = UpperAnalysis(latents, hidden, upper)
            self.upper_log_gain = nn.Parameter(torch.zeros(points, 2 * upper))  # of z1, then of z2
            self.hierarchy = TopDown(points, groups, fields, upper, hidden, features)
            self.top = Factorised(points, upper, components)
            for name in ("unit_table", "inverse_table", "log_table"):  # of y, z1 and z2, integers: see discretized_calibration.ready
                self.register_buffer(name, torch.zeros(points, latents + 2 * upper, dtype=torch.int32))
        else:
            self.prior = Factorised(points, latents, components)

    @property
    def layers(self):
        """How many layers of latents there are."""
        return self.hierarchy.layers if self.groups else 1

    def prepare(self, images):
        """Begin as a transform coder for these images, uint8 (N, H, W, 3). Gains begin where fine uniform quantisation is best: a cell of side c costs
        c^2 / 12 in each of the 768 dimensions of a block of 256 pixels, and -log2 c bits, so c^2 = 18 / (255^2 lambda ln 2)."""
        with torch.no_grad():
            self.spread.copy_(principal_components(self.analysis, self.synthesis, images))
            if not self.groups:
                self.prior.log_scale += self.spread.log()[:, None]

    def noise(self, batch, generator, side=None):
        """What one step draws, whatever the side: an operating point for each image and seeds of its uniform noise, (B,) each."""
        return [torch.randint(0, len(self.lambdas), (batch,), generator=generator), torch.randint(0, 1 << 62, (batch,), generator=generator)]

    def units(self, point):
        """How large latents are, roughly, in integers: y (B, latents, 1, 1) and z1, z2 (B, upper, 1, 1) each. Divided by this they are standardised."""
        y = self.log_gain[point].exp() * self.spread + 0.5
        upper = (self.upper_log_gain[point].exp() + 0.5).chunk(2, 1) if self.groups else ()
        return [unit[:, :, None, None] for unit in (y, *upper)]

    def _precision(self):
        return torch.autocast(self.log_gain.device.type, torch.bfloat16, enabled=self.bfloat and self.training)  # files are made in float32

    def latents(self, images, point):
        """y = f(x) in integers, but not rounded yet: (B, latents, H / 16, W / 16)."""
        with self._precision():
            y = self.analysis(images.float() / 255 - 0.5).float()
        return y * self.log_gain[point].exp()[:, :, None, None]

    def upper_latents(self, y, point):
        """z1 and z2 in integers, not rounded yet, from y as `latents` returns it."""
        z1, z2 = self.upper_analysis(y / self.units(point)[0])
        gain = self.upper_log_gain[point].exp()[:, :, None, None]
        return z1 * gain[:, :self.upper], z2 * gain[:, self.upper:]

    def reconstruct(self, y, point):
        """g(y): pixels (B, 3, H, W), -1/2 to 1/2 but for overshoots, from latents in integers."""
        with self._precision():
            return self.synthesis(y * (-self.log_gain[point]).exp()[:, :, None, None]).float()

    def everything(self, images, point, uniform, through=None):
        """The Estimate of a batch. uniform(shape) draws from U(-1/2, 1/2). What stands for rounding, which has no gradient, is said by `through`:

        - "noise" adds u, as the posterior says;
        - "straight" rounds, and its gradient is that of no rounding at all: for latents and bits (Theis et al. 2017, Minnen and Singh 2020);
        - "mixed" measures bits under noise and goes on with what is rounded, as the decoder will;
        - "price" rounds, and the gradient of a latent's bits is the price of the next integer, L(n + 1) - L(n) for n <= f < n + 1 and L(n) the length of n.
          That of no rounding vanishes at 0, where most latents are; this one pulls them to where the mass is, as a sender pays;
        - "graded" is "price" for the coarse half of the operating points and "mixed" for the fine half, where noise is nearly right.
        """
        through, y = through or self.through, self.latents(images, point)

        fine = (point >= len(self.lambdas) // 2)[:, None, None, None]

        def quantised(offset, mass):
            """(what the networks go on with, bits) of offsets from a mean; mass(x) of each under its prior."""
            noisy, rounded = offset + uniform(offset.shape), offset + (offset.round() - offset).detach()
            if through in ("price", "graded"):
                bits, below = _bits(mass(rounded.detach())), offset.detach().floor()
                price = _bits(mass(below + 1)) - _bits(mass(below))
                bits = bits + price.detach() * (offset - offset.detach())
                return rounded, bits if through == "price" else torch.where(fine, _bits(mass(noisy)), bits)
            return (noisy if through == "noise" else rounded), _bits(mass(rounded if through == "straight" else noisy))

        if not self.groups:
            y, bits = quantised(y, lambda x: self.prior.mass(x, point, self.log_gain[point].exp()))
            return Estimate(self.reconstruct(y, point), [bits])
        unit, *upper_units = self.units(point)
        z1, z2 = self.upper_latents(y, point)
        z1, bits = quantised(z1, lambda x: self.top.mass(x, point, self.upper_log_gain[point, :self.upper].exp()))
        costs = [bits]
        walk, found, sent = self.hierarchy.walk(z1 / upper_units[0], point), torch.zeros_like(y), None
        while True:
            with self._precision():
                layer = proceed(walk, sent)
            if layer is None:
                break
            here, size = (z2, upper_units[1]) if layer.source == "z2" else (y[:, layer.channels], unit[:, layer.channels])
            mean, scale = layer.mean.float() * size, _bounded(layer.log_scale.float().clamp(-10, 10).exp() * size, LEAST_SCALE)
            offset, bits = quantised(here - mean, lambda x, scale=scale: box_mass(x, 0.0, scale))
            costs.append(bits if layer.fields is None else bits * layer.fields)
            value = mean + offset
            sent = value / size
            if layer.source == "y":
                value = value if layer.fields is None else value * layer.fields
                found = found + F.pad(value, (0, 0, 0, 0, layer.channels.start, y.shape[1] - layer.channels.stop))
        return Estimate(self.reconstruct(found, point), costs)

    def loss(self, images, noise):
        """(mean of (bits per pixel + lambda d) / sqrt(lambda / 0.01), a dict of numbers to log)."""
        point, seeds = noise
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

        def uniform(shape):
            return torch.stack([torch.rand(shape[1:], generator=g) for g in generators]).to(images.device) - 0.5

        estimate = self.everything(images, point, uniform)
        error = distortion_of(estimate.pixels, images, self.distortion)
        rate = sum(bits.flatten(1).sum(1) for bits in estimate.bits) / images[0, 0].numel()
        lambdas = torch.tensor(self.lambdas, device=images.device)[point]
        report = {f"distortion_{k}": _mean_where(error, point == k) for k in range(len(self.lambdas))}
        report |= {f"bpp_{k}": _mean_where(rate, point == k) for k in range(len(self.lambdas))}
        return ((rate + lambdas * error) / (lambdas / 0.01).sqrt()).mean(), report


def distortion_of(pixels, images, kind):
    """d of each picture, (B,): "mse", the mean squared error in grey levels; or "ms-ssim", 1 - MS-SSIM (Wang et al. 2003) times 1300, which makes it weigh
    about as much (Balle et al. 2018 choose their lambdas so), with a window of 7 pixels so that crops of 97 are large enough. pixels: -1/2 to 1/2, images:
    uint8, (B, 3, H, W)."""
    if kind == "mse":
        return ((pixels - (images.float() / 255 - 0.5)) ** 2).flatten(1).mean(1) * 255**2
    from pytorch_msssim import ms_ssim

    return MS_SSIM_WEIGHT * (1 - ms_ssim((pixels + 0.5).clamp(0, 1), images.float() / 255, data_range=1.0, size_average=False, win_size=7))


def _bits(mass):
    return -_bounded(mass, LEAST_MASS).log2()


def _mean_where(values, chosen):
    return (values.detach() * chosen).sum() / chosen.sum().clamp_min(1)
