"""Exact networks: the same outputs to the last bit however they are computed, nearly those of the float network, and a round trip through the coder."""

import contextlib
import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize

from shvc_lib import data, nn
from shvc_lib.coding import BitStack, logistic_mixture, mean_index, quantize, scale_index, weight_index
from shvc_lib.errors import CorruptFile, InvalidInput, MissingData
from shvc_lib.nn.exact import to_exact
from shvc_lib.nn.exact_layer import ExactLayer, balanced_rounding


torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch says so whenever oneDNN is switched
K = 3


class Net(torch.nn.Module):
    """Every fourth pixel -> a mixture of K logistics for each colour of its lower right neighbour. Means in units of 128 levels, around 128."""

    def __init__(self, width=24):
        super().__init__()
        conv = torch.nn.Conv2d
        self.enter, self.first, self.second = conv(3, width, 3, padding=1), conv(width, width, 3, padding=1), conv(width, width, 3, padding=1)
        self.skip, self.leave = conv(3, 9 * K, 3, padding=1, groups=3), conv(width, 9 * K, 1)
        self.offset = torch.nn.Parameter(torch.randn(width, 1, 1) / 10)  # belongs to no layer
        with torch.no_grad():
            self.skip.weight.zero_()
            self.skip.weight[0::3, 0, 1:, 1:] = 0.25  # outputs 3j are means: they start as the mean of four neighbours
            self.skip.bias.copy_(torch.randn(9 * K) / 10)
            self.skip.bias[1::3] += 2.5

    def forward(self, x):
        h = self.enter(x) + self.offset
        h = h + self.second(torch.relu(self.first(torch.relu(h))))
        return self.leave(torch.relu(h)) + self.skip(x)


def split(images):
    """uint8 (B, H, W, 3) -> context (B, 3, H/2, W/2), multiples of 1/128, and targets (B, H/2, W/2, 3)."""
    images = torch.from_numpy(images)
    return (images[:, ::2, ::2].permute(0, 3, 1, 2).contiguous() - 128.0) / 128, images[:, 1::2, 1::2].contiguous()


def parameters(outputs):
    """(B, 9K, H, W) -> means (in units), log_scales, logits, each (B, H, W, 3, K)."""
    b, _, h, w = outputs.shape
    return outputs.reshape(b, 3, K, 3, h, w).permute(3, 0, 4, 5, 1, 2)


def float_cdf(outputs):
    means, log_scales, logits = parameters(outputs.double()).numpy()
    return mean_index(means * 128 + 128), scale_index(np.exp(log_scales.clip(-20, 20))), weight_index(np.exp(logits - logits.max(-1, keepdims=True)))


def exact_cdf(outputs):
    means, log_scales, logits = nn.to_integers(parameters(outputs))
    return nn.exact_means(means + (1 << 12), bits=12 - 7), nn.exact_scales(log_scales), nn.exact_weights(logits)


def float_bits(outputs, targets):
    means, log_scales, logits = parameters(outputs)
    return -nn.mixture_log_mass(targets, means * 128 + 128, log_scales, logits).sum() / math.log(2)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = Net()
    steps, batch = 150, 16
    images = data.patches([data.photograph(name) for name in ("astronaut", "coffee", "motorcycle")], 32, steps * batch, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for k in range(steps):
        x, targets = split(images[k * batch : (k + 1) * batch])
        optimizer.zero_grad()
        (float_bits(net(x), targets) / targets.numel()).backward()
        optimizer.step()
        schedule.step()
    return net.eval(), split(images[:64])[0]


@pytest.fixture(scope="module")
def held_out():
    return data.patches([data.photograph("chelsea")], 32, 64, seed=2)


@pytest.fixture(scope="module")
def twin(trained):
    net, images = trained
    return nn.to_exact(net, lambda net: net(images))


# --- the same to the last bit -----------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def threads(count):
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def in_parts(net, x, *sizes):
    return torch.cat([net(part) for part in x.split(sizes)])


def one_by_one(net, x):
    return in_parts(net, x, *[1] * len(x))


def two_threads(net, x):
    with threads(2):
        return net(x)


def without_onednn(net, x):
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=False):
        return net(x)


def channels_last(net, x):
    return net(x.contiguous(memory_format=torch.channels_last))


def autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net(x)


