"""`linear-net`: the passes and the fitted predictions of `linear`, and a small network for what these leave over.

`linear` fits itself to the image at hand, but only in straight lines: its mean is a weighted sum of the neighbours, and one number, a weighted sum of their
errors, has to say how far off it will be. Here a perceptron with two hidden layers, trained once and for all, looks at the same neighbours: how far each is
from the prediction and how badly it was predicted itself, both in units of the scale that `linear` would use. So it sees light and dark, sharp and noisy
photographs alike, and it answers in the same units: a mixture of discretised logistics per sub-pixel,

    p(x | known) = sum_k w_k logistic(x; m + s a_k, s e^(b_k))        m, s: mean and scale of `linear`; a, b, log w: the network's

with one perceptron for each pass and each of the colours, nine in all. It is a deterministic SHVC without latents of its own (the levels below are sub-sampled
pixels), whose linear skips are fitted to each image anew. And so are the last layer's biases: photographs differ, above all in how much the colours have in
common, so a step may tune a, b and log w by a number each and a multiple of log s each (`linear_tune`). All arithmetic from pixels to CDFs is on integers
(`nn.exact`). A narrow network with one logistic (K = 1) and `lean` inputs decodes several times as fast: `linear-net-fast`. Taught in chapter 7.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from ..coding import Ahead, Codec, Uniform, autoregressive, independent, laplace, logistic, logistic_mixture
from ..coding.ahead import helpers
from ..coding.codec import all_or_nothing
from ..errors import InvalidInput
from ..nn.distributions import mixture_log_mass, with_floor
from ..nn.exact import to_exact
from ..nn.parameters import OUTPUT_BITS, relative_mixture, to_integers
from .linear import LARGE, PASSES, Parameters, by_rows, default_parameters, parameter_codecs, predict, steps
from .linear_layout import bands
from .linear_net_inputs import INPUT_BITS, LEVELS, ROWS, NetCanvas, pass_of, size_of

_BAND = 1 << 16  # pixels that the network sees at a time
TUNING_BITS, TUNING_LIMIT, TUNING_SCALE = 4, 64, 4  # multiples of 2^-4 in -64 ... 63, coded as if Laplace with a scale of four
PLAIN, NETWORK, TUNED = range(3)  # what a step may be coded with: the logistic of `linear`, the network's mixture, that one tuned


def head_of(net, step):
    """The perceptron of a step."""
    return net.heads[3 * pass_of(step) + len(step.earlier)]


class LinearNet(nn.Module):
    """Nine perceptrons: pass by pass, and in each for the first, second and third colour in the order green, red, blue.

    width: of the hidden layers; components: of the mixtures; lean: see `NetCanvas.inputs`. Raises InvalidInput."""

    single = False  # see `NetCanvas.inputs`

    def __init__(self, width=64, components=3, lean=False):
        super().__init__()
        if width < 1 or components < 1:
            raise InvalidInput(f"width and components must be positive, got {width} and {components}")
        self.components, self.lean = components, lean
        self.heads = nn.ModuleList(self._head(size_of(number, earlier, lean), width) for number in range(len(PASSES)) for earlier in range(3))
        self._known = {}

    def _head(self, inputs, width):
        last = nn.Linear(width, 3 * self.components)
        with torch.no_grad():  # begin as `linear`: a mixture of its logistic, a little narrower and a little wider
            last.weight *= 0.1
            last.bias.zero_()
            last.bias[self.components:2 * self.components] = torch.linspace(-0.6, 0.6, self.components) if self.components > 1 else 0
        return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)

    def forward(self, step, inputs):
        """(offsets, log scales, logits), each (pixels, components): relative to mean and scale of `linear`. inputs: int (inputs, pixels)."""
        x = torch.from_numpy(np.ascontiguousarray(inputs.T)).to(self.heads[0][0].weight.device, torch.float32) / (1 << INPUT_BITS)
        return head_of(self, step)(x).unflatten(-1, (3, self.components)).unbind(1)

    # training ---------------------------------------------------------------------------------------------------------------------

    def noise(self, batch, generator, side):
        """What one step draws: for each image the pass and the rows that it looks at."""
        return [torch.randint(0, len(PASSES) * ROWS, (batch,), generator=generator)]

    def loss(self, images, noise):
        """(bits per sub-pixel, {"linear": what `linear` would need for the same}) of uint8 images (N, 3, H, W).

        One row of every `ROWS` of one pass is looked at. `linear` is fitted to an image when it is first seen; its means and scales are kept."""
        nats, before, count = 0, 0.0, 0
        for step, inputs, means, scales, symbols in self.looked_at(images, noise[0].tolist()):
            nats = nats + self._nats(step, inputs, means, scales, symbols)
            before += logistic(means, scales).bits(symbols).sum()
            count += symbols.size
        return nats / (count * np.log(2)), {"linear": before / count}

    def looked_at(self, images, draws):
        """(step, inputs, means, scales, symbols) of the steps that the draws choose, image by image."""
        for image, draw in zip(images.permute(0, 2, 3, 1).cpu().numpy(), draws):
            canvas, fitted = self._fitted(np.ascontiguousarray(image))
            for step in steps(image.shape):
                step = step._replace(rows=step.rows[draw % ROWS::ROWS])
                if pass_of(step) == draw // ROWS and step.stride < 1 << LEVELS and step.rows.size:
                    where = step.rows[:, None], step.columns, step.channel
                    scales, symbols = (values[where].reshape(-1).astype(np.int32) for values in (fitted, image))
                    means = 16 * symbols - canvas.residuals[where].reshape(-1)
                    yield step, canvas.inputs(step, means, scales, self.lean, self.single), means, scales, symbols

    def _nats(self, step, inputs, means, scales, symbols):
        return nats(self(step, inputs), means, scales, symbols).sum()

    def _fitted(self, image):
        """(a canvas that holds the whole image, the scale index of every sub-pixel, uint8) as `linear` codes the image."""
        key = hash(image.tobytes())
        if key not in self._known:
            from .linear_fit import choices
            canvas, scales = NetCanvas(image.shape), np.zeros(image.shape, dtype=np.uint8)
            canvas.pixels[0, 0] = image[0, 0]
            for step, _, parameters, (means, classes), symbols in choices(image, canvas):
                scales[step.rows[:, None], step.columns, step.channel] = parameters.scales[classes].reshape(step.rows.size, -1)
            self._known[key] = canvas, scales
        return self._known[key]


def nats(outputs, means, scales, symbols):
    """-ln of the mass of each symbol under the network's outputs (three tensors, (pixels, components)), for training and tuning: (pixels,)."""
    offsets, log_scales, logits = outputs
    means, symbols, base = (torch.from_numpy(values).to(offsets)[:, None] for values in (means / 16, symbols, (scales - 48) / 16))
    return -with_floor(mixture_log_mass(symbols[:, 0], means + offsets * base.exp(), (base + log_scales).clamp(-3, 6), logits), 256)


