"""Trained networks: what the cards say of the files is so, and a damaged file is not used."""

import hashlib
import json
import shutil

import pytest
import torch

from shvc_lib import data, lossy, metrics, recipes, zoo
from shvc_lib.errors import CorruptFile, MissingData, UnknownModel
from shvc_lib.models import ladder_codec

LIMIT, LIMIT_ALL = 4 << 20, 25 << 20
LOSSLESS = [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] == "BitsBackVAE"]
SPLIT = [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] in ("SHVC", "SubsampledSHVC")]
LADDERS = [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] == "Ladder"]
FITTED = ["linear-net", "linear-net-fast", "shvc-photo"]
DISCRETIZED = [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] == "DiscretizedVAE"]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with one trained network, in the place of the repository's."""
    for suffix in ("json", "safetensors"):
        shutil.copy(zoo.FOLDER / f"vae-stochastic-2.{suffix}", tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", zoo.names())
def test_the_card_describes_the_file(name):
    card, path = zoo.card(name), zoo.file_of(name)
    assert card["name"] == name and card["bytes"] == path.stat().st_size <= LIMIT
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["steps"] == card["recipe"]["steps"] and card["minutes"] > 0 and card["commit"] and card["hardware"] and card["data"]


def test_every_network_is_of_a_kind_that_is_tested():
    assert sorted(LOSSLESS + SPLIT + LADDERS + DISCRETIZED + FITTED) == zoo.names() and {"pln", "gamma-pln", "vae-photo"} <= set(LADDERS)
    assert set(DISCRETIZED) == {"dvae-1", "dvae-3", "dvae-12"}


@pytest.mark.parametrize("name", LOSSLESS + SPLIT + FITTED)
def test_the_card_of_a_lossless_model(name):
    card = zoo.card(name)
    # Rounding the network to integers costs little, and what it reached is no accident of arithmetic.
    assert card["bits_per_dim"]["exact"] == pytest.approx(card["bits_per_dim"]["float"], rel=0.003)
    if name not in FITTED:
        assert card["bits_per_dim"]["exact"] == pytest.approx(sum(card["bits_per_dim"]["parts"].values()))


@pytest.mark.parametrize("name", LADDERS + DISCRETIZED)
def test_the_card_of_a_lossy_model(name):
    """More bits buy less error, at every operating point."""
    measured = zoo.card(name)["kodak"]
    assert len(measured["bits_per_pixel"]) == len(zoo.card(name)["recipe"]["arguments"].get("betas", range(6 if name in DISCRETIZED else 5)))
    assert sorted(measured["bits_per_pixel"]) == measured["bits_per_pixel"] and sorted(measured["psnr"]) == measured["psnr"]


@pytest.mark.parametrize("name", sorted(lossy.ABOUT))
def test_how_many_qualities_a_lossy_model_has_is_known_without_loading_it(name):
    assert lossy.qualities(name) == lossy.get(name).qualities == len(zoo.card(name)["kodak"]["psnr"])


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_loads_and_knows_photographs(name):
    network, tile = zoo.load(name), data.photograph("coffee")[100:228, 200:328]
    for point, (bits, decibels) in enumerate(zip(zoo.card(name)["kodak"]["bits_per_pixel"], zoo.card(name)["kodak"]["psnr"])):
        theory = ladder_codec.theoretical(network, tile, point)
        assert bits / 4 < theory.bits / 128**2 < 4 * bits and abs(metrics.psnr(tile, theory.picture) - decibels) < 6


@pytest.mark.parametrize("name", zoo.names())
def test_the_card_quotes_the_recipe_that_is_there(name):
    assert zoo.card(name)["recipe"] == json.loads(json.dumps(recipes.get(name).as_dict()))


def test_all_checkpoints_together_are_small():
    files = list(zoo.FOLDER.glob("*.safetensors*"))
    assert sorted(path.name.split(".")[0] for path in files) == zoo.names() and sum(path.stat().st_size for path in files) <= LIMIT_ALL


@pytest.mark.parametrize("name", LOSSLESS + SPLIT)
def test_a_trained_network_loads_and_knows_photographs(name):
    twin = zoo.load(name)
    loose = sum(value.is_floating_point() for value in twin.state_dict().values())  # on the grid: the top prior, or each sub-block's own numbers
    assert not twin.training and loose <= (2 * len(twin.ks) if name in SPLIT else 1)
    tiles = torch.from_numpy(data.patches([data.photograph("coffee")], 32, 16, seed=5)).permute(0, 3, 1, 2)
    with torch.no_grad():
        bits, _ = twin.loss(tiles, twin.noise(16, torch.Generator().manual_seed(0)))
    assert 3.0 < float(bits) < 6.5  # an untrained one takes more than 7


@pytest.mark.parametrize("name", ["vae-stochastic-1", "shvc-short-arib"])
def test_the_rate_on_the_card_is_measured_again(name):
    card, twin = zoo.card(name), zoo.load(name)
    try:
        images = torch.from_numpy(data.cifar10("test", 1000)).permute(0, 3, 1, 2)
    except MissingData as error:
        pytest.skip(str(error))
    bits = 0.0
    with torch.no_grad():
        for first in range(0, 1000, 250):
            bits += float(twin.loss(images[first:first + 250], twin.noise(250, torch.Generator().manual_seed(first)))[0]) / 4
    assert bits == pytest.approx(card["bits_per_dim"]["exact"], rel=5e-4)


def test_a_changed_file_is_refused(copy):
    path = copy / "vae-stochastic-2.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="not the file that its model card describes"):
        zoo.load("vae-stochastic-2")


def test_what_is_not_there_is_named(copy, monkeypatch):
    with pytest.raises(UnknownModel, match="no trained network is called 'vae'; there are: vae-stochastic-2"):
        zoo.load("vae")
    (copy / "vae-stochastic-2.safetensors").unlink()
    with pytest.raises(MissingData, match="only its card"):
        zoo.load("vae-stochastic-2")
    monkeypatch.setattr(zoo, "FOLDER", copy / "absent")
    with pytest.raises(MissingData, match="clone"):
        zoo.card("vae-stochastic-2")