def low_precision(net, x):
    torch.set_float32_matmul_precision("medium")
    try:
        outputs = net(x)
        assert torch.get_float32_matmul_precision() == "medium"  # put back
    finally:
        torch.set_float32_matmul_precision("highest")
    return outputs


WAYS = {"batch 1": one_by_one, "63 + 1": lambda net, x: in_parts(net, x, 63, 1), "two threads": two_threads,
        "two threads, batch 1": lambda net, x: two_threads(lambda part: one_by_one(net, part), x), "channels last": channels_last,
        "oneDNN off": without_onednn, "oneDNN off, batch 1": lambda net, x: without_onednn(lambda part: one_by_one(net, part), x),
        "autocast": autocast, "low precision": low_precision, "a copy": lambda net, x: copy.deepcopy(net)(x.clone())}


@pytest.mark.parametrize("way", WAYS)
def test_the_twin_is_the_same_however_it_is_run(trained, twin, held_out, way):
    x = split(held_out)[0]
    with torch.no_grad():
        expected, outputs = twin(x), WAYS[way](twin, x)
    assert torch.equal(outputs, expected) and outputs.dtype == torch.float32


@pytest.mark.parametrize("name", ["float64", "int64"])
def test_the_twin_is_the_same_in_other_arithmetic(twin, held_out, name):
    x = split(held_out)[0]
    with nn.arithmetic(twin, name):
        outputs = twin(x)
    assert outputs.dtype == torch.float64 and torch.equal(outputs, twin(x).double())


def float_masses(outputs):
    """Integer masses of the first rows' 256 levels, quantised from float masses as codecs commonly do."""
    means, log_scales, logits = parameters(outputs[:, :, :2])[..., None, :]
    return quantize(nn.mixture_log_mass(torch.arange(256), means * 128 + 128, log_scales, logits).exp().numpy())


def test_a_float_network_is_not_the_same(trained, twin, held_out):
    """Batch 64 against batch 1: the float network's integer CDFs differ for nearly every image, the twin's for none. Rounding the float
    parameters to the coder's grids makes a difference rare, which is worse: one symbol that slips garbles a file."""
    net, x = trained[0], split(held_out)[0]
    with torch.no_grad():
        together, alone = net(x), one_by_one(net, x)
        images = lambda a, b: (a != b).reshape(64, -1).any(1)
        assert not torch.equal(together, alone)
        assert images(float_masses(together), float_masses(alone)).mean() > 0.5
        grids = [images(a, b) for a, b in zip(float_cdf(together), float_cdf(alone))]
        print(f"images with other masses {images(float_masses(together), float_masses(alone)).mean():.0%}, grids {np.any(grids, axis=0).mean():.0%}")
        for a, b in zip(exact_cdf(twin(x)), exact_cdf(one_by_one(twin, x))):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(float_masses(twin(x)), float_masses(one_by_one(twin, x)))


