"""The codec of integer latents: the receiver's picture is the sender's, and the bytes are what the masses say."""

import math
import os
import subprocess
import sys
from zlib import crc32

import numpy as np
import pytest
import torch

import shvc_lib
from shvc_lib import cli, container, data, images, lossy, metrics, nn, zoo
from shvc_lib.coding.tables import SCALE_STEPS, SCALE_ZERO
from shvc_lib.errors import CorruptFile, InvalidInput, UnknownModel, UnsupportedImage
from shvc_lib.models import discretized_codec as codec
from shvc_lib.models.discretized import DiscretizedVAE, box_mass
from shvc_lib.models.discretized_calibration import ready
from shvc_lib.nn import load_partly_exact, save_partly_exact

TINY = {"lambdas": (0.002, 0.02), "latents": 10, "width": 8, "components": 2}
DEEP = {"upper": 4, "hidden": 8, "features": 12}
KINDS = {1: {}, 3: {**DEEP, "groups": (10,)}, 12: {**DEEP, "groups": (1, 2, 2, 2, 3), "fields": 2}}
SHIPPED = [name for name in zoo.names() if name.startswith("dvae")]


@pytest.fixture(scope="module")
def photographs():
    torch.set_num_threads(1)
    return torch.from_numpy(data.patches([data.photograph("coffee"), data.photograph("chelsea")], 64, 8, seed=1))


def trained(photographs, layers):
    """A small network: prepared, and then random numbers in the place of the zeros that it begins with."""
    torch.manual_seed(0)
    model = DiscretizedVAE(**TINY, **KINDS[layers])
    model.prepare(photographs)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "kernel" not in name and "log_gain" not in name and "spread" not in name:
                values += 0.2 * torch.randn_like(values) / math.sqrt(values[0].numel() if values.ndim > 2 else 4)
        if layers > 1:
            model.upper_log_gain += 2
    return model


@pytest.fixture(scope="module")
def networks(photographs):
    return {layers: ready(trained(photographs, layers), photographs[:4].permute(0, 3, 1, 2)) for layers in KINDS}


def photo(height, width):
    """A part of the astronaut: face, flag and fabric."""
    return data.photograph("astronaut")[40:40 + height, 128:128 + width].copy()


