"""The image codec on a ladder of latents: real bytes, decoded in a fresh process, as many as theory says."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import shvc_lib
from shvc_lib import cli, container, data, lossy, metrics, zoo
from shvc_lib.coding import BitStack
from shvc_lib.errors import CorruptFile, InvalidInput, UnknownModel, UnsupportedImage
from shvc_lib.models import ladder_codec
from shvc_lib.sampling import dither, tree

NETWORKS = ["gamma-pln", "pln"]


@pytest.fixture(scope="module")
def crop():
    """A part of the astronaut: face, flag and fabric."""
    return data.photograph("astronaut")[:192, 128:320].copy()


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return zoo.load(request.param)


@pytest.mark.parametrize("point", range(5))
def test_the_bytes_come_within_fifteen_per_cent_of_theory_and_the_picture_within_a_sixth_of_a_decibel(network, crop, point):
    coded, theory = ladder_codec.encode(network, crop, point), [ladder_codec.theoretical(network, crop, point, seed) for seed in range(3)]
    assert 8 * len(coded.payload) < 1.15 * np.mean([one.bound for one in theory])
    assert sum(coded.bits) <= 8 * len(coded.payload) <= sum(coded.bits) + 24 + 64  # three bytes and the stack's last word
    assert metrics.psnr(crop, coded.picture) > np.mean([metrics.psnr(crop, one.picture) for one in theory]) - 1 / 6
    picture, agreed = ladder_codec.decode(network, coded.payload, *crop.shape[:2])
    assert np.array_equal(picture, coded.picture) and agreed == coded.agreed


def test_more_quality_is_more_bytes_and_less_error(network, crop):
    coded = [ladder_codec.encode(network, crop, point, survivors=32) for point in (0, 2, 4)]
    assert len(coded[0].payload) < len(coded[1].payload) < len(coded[2].payload)
    assert metrics.psnr(crop, coded[0].picture) < metrics.psnr(crop, coded[2].picture)


def test_a_fresh_process_with_other_settings_decodes_the_same_picture(tmp_path, crop):
    from shvc_lib.images import write_image

    write_image(tmp_path / "photo.png", crop)
    assert cli.main(["encode", str(tmp_path / "photo.png"), "--model", "pln", "--quality", "2"]) == 0
    here = shvc_lib.decode((tmp_path / "photo.shvc").read_bytes())
    program = ("import sys, torch; torch.set_num_threads(int(sys.argv[1])); import numpy as np, shvc_lib;"
               "np.save(sys.argv[3], shvc_lib.decode(open(sys.argv[2], 'rb').read()))")
    for threads, kernels in ((1, "default"), (2, "avx2"), (1, "no avx")):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"} if kernels == "no avx" else dict(os.environ)
        subprocess.run([sys.executable, "-c", program, str(threads), str(tmp_path / "photo.shvc"), str(tmp_path / "out.npy")], check=True, env=environment)
        assert np.array_equal(np.load(tmp_path / "out.npy"), here), kernels


@pytest.mark.parametrize("shape", [(1, 1, 3), (65, 63), (3, 130, 1), (64, 64, 3)])
def test_pictures_of_any_size_grey_or_coloured(shape):
    image = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8).repeat(15, 0).repeat(15, 1)[: shape[0], : shape[1]]
    image = np.ascontiguousarray(np.broadcast_to(image.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape))
    file = shvc_lib.encode(image, model="pln", quality=5)
    picture = shvc_lib.decode(file)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert len(file) <= image.size + 40  # never more than the raw pixels and a header
    if image.size > 4000:
        assert metrics.psnr(image, picture) > 12


def test_files_say_that_they_are_lossy_and_by_which_network(crop):
    file = shvc_lib.encode(crop[:64, :64], model="pln", quality=1)
    about = shvc_lib.info(file)
    assert about["lossy"] and not about["stored"] and about["model"] == "pln" and about["revision"] == int(zoo.card("pln")["sha256"][:4], 16)
    header, payload = container.unpack(file)
    other = container.pack(container.Header("pln", header.revision ^ 1, header.shape, False, 0, header.pixel_crc, True), payload)
    with pytest.raises(UnknownModel, match="revision"):
        shvc_lib.decode(other)
    wrong = container.pack(container.Header("pln", header.revision, header.shape, False, 0, header.pixel_crc ^ 1, True), payload)
    with pytest.raises(CorruptFile, match="latents"):
        shvc_lib.decode(wrong)
    four = container.pack(container.Header("pln", header.revision, (64, 64, 4), False, 0, header.pixel_crc, True), payload)
    with pytest.raises(CorruptFile, match="4 channels"):
        shvc_lib.decode(four)
    with pytest.raises(CorruptFile):  # stored and lossy at once
        both = bytearray(file)
        both[5] |= 1
        shvc_lib.decode(bytes(both))


def test_damage_is_noticed(crop):
    network = zoo.load("pln")
    coded, rng = ladder_codec.encode(network, crop[:64, :64], 1), np.random.default_rng(1)
    noticed = 0
    for _ in range(20):
        damaged = bytearray(coded.payload)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            picture, agreed = ladder_codec.decode(network, bytes(damaged), 64, 64)
        except CorruptFile:
            noticed += 1
            continue
        noticed += agreed != coded.agreed
        assert agreed != coded.agreed or np.array_equal(picture, coded.picture)  # a bit that nothing hangs on
    assert noticed >= 18
    for length in (0, 2, 3, len(coded.payload) // 2):
        with pytest.raises(CorruptFile):
            ladder_codec.decode(network, coded.payload[:length], 64, 64)


def test_what_cannot_be_coded_is_refused_by_name(crop, tmp_path, capsys):
    with pytest.raises(UnsupportedImage, match="alpha"):
        shvc_lib.encode(np.zeros((8, 8, 4), np.uint8), model="pln")
    for quality in (0, 6):
        with pytest.raises(InvalidInput, match="qualities 1"):
            shvc_lib.encode(crop, model="pln", quality=quality)
    with pytest.raises(InvalidInput, match="lossless"):
        shvc_lib.encode(crop, model="linear", quality=3)
    with pytest.raises(UnknownModel, match="pln"):
        lossy.get("jpeg")
    with pytest.raises(UnknownModel, match="there are: auto, linear, .*dvae-12, dvae-3, dvae-1, pln, gamma-pln"):
        shvc_lib.encode(crop, model="jpeg")
    with pytest.raises(InvalidInput, match="operating points"):
        ladder_codec.encode(zoo.load("pln"), crop, 5)


def test_kl_is_that_of_the_network_in_training(crop):
    """The codec's integers and float64 change what the network said by no more than its rounding."""
    network, images = zoo.load("pln"), torch.from_numpy(crop).permute(2, 0, 1)[None]
    theory = ladder_codec.theoretical(network, crop, 2)
    generator, point = torch.Generator().manual_seed(0), torch.tensor([2])
    with torch.no_grad():
        _, lower, upper = network.everything(images, point, lambda q: torch.round((q.mean + q.scale * torch.randn(q.mean.shape, generator=generator)) * 4096) / 4096)
    assert theory.kl[0] == pytest.approx(float(upper.sum()) / np.log(2), rel=1e-3)
    assert theory.kl[1] == pytest.approx(float(lower.sum()) / np.log(2), rel=0.03)  # another z2


