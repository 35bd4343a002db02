"""Metrics against their definitions, against another implementation, and against published curves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from shvc_lib import data
from shvc_lib.errors import InvalidInput
from shvc_lib.metrics import bd_rate, bits_per_dim, decibels, ms_ssim, mse, psnr

RNG = np.random.default_rng(2)
PUBLISHED = json.loads((Path(__file__).parents[1] / "data/results/published_kodak.json").read_text())["curves"]


def test_bits_per_dim():
    image = np.zeros((10, 20, 3), np.uint8)
    assert bits_per_dim(8 * image.nbytes, image) == 8.0
    assert bits_per_dim(1200, [image, image]) == 1.0
    with pytest.raises(InvalidInput):
        bits_per_dim(1, np.zeros((0, 3), np.uint8))


def test_mse_and_psnr_by_hand():
    a = np.array([[0, 255], [10, 20]], np.uint8)
    b = np.array([[255, 255], [10, 24]], np.uint8)  # 0 - 255 must not wrap around
    assert mse(a, b) == (255**2 + 16) / 4
    assert math.isclose(psnr(a, b), 10 * math.log10(255**2 / mse(a, b)))
    assert psnr(a, a) == math.inf and mse(a, a) == 0
    assert math.isclose(psnr(a / 255, b / 255, peak=1), psnr(a, b))
    for bad in (a[:1], a[:, :, None], np.zeros(0)):
        with pytest.raises(InvalidInput, match="same shape"):
            mse(a, bad)


def test_psnr_of_uniform_quantisation():
    """Rounding to multiples of a step leaves an error uniform over the step: MSE = step^2 / 12, 6.02 dB per bit."""
    image = RNG.uniform(0, 255, (400, 500))
    for step in (1, 2, 4, 8):
        assert psnr(image, np.round(image / step) * step) == pytest.approx(10 * math.log10(255**2 / (step**2 / 12)), abs=0.05)


def ms_ssim_from_single_scale(a, b):
    """The definition, out of scikit-image's single-scale SSIM: the five published exponents, 2 x 2 means between."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    options = dict(data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)
    product = np.ones(a.shape[2])
    for scale, weight in enumerate(weights):
        if scale:
            a, b = (x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
            a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        similarity = structural_similarity(a, b, **options)[1][5:-5, 5:-5]
        if scale < 4:  # contrast and structure alone: divide the luminance term out
            from scipy.ndimage import gaussian_filter
            mean = lambda x: gaussian_filter(x, (1.5, 1.5, 0), truncate=3.5)[5:-5, 5:-5]
            constant = (0.01 * 255) ** 2
            similarity = similarity / ((2 * mean(a) * mean(b) + constant) / (mean(a) ** 2 + mean(b) ** 2 + constant))
        product *= similarity.mean((0, 1)) ** weight
    return product.mean()


def test_ms_ssim_against_its_definition():
    image = data.photograph("chelsea")[:256, :192].astype(float)
    noisy = np.clip(image + RNG.normal(0, 12, image.shape), 0, 255)
    assert math.isclose(ms_ssim(image, noisy), ms_ssim_from_single_scale(image, noisy), abs_tol=1e-4)
    assert ms_ssim(image, image) == pytest.approx(1)
    assert ms_ssim(image[:, :, 0], noisy[:, :, 0]) < 1
    stronger = np.clip(image + RNG.normal(0, 30, image.shape), 0, 255)
    assert ms_ssim(image, stronger) < ms_ssim(image, noisy)


def test_ms_ssim_says_when_an_image_is_too_small():
    assert 0 < ms_ssim(*RNG.integers(0, 256, (2, 161, 161)))
    with pytest.raises(InvalidInput, match="161"):
        ms_ssim(*RNG.integers(0, 256, (2, 160, 500)))


def test_decibels():
    assert np.allclose(decibels([0.9, 0.99, 0.999]), [10, 20, 30])
    assert decibels(1.0) == math.inf and decibels(0.0) == 0.0 and isinstance(decibels(0.5), float)
    with pytest.raises(InvalidInput):
        decibels(1.1)


@pytest.mark.parametrize("codec, anchor, percent", [
    ("hyperprior", "vtm18", 31.2), ("factorized", "vtm18", 69.25), ("qres34m", "vtm18", -4.0), ("webp", "vtm18", 79.5),
    ("jpeg2000", "vtm18", 99.3), ("jpeg", "vtm18", 233.0), ("hyperprior", "jpeg", -55.0)])
def test_bd_rate_of_published_curves(codec, anchor, percent):
    a, b = PUBLISHED[codec], PUBLISHED[anchor]
    value = bd_rate(a["bpp"], a["psnr"], b["bpp"], b["psnr"])
    assert value == pytest.approx(percent, abs=0.05)
    back = bd_rate(b["bpp"], b["psnr"], a["bpp"], a["psnr"])
    assert (1 + value / 100) * (1 + back / 100) == pytest.approx(1)


def test_bd_rate_of_a_constant_factor_is_that_factor():
    rates, quality = np.array([0.1, 0.3, 0.7, 2.0]), np.array([25.0, 29.0, 33.0, 40.0])
    assert bd_rate(1.3 * rates, quality, rates, quality) == pytest.approx(30)
    assert bd_rate(rates[::-1], quality[::-1], rates, quality) == pytest.approx(0)  # the order of the points is free
    # Only the common range counts: a point far above the anchor's best quality changes nothing.
    line = np.array([1.0, 2.0, 4.0, 8.0]), np.array([30.0, 33.0, 36.0, 39.0])
    assert bd_rate(1.1 * line[0], line[1], line[0][:3], line[1][:3]) == pytest.approx(10)


@pytest.mark.parametrize("rates, quality, message", [
    ([1, 2], [30, 30], "rise"), ([1, 2, 3], [30, 32, 31], "rise"), ([1], [30], "two points"), ([1, 2], [30], "two points"),
    ([0, 2], [30, 31], "positive"), ([1, 2], [30, math.inf], "finite"), ([1, 2], [50, 60], "share no quality")])
def test_bd_rate_refuses_what_is_no_curve(rates, quality, message):
    with pytest.raises(InvalidInput, match=message):
        bd_rate(rates, quality, [1, 2], [30, 40])