@pytest.mark.parametrize("layers", KINDS)
@pytest.mark.parametrize("height, width", [(1, 1), (5, 3), (16, 16), (65, 17), (130, 70)])
def test_the_receiver_has_the_senders_picture(networks, layers, height, width):
    """Any size, any operating point; ideal bits are the rows', and the bytes are as many and a word."""
    network, image = networks[layers], photo(height, width)
    for point in range(2):
        coded = codec.encode(network, image, point)
        picture, agreed = codec.decode(network, coded.payload, height, width)
        assert picture.dtype == np.uint8 and picture.shape == image.shape and np.array_equal(picture, coded.picture) and agreed == coded.agreed
        ideal, actual = sum(bits.sum() for bits in coded.bits), 8 * len(coded.payload)
        assert ideal < actual <= 1.001 * ideal + 64
        down = 64 if layers > 1 else 16
        high, wide = (down // 16 * math.ceil(side / down) for side in (height, width))
        shapes = [(4, high // 4, wide // 4), (4, high // 2, wide // 2)] if layers > 1 else []
        assert [bits.shape for bits in coded.bits[:2 * (layers > 1)]] == shapes and len(coded.bits) == layers
        below = coded.bits[2:] if layers > 1 else coded.bits
        assert sum(len(bits) for bits in below) == (20 if layers == 12 else 10) and all(bits.shape[1:] == (high, wide) for bits in below)
        if layers == 12:
            assert all((a[:, ::2, 1::2] == 0).all() and (a[:, ::2, ::2] > 0).all() and ((a > 0) != (b > 0)).all() for a, b in zip(below[::2], below[1::2]))


@pytest.mark.parametrize("layers", KINDS)
def test_latents_arrive_rounded_about_their_means(networks, layers, monkeypatch):
    """Every latent within half an integer of where the analysis has it, as none of them is clipped; and what is coded again is the same."""
    network, image, point = networks[layers], photo(64, 128), torch.tensor([1])
    seen = []
    monkeypatch.setattr(codec, "picture", lambda model, y, point, size: seen.append(y) or image)
    coded = codec.encode(network, image, 1)
    codec.decode(network, coded.payload, 64, 128)
    with torch.no_grad():
        y = network.latents(torch.from_numpy(image).permute(2, 0, 1)[None], point)[0].double().numpy()
    assert np.array_equal(*seen) and seen[0].shape == y.shape and seen[0].dtype == np.float64
    assert np.abs(seen[0] - y).max() <= 0.5 and np.array_equal(seen[0] * 16, np.rint(seen[0] * 16))
    assert layers > 1 or np.array_equal(seen[0], np.rint(y))
    assert codec.encode(network, image, 1).payload == coded.payload


@pytest.mark.parametrize("layers", KINDS)
def test_bits_are_those_of_the_normals_that_the_network_forecasts(networks, layers):
    """Each step's masses, against box_mass about 0 with the scale of its index; what is said of the rows is so."""
    network, image = networks[layers], photo(64, 64)
    walk = codec.steps(network, 0, 64, 64)
    step, total = next(walk), []
    rng = np.random.default_rng(0)
    number = 0
    while step is not None:
        size = sum(len(where) for _, where in step.rows.groups)
        assert step.mean.shape == (len(range(*step.channels.indices({"z1": 4, "z2": 4, "y": 10}[step.source]))), step.where.sum()) and size == step.mean.size
        assert np.array_equal(np.sort(np.concatenate([where for _, where in step.rows.groups])), np.arange(size))
        k = rng.integers(-3, 4, size)
        bits = step.rows.bits(k)
        for row, where in step.rows.groups:
            assert row.frequencies().sum() == 1 << 24 and row.lower == -row.size // 2 and bits[where] == pytest.approx(row.bits(k[where]))
        if step.agreed:
            both = np.frombuffer(step.agreed, "<i4").reshape(2, -1)
            assert np.array_equal(both[0], step.mean.reshape(-1)) and 0 <= both[1].min() and both[1].max() <= 112
            scale = torch.from_numpy(np.exp((both[1] - SCALE_ZERO) / SCALE_STEPS))
            mass = box_mass(torch.from_numpy(k).double(), 0.0, scale).numpy()
            assert bits[mass > 1e-4] == pytest.approx(-np.log2(mass[mass > 1e-4]), abs=0.01)
            far = step.rows.clipped(np.full(size, 10**6)), step.rows.clipped(np.full(size, -(10**6)))
            assert (far[0] >= 127).all() and (far[1] == -far[0] - 1).all() and (far[0] + 1 >= np.floor(10 * scale.numpy())).all()
        total.append(bits.sum())
        step, y = codec._send(walk, k.reshape(step.mean.shape))
        number += 1
    assert number == layers == network.layers and y.shape == (10, 4, 4)
    with pytest.raises(InvalidInput, match="operating points"):
        codec.encode(network, image, 2)
    with pytest.raises(InvalidInput, match="operating points"):
        codec.encode(network, image, -1)


def test_means_and_scales_are_the_networks_times_the_units(networks):
    """After a z1 of noughts: z2's Normals in integers, to half a sixteenth and half a step of the scale grid."""
    network, points = networks[12], torch.tensor([1])
    walk = codec.steps(network, 1, 64, 64)
    top = next(walk)
    step = walk.send(np.zeros(top.mean.shape, np.int64))
    layer = next(network.hierarchy.walk(torch.zeros(1, 4, 1, 1), points))
    with torch.no_grad():
        unit = network.units(points)[2]
        mean, log_scale = (layer.mean * unit).flatten(), (layer.log_scale + unit.log()).flatten()
    assert step.source == "z2" and np.abs(step.mean.reshape(-1) / 16 - mean.numpy()).max() < 1 / 32 + 0.01 and np.abs(mean.numpy()).max() > 0.5
    scales = np.frombuffer(step.agreed, "<i4").reshape(2, -1)[1]
    assert np.abs((scales - SCALE_ZERO) / SCALE_STEPS - log_scale.numpy()).max() < 1 / 32 + 0.01


@pytest.mark.parametrize("layers", KINDS)
def test_what_is_too_far_is_clipped_at_both_ends_alike(networks, photographs, layers, monkeypatch):
    """Pictures as no photograph is, under priors that are far too sure: latents are cut, the file decodes, the integers are the same at both ends."""
    model, rng = trained(photographs, layers), np.random.default_rng(0)
    with torch.no_grad():
        model.log_gain += 3
        if layers == 1:
            model.prior.log_scale -= 9
        else:
            for shift in model.hierarchy.last_shift:
                shift[:, shift.shape[1] // 2:] -= 6
    narrow = ready(model, photographs[:4].permute(0, 3, 1, 2))
    board = np.kron(np.indices((8, 10)).sum(0) % 2, np.ones((8, 8), int))[:, :, None].repeat(3, 2) * 255
    pattern = (narrow.analysis.kernel[1].detach().permute(1, 2, 0).numpy() > 0) * 255
    cut, clipped = [], codec.Rows.clipped
    monkeypatch.setattr(codec.Rows, "clipped", lambda rows, k: cut.append((clipped(rows, k) != k).sum()) or clipped(rows, k))
    for image in (board, rng.integers(0, 2, (64, 80, 3)) * 255, np.tile(pattern, (4, 5, 1)), np.full((64, 80, 3), 255), np.zeros((64, 80, 3))):
        image = image.astype(np.uint8)
        for network in (narrow, networks[layers]):
            coded = codec.encode(network, image, 1)
            picture, agreed = codec.decode(network, coded.payload, 64, 80)
            assert np.array_equal(picture, coded.picture) and agreed == coded.agreed
            assert 8 * len(coded.payload) <= 1.001 * sum(bits.sum() for bits in coded.bits) + 64
    assert sum(cut) > 100


@pytest.mark.parametrize("layers", [3, 12])
def test_the_arithmetic_does_not_matter(networks, layers):
    """The hierarchy in float64 and in integers: the same means, scales and picture."""
    network, image = networks[layers], photo(70, 60)
    coded = codec.encode(network, image, 1)
    for name in ("float64", "int64"):
        with nn.arithmetic(network.hierarchy, name):
            picture, agreed = codec.decode(network, coded.payload, 70, 60)
            assert agreed == coded.agreed and np.array_equal(picture, coded.picture)
            assert codec.encode(network, image, 1).payload == coded.payload


PROGRAM = """
import sys, json, zlib, numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
from shvc_lib.models import discretized_codec, discretized
from shvc_lib.nn import load_partly_exact
folder, found = sys.argv[2], {}
for layers, arguments in json.load(open(folder + "/arguments.json")).items():
    network = load_partly_exact(discretized.DiscretizedVAE(**arguments), f"{folder}/{layers}.safetensors")
    picture, agreed = discretized_codec.decode(network, open(f"{folder}/{layers}.bin", "rb").read(), 150, 100)
    found[layers] = [zlib.crc32(agreed), zlib.crc32(picture.tobytes())]
print(json.dumps(found))
"""


def test_a_fresh_process_with_other_threads_and_kernels_agrees(networks, tmp_path):
    """One thread or two, AVX2 or none: what both ends must share is the same, bit for bit, and so is the picture."""
    import json

    expected = {}
    for layers in (1, 12):
        save_partly_exact(networks[layers], tmp_path / f"{layers}.safetensors")
        network = load_partly_exact(DiscretizedVAE(**TINY, **KINDS[layers]), tmp_path / f"{layers}.safetensors")
        coded = codec.encode(network, photo(150, 100), 1)
        (tmp_path / f"{layers}.bin").write_bytes(coded.payload)
        expected[str(layers)] = [crc32(coded.agreed), crc32(coded.picture.tobytes())]
    (tmp_path / "arguments.json").write_text(json.dumps({layers: {**TINY, **KINDS[layers]} for layers in (1, 12)}))
    for threads, kernels in ((1, "default"), (2, "avx2")):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(threads), str(tmp_path)], capture_output=True, text=True, check=True,
                              env={**os.environ, "ATEN_CPU_CAPABILITY": kernels, "OMP_NUM_THREADS": str(threads)})
        assert json.loads(done.stdout) == expected, kernels


@pytest.mark.parametrize("layers", [1, 12])
def test_a_checkpoint_makes_the_same_bytes(networks, layers, tmp_path):
    """Tables come back as they are, matrices as 16-bit floats; a file that was read and written again is the same, and so are the codec's bytes."""
    network, paths = networks[layers], [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    save_partly_exact(network, paths[0])
    first = load_partly_exact(DiscretizedVAE(**TINY, **KINDS[layers]), paths[0])
    save_partly_exact(first, paths[1])
    second = load_partly_exact(DiscretizedVAE(**TINY, **KINDS[layers]), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes() and not first.training
    for name, values in network.state_dict().items():
        if values.is_floating_point() and (values.ndim > 2 or values.ndim == 2 and values.numel() > 4096) and not name.startswith("hierarchy."):
            values = values.half().float()
        assert torch.equal(first.state_dict()[name], values), name
    coded = [codec.encode(one, photo(70, 60), 1) for one in (network, first, second)]
    assert coded[1].payload == coded[2].payload and coded[1].agreed == coded[2].agreed and np.array_equal(coded[1].picture, coded[2].picture)
    assert len(coded[0].payload) == pytest.approx(len(coded[1].payload), rel=0.01, abs=3)
    assert np.array_equal(codec.decode(second, coded[1].payload, 70, 60)[0], coded[1].picture)


def test_ready_makes_integers_of_what_both_ends_share(photographs):
    """Means in sixteenths, indices of scales, weights of 4096, units and their inverses; the model in training is left as it was."""
    for layers in (1, 12):
        model = trained(photographs, layers).train()
        before = {name: values.clone() for name, values in model.state_dict().items()}
        network = ready(model, photographs[:4].permute(0, 3, 1, 2))
        assert model.training and not network.training and all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
        points = torch.arange(2)
        prior, gains = (network.prior, model.log_gain.exp()) if layers == 1 else (network.top, model.upper_log_gain[:, :4].exp())
        with torch.no_grad():
            mean, scale, weight = prior.parameters_at(points, gains)
        for table in (prior.means, prior.scales, prior.weights):
            assert table.dtype == torch.int32
        assert (prior.means / 16 - mean).abs().max() <= 1 / 32 + 1e-5 and (prior.weights.sum(-1) == 4096).all()
        assert (((prior.scales - 48) / 16).exp().log() - scale.log()).abs().max() <= 1 / 32 + 1e-5 and (prior.weights / 4096 - weight).abs().max() < 1 / 4096
        if layers > 1:
            units = torch.cat([unit[:, :, 0, 0] for unit in model.units(points)], 1).detach()
            assert units.shape == (2, 10 + 8) and network.unit_table.dtype == network.inverse_table.dtype == network.log_table.dtype == torch.int32
            assert (network.unit_table / 256 - units).abs().max() <= 1 / 512 + 1e-5 and (network.inverse_table / 4096 - 1 / units).abs().max() <= 1 / 8192 + 1e-5
            assert (network.log_table / 4096 - units.log()).abs().max() <= 1 / 8192 + 1e-5
            assert not any(values.is_floating_point() for name, values in network.hierarchy.state_dict().items() if "shift" not in name)


@pytest.mark.parametrize("layers", [1, 12])
def test_damage_is_noticed_and_never_crashes(networks, layers):
    """Flipped bits, cut ends, other operating points and bytes that were never ours: CorruptFile, or other integers than the sender's."""
    network, image, rng = networks[layers], photo(64, 64), np.random.default_rng(layers)
    coded = codec.encode(network, image, 1)
    payload = coded.payload

    def noticed(damaged):
        try:
            picture, agreed = codec.decode(network, damaged, 64, 64)
        except CorruptFile:
            return True
        assert picture.shape == image.shape and (agreed != coded.agreed or np.array_equal(picture, coded.picture))
        return agreed != coded.agreed

    unnoticed = 0  # the coder's first word is not empty, and a few of its bits may be anything: the picture is the same
    for bit in rng.choice(8 * len(payload), 60, replace=False):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        unnoticed += not noticed(bytes(damaged))
    assert unnoticed <= 5
    for length in {0, 1, 2, 5, 6, *range(7, len(payload), 9), len(payload) - 1}:
        assert noticed(payload[:length])
    for first in (2, 255):
        with pytest.raises(CorruptFile, match="does not begin"):
            codec.decode(network, bytes([first]) + payload[1:], 64, 64)
    assert noticed(b"\0" + payload[1:]) and noticed(payload + b"\1") and noticed(payload + bytes(3))
    for _ in range(300 if layers == 1 else 100):
        random = rng.integers(0, 256, rng.integers(0, 2 * len(payload)), dtype=np.uint8).tobytes()
        assert noticed(bytes([rng.integers(2)]) + random)
    for size in ((64, 65), (65, 64), (128, 128)):
        with pytest.raises(CorruptFile):  # more latents than there are bits for
            codec.decode(network, payload, *size)


def test_what_no_model_can_code_is_refused(networks):
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UnsupportedImage, match="uint8 images of shape"):
            codec.encode(networks[1], image, 0)


# The models that ship, through `shvc_lib.encode` and `decode`


@pytest.mark.parametrize("name", SHIPPED)
def test_more_quality_is_more_bytes_and_less_error(name):
    image = photo(128, 192)
    files = [shvc_lib.encode(image, model=name, quality=quality) for quality in (1, 3, 6)]
    pictures = [shvc_lib.decode(file) for file in files]
    assert sorted(map(len, files)) == list(map(len, files)) and len(files[0]) < len(files[2]) / 2
    errors = [metrics.psnr(image, picture) for picture in pictures]
    assert sorted(errors) == errors and errors[0] > 20 and errors[2] > 30
    assert shvc_lib.encode(image, model=name) == files[1] and lossy.get(name).qualities == 6


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("shape", [(1, 1), (33, 47), (16, 64, 1), (20, 30, 3)])
def test_grey_and_coloured_pictures(name, shape):
    grey = np.ascontiguousarray(data.photograph("chelsea")[100:100 + shape[0], 150:150 + shape[1], 1])
    image = grey.reshape(*shape[:2], *[1] * (len(shape) - 2)) if shape[2:] != (3,) else photo(*shape[:2])
    payload, picture, checksum = lossy.get(name).encode(image, 6)
    back, again = lossy.get(name).decode(payload, shape)
    assert back.shape == shape and back.dtype == np.uint8 and np.array_equal(back, picture) and again == checksum
    file = shvc_lib.encode(image, model=name, quality=6)
    assert shvc_lib.decode(file).shape == shape and len(file) <= image.size + 40
    assert min(shape[:2]) < 16 or metrics.psnr(image, picture) > 26


@pytest.mark.parametrize("name", SHIPPED)
def test_a_files_header_and_what_is_wrong_with_it(name):
    image = photo(64, 64)
    file = shvc_lib.encode(image, model=name, quality=2)
    about = shvc_lib.info(file)
    assert about["lossy"] and not about["stored"] and about["model"] == name and about["revision"] == int(zoo.card(name)["sha256"][:4], 16)
    header, payload = container.unpack(file)

    def packed(**changes):
        values = {"model": name, "revision": header.revision, "shape": header.shape, "raw": False, "payload_bytes": 0, "pixel_crc": header.pixel_crc, "lossy": True}
        return container.pack(container.Header(**(values | changes)), payload)

    assert packed() == file
    with pytest.raises(UnknownModel, match="revision"):
        shvc_lib.decode(packed(revision=header.revision ^ 1))
    with pytest.raises(UnknownModel, match="no lossy model is called 'dvae-2'"):
        shvc_lib.decode(packed(model="dvae-2"))
    with pytest.raises(CorruptFile, match="latents"):
        shvc_lib.decode(packed(pixel_crc=header.pixel_crc ^ 1))
    with pytest.raises(CorruptFile, match="4 channels"):
        shvc_lib.decode(packed(shape=(64, 64, 4)))
    with pytest.raises(CorruptFile):
        shvc_lib.decode(packed(shape=(64, 200, 3)))
    for quality in (0, 7):
        with pytest.raises(InvalidInput, match="qualities 1 .* to 6"):
            shvc_lib.encode(image, model=name, quality=quality)
    with pytest.raises(UnsupportedImage, match="alpha"):
        shvc_lib.encode(np.zeros((8, 8, 4), np.uint8), model=name)


@pytest.mark.skipif("dvae-12" not in SHIPPED, reason="dvae-12 is not among the trained networks")
def test_the_command_line_in_fresh_processes(tmp_path, capsys):
    """shvc encode --model dvae-12, info, and decode by a process with other kernels."""
    image = photo(90, 75)
    images.write_image(tmp_path / "photo.png", image)
    file = tmp_path / "photo.shvc"
    assert cli.main(["encode", str(tmp_path / "photo.png"), "--model", "dvae-12", "--quality", "6"]) == 0
    assert cli.main(["info", str(file)]) == 0
    out = capsys.readouterr().out
    assert "90 x 75 x 3" in out and "with loss" in out and "dvae-12" in out
    here = shvc_lib.decode(file.read_bytes())
    for threads, kernels in ((1, "default"), (2, "avx2")):
        back = tmp_path / f"{kernels}.png"
        subprocess.run([sys.executable, "-m", "shvc_lib.cli", "decode", str(file), str(back)], check=True, capture_output=True,
                       env={**os.environ, "ATEN_CPU_CAPABILITY": kernels, "OMP_NUM_THREADS": str(threads)})
        assert np.array_equal(images.read_image(back), here)
    for arguments, word in ((["--model", "dvae-12", "--quality", "7"], "qualities 1"), (["--model", "dvae-13"], "dvae-12"), (["--model", "linear", "--quality", "2"], "lossless")):
        assert cli.main(["encode", str(tmp_path / "photo.png"), str(tmp_path / "out.shvc"), *arguments]) == 1
        streams = capsys.readouterr()
        assert word in streams.err and streams.err.count("\n") == 1 and not (tmp_path / "out.shvc").exists()