def test_rates_are_whole_64ths_that_spend_enough():
    worth = np.full(1000, 2 << tree.WORTH_BITS)
    assert ladder_codec.rate(1.0, 2000.0, worth) == 64 and ladder_codec.rate(1.0, 2001.0, worth) == 65
    assert ladder_codec.rate(1.0, 0.0, worth) == 1 and ladder_codec.rate(1.0, 1e9, worth) == 255


@pytest.mark.parametrize("where, cells", [([], []), ([0], [0]), ([3, 50, 99], [-4, 0, 100000])])
def test_outliers_come_back(where, cells):
    codec, stack = ladder_codec.outlier_codec(100), BitStack()
    found = np.array(where, dtype=np.int64), np.array(cells, dtype=np.int64)
    codec.push(stack, found)
    popped = codec.pop(stack)
    assert stack.bits == 0 and all(np.array_equal(a, b) for a, b in zip(popped, found))


def test_a_far_latent_is_an_outlier_and_arrives(crop):
    """Where the picture needs a latent that the prior hardly allows, it is sent by itself and lands within half a step."""
    network = zoo.load("pln")
    latents = ladder_codec.Latents(network, 4, *crop.shape[:2])
    evidence, upper_evidence = latents.evidence(crop)
    upper = latents.upper()
    q2 = ladder_codec.target(upper, upper_evidence)
    lower = latents.lower(np.rint(q2.mean * tree.GRID) / tree.GRID)
    q1 = ladder_codec.target(lower, evidence)
    where = ladder_codec.outliers(lower, q1)
    far = np.abs(q1.mean - lower.proposal.mean) / lower.proposal.scale
    assert np.array_equal(where, np.flatnonzero(far > ladder_codec.OUTLIER)) and where.size
    cells = dither.encode(q1[where], lower.proposal[where], ladder_codec.SEED, "uniform", where)
    landed = dither.decode(cells, lower.proposal[where], ladder_codec.SEED, q1.scale[where], "uniform", where)
    assert (np.abs(landed - q1.mean[where]) <= np.sqrt(3) * q1.scale[where] * (1 + 1e-9)).all()
    coded = ladder_codec.encode(network, crop, 4)
    assert coded.outliers and coded.bits[1] > 8