LAYERS = {
    "conv1d": (lambda: torch.nn.Conv1d(8, 16, 5, stride=2, padding=3, dilation=2), (8, 33)),
    "conv2d": (lambda: torch.nn.Conv2d(12, 18, (3, 5), stride=(2, 1), padding=(0, 2), groups=6, bias=False), (12, 17, 15)),
    "depthwise": (lambda: torch.nn.Conv2d(16, 16, 3, padding=1, groups=16), (16, 12, 12)),
    "wide": (lambda: torch.nn.Conv2d(64, 64, 3, padding=1), (64, 16, 16)),
    "conv3d": (lambda: torch.nn.Conv3d(4, 6, (4, 3, 3), padding=(3, 1, 1)), (4, 5, 8, 8)),
    "linear": (lambda: torch.nn.Linear(300, 200), (7, 300)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer(kind):
    """Kernels, strides, groups and dilations against the reference, with activations inside, at and far beyond the calibrated range."""
    torch.manual_seed(len(kind))
    make, shape = LAYERS[kind]
    layer = make()
    x = (torch.rand(32, *shape) * 4096).round() / 4096 - 0.5
    twin = nn.to_exact(layer, lambda layer: layer(x))
    for factor in (1, 64):
        wild = torch.cat([x, x.sign()]) * factor
        with nn.arithmetic(twin, "int64"):
            expected = twin(wild)
        for way, run in WAYS.items():
            if way != "channels last" or wild.dim() == 4:
                assert torch.equal(run(twin, wild).double(), expected), way
    sums = twin.weight.long().flatten(1).abs().sum(1) * 2048 + twin.bias.abs()
    assert sums.max() < 1 << 24 and (sums > 1 << 22).all()  # and the bits that there are get used
    close = (twin(x) - layer(x)).abs().max()
    assert close < 2.5e-2 and close > 0  # weights lie within 1 of what they were, not within a half: see `balanced_rounding`


def test_the_bound_is_what_makes_sums_exact():
    """Activations with the signs of one output's weights, at the clamp, make the largest sums that there are. With four
    times the weights they round."""
    torch.manual_seed(1)
    layer, images = torch.nn.Linear(400, 50), torch.rand(8, 400) - 0.5
    twin = nn.to_exact(layer, lambda layer: layer(images))

    for factor, exact in ((1, True), (4, False)):
        weight = twin.weight.long() * factor + factor // 4
        x = weight.sign() * 2047
        sums = torch.nn.functional.linear(x.float(), weight.float(), twin.bias.float())
        assert torch.equal(sums.long(), x @ weight.T + twin.bias) == exact
    twin.weight.mul_(4)
    with pytest.raises(InvalidInput, match="sums could reach"):
        twin.check()


def test_masked_convolution_in_one_pass_or_block_by_block():
    """A masked 3-D convolution over sub-blocks: what the training pass computes for block i is what a decoder computes that knows only blocks before i."""
    class Mask(torch.nn.Module):
        def forward(self, weight):
            return weight * (torch.arange(weight.shape[2]) < weight.shape[2] - 1).to(weight)[:, None, None]

    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 16, (4, 3, 3), padding=(3, 1, 1)), torch.nn.ReLU(), torch.nn.Conv3d(16, 6, 1))
    parametrize.register_parametrization(net[0], "weight", Mask())
    x = torch.randint(-128, 128, (32, 3, 4, 12, 12)) / 128
    twin = nn.to_exact(net, lambda net: net(x))
    assert not (net[0].weight[:, :, -1] != 0).any() and not (twin[0].weight[:, :, -1] != 0).any()
    whole = twin(x)[:, :, :4]
    for known in range(4):
        hidden = x.clone()
        hidden[:, :, known:] = 0
        for one in (0, 31):
            assert torch.equal(twin(hidden[one : one + 1])[:, :, known], whole[one : one + 1, :, known])


# --- nearly the float network -----------------------------------------------------------------------------------------------------------------

def test_the_loss_in_bits_is_small(trained, twin, held_out):
    """Ideal bits of photographs that neither saw: the twin with integer parameters against the float network with float masses."""
    x, targets = split(held_out)
    with torch.no_grad():
        real = float(float_bits(trained[0](x), targets))
        same = float(float_bits(twin(x), targets))
    integer = logistic_mixture(*exact_cdf(twin(x))).bits(targets.numpy()).sum()
    print(f"float {real / targets.numel():.4f} bpd, twin {100 * (same / real - 1):+.3f} %, with integer parameters {100 * (integer / real - 1):+.3f} %")
    assert 2 < real / targets.numel() < 5.5
    assert same / real < 1.005 and integer / real < 1.005


def test_pixels_through_the_stack_encoded_by_16_decoded_one_by_one(twin, held_out):
    images = held_out[:16]
    x, targets = split(images)
    stack, cdfs = BitStack(), exact_cdf(twin(x))
    for i in reversed(range(16)):
        stack.push(targets[i].numpy(), logistic_mixture(*(p[i] for p in cdfs)))
    ideal = logistic_mixture(*cdfs).bits(targets.numpy()).sum()
    assert abs(stack.bits - ideal) < 64 + 1e-4 * ideal
    stack = BitStack.from_bytes(stack.to_bytes())
    for i in range(16):
        decoded = stack.pop(logistic_mixture(*(p[0] for p in exact_cdf(twin(x[i : i + 1])))))
        np.testing.assert_array_equal(decoded.reshape(targets[i].shape), targets[i].numpy())
    assert stack == BitStack()


# --- conversion, files, refusals --------------------------------------------------------------------------------------------------------------

