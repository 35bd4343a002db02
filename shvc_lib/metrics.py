"""How far apart two images are, what a code cost, and how two codecs compare over a whole curve.

A lossy codec is a curve: for every rate a quality. Here are the usual two axes (bits per pixel or sub-pixel; MSE and
PSNR, or MS-SSIM) and the usual single number for the gap between two curves, the Bjontegaard delta rate. Every
function takes uint8 or float images on the scale 0 ... 255. Taught in chapter 1, *Rate and distortion*.

| symbol | name in code | unit |
| --- | --- | --- |
| R | `bits_per_dim` | bits per sub-pixel (one number of one channel) |
| D | `mse` | squared grey levels |
| PSNR | `psnr` | decibels |
| MS-SSIM | `ms_ssim`, `decibels(ms_ssim)` | none, decibels |
| BD-rate | `bd_rate` | percent |
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

from .errors import InvalidInput

MS_SSIM_SMALLEST = 161  # pixels: four halvings of the image must leave more than the 11-pixel window


def bits_per_dim(bits, image):
    """Bits divided by the number of sub-pixels H * W * C of `image` (an array, or several of them).

    Say which bits: ideal (-log2 of a model's mass) or actual (8 * len(bytes)).
    """
    size = np.asarray(image).size if isinstance(image, np.ndarray) else sum(np.asarray(one).size for one in image)
    if size == 0:
        raise InvalidInput("bits_per_dim needs an image with at least one pixel")
    return float(bits) / size


def _pair(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise InvalidInput(f"two images of the same shape are needed, got {a.shape} and {b.shape}")
    return a, b


def mse(a, b):
    """Mean squared error over all sub-pixels, in squared grey levels (images of equal shape)."""
    a, b = _pair(a, b)
    return float(np.mean((a - b) ** 2))


def psnr(a, b, peak=255):
    """Peak signal-to-noise ratio 10 log10(peak^2 / MSE) in decibels; infinite for equal images.

    It is the MSE on another scale, no more perceptual than that.
    """
    error = mse(a, b)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ms_ssim(a, b):
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), 1 for equal images.

    Images (H, W) or (H, W, C) of equal shape, each side at least 161 pixels; the mean over the channels, five scales,
    11-pixel Gaussian window of width 1.5, on the scale 0 ... 255 (as computed by pytorch-msssim).
    """
    a, b = _pair(a, b)
    if a.ndim not in (2, 3) or min(a.shape[:2]) < MS_SSIM_SMALLEST:
        raise InvalidInput(f"MS-SSIM needs images of at least {MS_SSIM_SMALLEST} pixels a side, got shape {a.shape}")
    import torch
    from pytorch_msssim import ms_ssim as compute

    # float32 in contiguous planes is six times faster here and differs by less than 1e-6
    planes = (np.ascontiguousarray(np.atleast_3d(x).transpose(2, 0, 1)[None], np.float32) for x in (a, b))
    first, second = map(torch.from_numpy, planes)
    with torch.no_grad():
        return float(compute(first, second, data_range=255))


def decibels(similarity):
    """-10 log10(1 - similarity): MS-SSIM on a scale that tells 0.98 from 0.99 (number or array; 1 gives infinity)."""
    similarity = np.asarray(similarity, np.float64)
    if not (similarity <= 1).all():
        raise InvalidInput("a similarity is at most 1")
    with np.errstate(divide="ignore"):
        result = 0.0 - 10 * np.log10(1 - similarity)
    return float(result) if result.ndim == 0 else result


def bd_rate(rates, quality, rates_anchor, quality_anchor):
    """How much more rate the first codec needs than the anchor at equal quality, in percent, on average (Bjontegaard 2001).

    log(rate) is interpolated over quality for each codec, and the mean difference over the common range of qualities
    becomes a ratio. The interpolation is monotone (PCHIP) and goes over the whole common range, so curves need not be
    measured at the same qualities. rates > 0 in any common unit; quality in PSNR or MS-SSIM decibels; at least two
    points a curve, quality rising with rate. Negative: the first codec saves. Raises `InvalidInput`.
    """
    curve, anchor = _log_rate(rates, quality), _log_rate(rates_anchor, quality_anchor)
    low, high = max(curve.x[0], anchor.x[0]), min(curve.x[-1], anchor.x[-1])
    if not low < high:
        raise InvalidInput(f"the curves share no quality: {curve.x[0]:.2f} to {curve.x[-1]:.2f} "
                           f"and {anchor.x[0]:.2f} to {anchor.x[-1]:.2f}")
    mean_difference = (curve.integrate(low, high) - anchor.integrate(low, high)) / (high - low)
    return float(100 * np.expm1(mean_difference))


def _log_rate(rates, quality):
    rates, quality = np.asarray(rates, np.float64), np.asarray(quality, np.float64)
    if rates.ndim != 1 or rates.shape != quality.shape or len(rates) < 2:
        raise InvalidInput("a curve is two equally long lists, rates and qualities, of at least two points")
    if not (np.isfinite(rates).all() and np.isfinite(quality).all() and (rates > 0).all()):
        raise InvalidInput("rates must be positive, and rates and qualities finite")
    order = np.argsort(rates)
    if not (np.diff(quality[order]) > 0).all():
        raise InvalidInput("quality must rise with rate; leave out the points where it does not")
    return PchipInterpolator(quality[order], np.log(rates[order]))
