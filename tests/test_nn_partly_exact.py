"""Checkpoints of networks that are exact in part."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from shvc_lib.errors import CorruptFile, InvalidInput, MissingData
from shvc_lib.models import ladder_calibration
from shvc_lib.models.ladder import Ladder
from shvc_lib.nn import load_partly_exact, save_exact, save_partly_exact

SMALL = {"betas": (0.2, 0.1), "width": 8, "latents": 6, "upper": 4, "hidden": 5}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ladder_calibration.ready(Ladder(**SMALL), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))


def test_it_comes_back_with_half_the_bytes(network, tmp_path):
    path = tmp_path / "ladder.safetensors"
    save_partly_exact(network, path)
    back = load_partly_exact(Ladder(**SMALL), path)
    z2 = torch.round(torch.randn(3, 4, 2, 2) * 4096) / 4096
    for a, b in zip(network.prior(z2, torch.tensor([0, 1, 1])), back.prior(z2, torch.tensor([0, 1, 1]))):
        assert torch.equal(a, b)
    for name, values in network.state_dict().items():
        if not name.startswith("prior."):
            expected = values.half().float() if values.ndim > 2 else values
            assert torch.equal(back.state_dict()[name], expected), name
    stored = load_file(path)
    assert stored["analysis.0.weight"].dtype == torch.float16 and stored["log_scale"].dtype == torch.float32
    assert all(not values.is_floating_point() for name, values in stored.items() if name.startswith("prior."))
    assert not back.training and not any(p.requires_grad for p in back.parameters())


def test_a_vae_has_no_exact_part(tmp_path):
    vae = Ladder(**SMALL, levels=1)
    save_partly_exact(vae, tmp_path / "vae.safetensors")
    assert load_partly_exact(Ladder(**SMALL, levels=1), tmp_path / "vae.safetensors").levels == 1


def test_other_files_are_refused(network, tmp_path):
    path = tmp_path / "ladder.safetensors"
    with pytest.raises(MissingData):
        load_partly_exact(Ladder(**SMALL), path)
    save_partly_exact(network, path)
    with pytest.raises(InvalidInput, match="architecture"):
        load_partly_exact(Ladder(**{**SMALL, "width": 9}), path)
    with pytest.raises(InvalidInput, match="architecture"):
        load_partly_exact(Ladder(**{**SMALL, "hidden": 6}), path)
    save_exact(network.prior, tmp_path / "exact.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-9])
    for name in ("exact", "plain", "cut"):
        with pytest.raises(CorruptFile):
            load_partly_exact(Ladder(**SMALL), tmp_path / f"{name}.safetensors")