def test_a_file_gives_back_the_twin(trained, twin, held_out, tmp_path):
    path, x = tmp_path / "net.safetensors", split(held_out)[0]
    nn.save_exact(twin, path)
    assert {t.dtype for t in load_file(path).values()} == {torch.int16, torch.int32}
    stranger = Net()
    before = copy.deepcopy(stranger.state_dict())
    loaded = nn.load_exact(stranger, path)
    assert torch.equal(loaded(x), twin(x)) and loaded.state_dict().keys() == twin.state_dict().keys()
    assert all(torch.equal(stranger.state_dict()[name], values) for name, values in before.items())
    nn.save_exact(loaded, tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_damaged_and_foreign_files_are_refused(twin, tmp_path):
    path = tmp_path / "net.safetensors"
    nn.save_exact(twin, path)
    with pytest.raises(MissingData):
        nn.load_exact(Net(), tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="another architecture"):
        nn.load_exact(Net(width=16), path)
    tensors = load_file(path)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)
    with pytest.raises(CorruptFile, match="does not hold an exact network"):
        nn.load_exact(Net(), other)
    other.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match="not a readable"):
        nn.load_exact(Net(), other)
    for name, value in (("first.weight", 32767), ("first.bias", 1 << 24), ("skip.input_shift", 99)):
        broken = copy.deepcopy(twin)
        broken.get_buffer(name).fill_(value)
        nn.save_exact(broken, other)
        with pytest.raises(InvalidInput, match="sums could reach|exponents"):
            nn.load_exact(Net(), other)


def test_the_original_is_left_alone_and_shared_layers_stay_shared():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(4, 4)
            self.b, self.c = self.a, torch.nn.ModuleList([self.a])
            self.offsets = torch.nn.ParameterList([torch.full((4,), 0.3)])

        def forward(self, x):
            return self.c[0](self.b(self.a(x))) + self.offsets[0]

    net, x = Shared(), torch.eye(4)
    before = net(x)
    twin = nn.to_exact(net, lambda net: {"y": net(x)})
    assert torch.equal(net(x), before) and isinstance(net.a, torch.nn.Linear)
    assert twin.a is twin.b is twin.c[0] and isinstance(twin.a, nn.ExactLayer) and not twin.training and not twin(x).requires_grad
    assert torch.equal(twin.offsets[0] * 4096, (twin.offsets[0] * 4096).round())


@pytest.mark.parametrize("function", [torch.sigmoid, torch.nn.functional.gelu, lambda h: h / 3, lambda h: h.softmax(1), lambda h: h * h * h])
def test_operations_that_round_are_refused(function):
    class Rounding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return function(self.layer(x))

    x = torch.randint(-128, 128, (4, 3, 9, 9)) / 128
    with pytest.raises(InvalidInput, match="float32 and float64 differ"):
        nn.to_exact(Rounding(), lambda net: net(x))


def test_layers_without_a_twin_are_refused_by_name():
    x = torch.randint(-128, 128, (2, 3, 8, 8)) / 128

    class Own(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    conv = torch.nn.Conv2d
    unused = Net()
    unused.spare = conv(3, 3, 1)
    loud = conv(3, 3, 1)
    loud.weight.data.fill_(1e3)
    broken = conv(3, 3, 1)
    broken.weight.data[0] = math.nan
    for net, message in ((torch.nn.Sequential(conv(3, 4, 3), torch.nn.BatchNorm2d(4)), "1: BatchNorm2d has no exact twin"),
                         (torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 4, 3)), "0: ConvTranspose2d"),
                         (torch.nn.Sequential(conv(3, 4, 3, padding="same")), "0: exact convolutions pad"),
                         (torch.nn.Sequential(conv(3, 4, 3, padding=1, padding_mode="reflect")), "0: exact convolutions pad"),
                         (torch.nn.Sequential(Own(3, 4, 3)), "0: has a forward of its own"), (unused, "spare: not used"),
                         (torch.nn.Sequential(loud), "0: outputs reach"), (torch.nn.Sequential(broken), "0: ")):
        with pytest.raises(InvalidInput) as caught:
            nn.to_exact(net, lambda net: net(x))
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="unknown arithmetic"), nn.arithmetic(Net(), "float16"):
        pass