def exact_twin(model, images):
    """The exact twin of a trained LinearNet; `images`: uint8 (N, H, W, 3), typical ones to calibrate on."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    seen = [found[:2] for k, image in enumerate(batch) for found in model.looked_at(image[None], [ROWS * (k % len(PASSES))])]
    return to_exact(model, lambda m: [part for step, inputs in seen for part in m(step, inputs)])


def _outputs(net, canvas, step, means, scales):
    """What the network says of the step's pixels, band by band: yields (slice of the flat pixels, three int64 arrays (pixels, components)), multiples of 2^-12."""
    for band, part in bands(step, _BAND):
        with torch.no_grad():
            yield part, [to_integers(values) for values in net(band, canvas.inputs(band, means[part], scales[part], net.lean, net.single))]


def tuned(outputs, scales, tuning):
    """The outputs plus what was sent for them. tuning: int (6 * components,): a bias for each output, then what is added per e^4 times the scale; in 2^-4."""
    bias, slope = np.asarray(tuning, dtype=np.int64).reshape(2, 3, -1) << OUTPUT_BITS - TUNING_BITS
    return [values + own + (more * (scales[:, None].astype(np.int64) - 48) >> 6) for values, own, more in zip(outputs, bias, slope)]


def _mixture(outputs, means, scales, tuning=None):
    """The IntegerCDF of a step: of `_outputs`, or these tuned, and the means (1/16 level) and scales (indices) of `linear`, flat."""
    found = []
    for part, own in outputs:
        offsets, log_scales, logits = own if tuning is None else tuned(own, scales[part], tuning)
        base = scales[part, None].astype(np.int64)
        found.append(relative_mixture(means[part, None].astype(np.int64) << OUTPUT_BITS - 4, base, offsets, log_scales, logits))
    means, scales, weights = (np.concatenate(values) for values in zip(*found))
    return logistic(means[:, 0], scales[:, 0]) if means.shape[1] == 1 else logistic_mixture(means, scales, weights)


