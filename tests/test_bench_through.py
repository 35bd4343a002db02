"""What may stand for rounding: the kept result is what the chapter says, and its parts do what they should."""

import numpy as np
import pytest
import torch

from shvc_lib import bench_through, data, models, results
from shvc_lib.models.discretized import box_mass

RESULT = results.load("discretized_ablations")


def test_the_price_of_the_next_integer_is_the_best_stand_in():
    """At equal weights to begin with and equal steps: fewest bits at equal quality, by BD-rate."""
    from shvc_lib.metrics import bd_rate

    assert list(RESULT["through"]) == list(bench_through.THROUGH)
    price = RESULT["through"]["price"]
    for name in ("noise", "straight", "mixed"):
        other = RESULT["through"][name]
        assert bd_rate(price["rate"], price["psnr"], other["rate"], other["psnr"]) < -1, name
    assert all(len(values) == 6 for curve in RESULT["through"].values() for values in curve.values())


def test_a_mixture_is_cheaper_than_a_normal_at_every_lambda():
    prior = RESULT["prior"]
    assert all(mixture < normal for mixture, normal in zip(prior["mixture of 3"], prior["Normal"]))


def test_a_normal_is_fitted_to_rounded_latents():
    """Integers of a Normal of known mean and scale give both back."""
    class Source:
        def latents(self, images, point):
            generator = torch.Generator().manual_seed(int(images[0, 0, 0, 0]))
            return torch.tensor([1.3, -0.2])[:, None, None] + torch.tensor([2.0, 0.6])[:, None, None] * torch.randn((len(images), 2, 40, 40), generator=generator)

    mean, scale = bench_through.normal_prior(Source(), torch.zeros((8, 4, 4, 3), dtype=torch.uint8), 0)
    assert np.allclose(mean.flatten(), [1.3, -0.2], atol=0.05) and np.allclose(scale.flatten(), [2.0, 0.6], atol=0.05)
    assert box_mass(torch.arange(-60.0, 60.0), mean[0], scale[0]).sum() == pytest.approx(1, abs=1e-5)


def test_rate_and_picture_of_an_untrained_transform_coder():
    model = models.build("DiscretizedVAE", latents=48, width=8).eval()
    images = torch.from_numpy(np.stack([data.photograph("coffee")[:64, :64]] * 2))
    model.prepare(images)
    found = bench_through.measure(model, [images[0].numpy()])
    assert np.all(np.diff(found["rate"]) > 0) and np.all(np.diff(found["psnr"]) > 0) and found["psnr"][-1] > 28