def test_what_may_saturate_is_clamped():
    """Outputs in every arithmetic to the same largest number, inputs where a tenth of them is larger; what lies below that is as before."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(3, 40), torch.randn(50, 3).clamp(-1, 1)
    x[:5] *= 1000
    layer.weight.data *= 400
    twin, found = nn.to_exact(torch.nn.Sequential(layer), lambda net: net(x), saturate=0.1), []
    for arithmetic in ("float32", "float64", "int64"):
        with nn.arithmetic(twin, arithmetic):
            found.append(twin(x).double())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found[0].abs().max() == 256
    inside = found[0].abs() < 256
    inside[:5] = False
    assert 0.3 < inside[5:].double().mean() < 0.99 and (found[0] - layer(x))[inside].abs().max() < 1


def settings():
    backends = torch.backends
    precisions = [p.fp32_precision for p in (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv)] if hasattr(backends.mkldnn, "conv") else []
    return torch._C._get_nnpack_enabled(), backends.cudnn.enabled, backends.cudnn.allow_tf32, *precisions


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # the settings can be looked at without a GPU
def test_settings_are_put_back(device):
    for enabled in (True, False):
        for precision in ("highest", "high", "medium"):
            with torch.backends.nnpack.flags(enabled=enabled):
                torch.set_float32_matmul_precision(precision)
                before = settings()
                try:
                    with nn.exact_kernels(device):
                        nnpack, cudnn, _, *rest = settings()
                        assert not cudnn if device == "cuda" else not nnpack
                        assert not rest or rest[device == "cpu"] in ("none", "ieee")
                    assert settings() == before and torch.get_float32_matmul_precision() == precision
                finally:
                    torch.set_float32_matmul_precision("highest")
    before = settings()
    with pytest.raises(ZeroDivisionError), nn.exact_kernels(device):
        1 / 0
    assert settings() == before


def test_another_process_with_older_instructions_computes_the_same(twin, held_out, tmp_path):
    """torch and oneDNN restricted to SSE4.1 and one image at a time: other kernels, other orders of addition."""
    x = split(held_out[:8])[0]
    nn.save_exact(twin, tmp_path / "net.safetensors")
    save_file({"x": x}, tmp_path / "x.safetensors")
    code = ("import sys, torch; from safetensors.torch import load_file, save_file; from test_nn_exact import Net, nn, one_by_one\n"
            "folder = sys.argv[1]; x = load_file(folder + '/x.safetensors')['x']; net = nn.load_exact(Net(), folder + '/net.safetensors')\n"
            "save_file({'y': one_by_one(net, x)}, folder + '/y.safetensors'); print(torch.backends.cpu.get_cpu_capability())")
    older = dict(os.environ, ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41", MKL_ENABLE_INSTRUCTIONS="SSE4_2",
                 PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(nn.__file__).parents[2])]))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=older, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], twin(x)), done.stdout


def test_a_layer_of_zeros_and_one_of_huge_bias():
    layer = torch.nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[2, 0] = 1e-3
        layer.bias.copy_(torch.tensor([0.0, 200.0, -1e-4]))
    twin = nn.to_exact(layer, lambda layer: layer(torch.zeros(1, 3)))
    assert torch.equal(twin(torch.zeros(1, 3)), torch.tensor([[0.0, 200.0, 0.0]]))


def test_rounding_is_balanced_along_typical_inputs():
    """Every weight stays within 1 of itself, zeros stay zeros, and the product with typical inputs is far closer than after rounding to the nearest."""
    rng = np.random.default_rng(0)
    rows, typical = rng.normal(0, 40, (8, 90)), rng.uniform(0.5, 1.5, (8, 90))
    rows[:, ::5] = 0
    whole = balanced_rounding(rows, typical)
    assert np.all(whole == np.rint(whole)) and np.all(np.abs(whole - rows) < 1) and not whole[:, ::5].any()
    nearest, balanced = (np.abs(((r - rows) * typical).sum(1)) for r in (np.rint(rows), whole))
    assert balanced.max() < 1.6 and balanced.mean() < nearest.mean() / 3


def test_balance_makes_a_linear_prediction_of_bright_areas_exact_enough():
    """A convolution with many small weights over flat tiles of any brightness: less error than after rounding to the nearest."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(12, 6, 3, padding=1)
    layer.weight.data = torch.rand(layer.weight.shape) * 8 / 108
    flat = (torch.randint(0, 256, (40, 1, 1, 1)).float() - 128) / 128 * torch.ones(40, 12, 6, 6)
    twin, plain = to_exact(layer, lambda m: m(flat)), ExactLayer(layer)
    plain.quantize(layer.weight, layer.bias, float(flat.abs().max()))
    with torch.no_grad():
        errors = [float((network(flat) - layer(flat)).abs().mean()) for network in (twin, plain)]
    assert errors[0] < errors[1] / 2