def _compiled(net, canvas, step, parameters, way, tuning, pool):
    """(distribution of the step's pixels, `linear`'s means of them, which are there when its symbols are), by compiled code."""
    if way == PLAIN:
        fill, means, scales = by_rows(canvas, step, parameters, parameters.scales)
        return Ahead(fill, means[..., None], scales[..., None], None, pool), means.reshape(-1)
    from .linear_net_compiled import layers_of, mixtures_by_rows  # here: numba takes half a second to import
    tuning = np.asarray([0] * 6 * net.components if tuning is None else tuning, dtype=np.int64).reshape(2, -1) << OUTPUT_BITS - TUNING_BITS
    fill, means, own_means, own_scales, weights = mixtures_by_rows(net, canvas, step, parameters, layers_of(head_of(net, step)), tuning)
    return Ahead(fill, own_means, own_scales, None if net.components == 1 else weights, pool), means.reshape(-1)


def tuning_codec(net):
    """The Codec of a tuning: int32 (6 * components,), -64 ... 63."""
    return _tuning_codec(6 * net.components)


@lru_cache(maxsize=None)
def _tuning_codec(count):
    zeros = np.zeros(count, dtype=np.int32)
    return independent(laplace(zeros, zeros + int(np.rint(48 + 16 * np.log(TUNING_SCALE))), 2 * TUNING_LIMIT, -TUNING_LIMIT))


def in_haste(net, canvas):
    """Whether compiled code says what the network does: of large images, by an exact network as it comes."""
    return canvas.pixels.size >= LARGE and all(getattr(layer, "arithmetic", None) == "float32" for layer in net.heads[0][::2])


def of_steps(net, canvas, chosen, pool):
    """The distribution of the chosen steps as a generator in decoding order (see `coding.autoregressive`), which leaves them on the canvas. pool: of threads
    to help, or None."""
    fast = in_haste(net, canvas)
    for step in chosen:
        parameters = default_parameters(step)
        way, fitted = divmod(int((yield independent(Uniform(6), 1))[0]), 2)
        if fitted:
            mean, spread, scales = parameter_codecs(step)
            parameters = Parameters((yield mean), (yield spread), (yield scales))
        tuning = (yield tuning_codec(net)) if way == TUNED else None
        if fast:
            cdf, means = _compiled(net, canvas, step, parameters, way, tuning, pool)
        else:
            [(means, classes)] = predict(canvas, step, parameters)
            scales = parameters.scales[classes]
            cdf = logistic(means, scales) if way == PLAIN else _mixture(_outputs(net, canvas, step, means, scales), means, scales, tuning)
        symbols = yield cdf
        canvas.write(step, symbols, means)


def parts_of(net, canvas, step, fitted, parameters, predicted, symbols):
    """The codecs that `of_steps` will yield for a step, and their values, in order. All but net: as `linear_fit.choices` yields them."""
    from .linear_tune import ways
    (means, classes), codecs = predicted, parameter_codecs(step)
    way, sent = ways(net, canvas, step, means, parameters.scales[classes], symbols)
    return [(independent(Uniform(6), 1), np.array([fitted + 2 * way])), *[*zip(codecs, parameters)] * fitted, *sent]


def codec(net, shape):
    """The Codec of uint8 images of `shape` (H, W, 1) or (H, W, 3) under an exact twin of a LinearNet. push and bits raise InvalidInput for other images."""
    return codec_of(shape, lambda canvas, chosen: [part for choice in chosen for part in parts_of(net, canvas, *choice)],
                    lambda canvas, pool: of_steps(net, canvas, steps(shape), pool))


def codec_of(shape, parts, model):
    """The same of the corner pixel and what follows it: parts(canvas, chosen): the codecs of the rest and their values, in order, `chosen` being the generator
    `linear_fit.choices` of the image and `canvas` the one that it writes on; model(canvas, pool): a generator, as `of_steps`."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InvalidInput(f"linear-net codes images of one or three channels, got the shape {tuple(shape)}")
    corner = independent(Uniform(256), shape[2])

    def everything(image):
        from .linear_fit import choices  # only the encoder fits
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.shape != tuple(shape):
            raise InvalidInput(f"this codec takes uint8 images of shape {tuple(shape)}, got {image.dtype} of shape {image.shape}")
        canvas = NetCanvas(shape)
        canvas.pixels[0, 0] = image[0, 0]
        return [(corner, image[0, 0]), *parts(canvas, choices(image, canvas))]

    def push(stack, image):
        with all_or_nothing(stack):
            for codec, values in reversed(everything(image)):
                codec.push(stack, values)

    def decoded(canvas):
        canvas.pixels[0, 0] = yield corner
        with helpers() as pool:
            yield from model(canvas, pool)

    def pop(stack):
        canvas = NetCanvas(shape)
        autoregressive(lambda: decoded(canvas)).pop(stack)
        return canvas.pixels

    return Codec(push, pop, lambda image: float(sum(codec.bits(values) for codec, values in everything(image))))
