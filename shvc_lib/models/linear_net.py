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
from ..coding.tables import inverse_scales
from ..errors import InvalidInput
from ..nn.distributions import mixture_log_mass, with_floor
from ..nn.exact import to_exact
from ..nn.parameters import OUTPUT_BITS, exp_table, relative_mixture, to_integers
from .linear import (_EARLIER_NEAREST, _NEAREST, _SAME_PASS, LARGE, PASSES, Canvas, Parameters, by_rows, default_parameters, parameter_codecs, predict, record,
                     steps)
from .linear_layout import bands, layout, region

INPUT_BITS, INPUT_LIMIT = 7, 12 << 7  # distances go into the network as multiples of 2^-7 of a scale, up to twelve of them
LEVELS, ROWS = 3, 8  # training looks at strides 1, 2 and 4, and there at one row of eight
_WIDER = [[(-3, -3), (-3, 3), (3, -3), (3, 3)], [(-3, -2), (-3, 2), (3, -2), (3, 2), (-2, -3), (-2, 3), (2, -3), (2, 3)], []]
_BAND = 1 << 16  # pixels that the network sees at a time
_SHIFT = 16 + 11 + 4 - INPUT_BITS  # of (1/16 level) * inverse scale: see `tables.inverse_scales`
TUNING_BITS, TUNING_LIMIT, TUNING_SCALE = 4, 64, 4  # multiples of 2^-4 in -64 ... 63, coded as if Laplace with a scale of four
PLAIN, NETWORK, TUNED = range(3)  # what a step may be coded with: the logistic of `linear`, the network's mixture, that one tuned


def _pass(step):
    return [len(offsets) for *_, offsets in PASSES].index(len(step.offsets))


def _own(number, lean):
    """The neighbours of its own colour that the perceptron of a pass sees, and how many of them, nearest first, with their errors."""
    offsets = PASSES[number][2] + _WIDER[number] * (not lean)
    return offsets, _NEAREST if lean else len(offsets)


def _size(number, earlier, lean):
    """How many inputs the perceptron of a pass has."""
    offsets, errors = _own(number, lean)
    return len(offsets) + errors + earlier * (1 + _EARLIER_NEAREST + 2 * len(_SAME_PASS)) + 3


class NetCanvas(Canvas):
    """What encoder and decoder both know so far: pixels, and their prediction errors with signs, in 1/16 of a level."""

    def __init__(self, shape):
        self.pixels = np.zeros(shape, dtype=np.uint8)
        self.residuals = np.zeros(shape, dtype=np.int16)
        self.residuals[0, 0] = 50 * 16  # nothing predicted the corner

    @property
    def missed(self):
        return self.residuals

    def misses(self, step, channel, offsets):
        return np.abs(self.around(self.residuals, step, channel, offsets))

    def write(self, step, symbols, means):
        symbols, means, where = symbols.reshape(step.rows.size, -1), means.reshape(step.rows.size, -1), region(step)
        if self.pixels.size >= LARGE:
            return record(self.pixels[where], self.residuals[where], symbols, means, True)
        self.pixels[where] = symbols
        self.residuals[where] = 16 * symbols - means

    def inputs(self, step, means, scales, lean=False):
        """What the network sees: int32 (inputs, pixels of the step), multiples of 2^-7. means: `linear`'s in 1/16 level, scales: its scale indices, flat.

        In units of the scale: the neighbours less the mean, the neighbours' own errors; for each earlier colour its error here and around, and its neighbours
        less its pixel here. Then the logarithm of the scale, the mean, and the level. lean: fewer of the neighbours."""
        offsets, errors = _own(_pass(step), lean)
        away = [16 * self.around(self.pixels, step, step.channel, offsets) - means, self.around(self.residuals, step, step.channel, offsets[:errors])]
        for channel in step.earlier:
            levels = self.around(self.pixels, step, channel, [(0, 0)] + step.offsets[:_EARLIER_NEAREST] + _SAME_PASS)
            away += [self.around(self.residuals, step, channel, [(0, 0)] + _SAME_PASS), 16 * (levels[1:] - levels[0])]
        units = np.concatenate(away) * inverse_scales()[scales] + (1 << _SHIFT - 1) >> _SHIFT
        facts = [(scales - 48) * (1 << INPUT_BITS - 4), (means >> 4) - 128, np.full_like(means, min(step.stride.bit_length() - 1, LEVELS - 1) << INPUT_BITS)]
        return np.concatenate([np.clip(units, -INPUT_LIMIT, INPUT_LIMIT), np.stack(facts)]).astype(np.int32)


class LinearNet(nn.Module):
    """Nine perceptrons: pass by pass, and in each for the first, second and third colour in the order green, red, blue.

    width: of the hidden layers; components: of the mixtures; lean: see `NetCanvas.inputs`. Raises InvalidInput."""

    def __init__(self, width=64, components=3, lean=False):
        super().__init__()
        if width < 1 or components < 1:
            raise InvalidInput(f"width and components must be positive, got {width} and {components}")
        self.components, self.lean = components, lean
        self.heads = nn.ModuleList(self._head(_size(number, earlier, lean), width) for number in range(len(PASSES)) for earlier in range(3))
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
        return self.heads[3 * _pass(step) + len(step.earlier)](x).unflatten(-1, (3, self.components)).unbind(1)

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
                if _pass(step) == draw // ROWS and step.stride < 1 << LEVELS and step.rows.size:
                    where = step.rows[:, None], step.columns, step.channel
                    scales, symbols = (values[where].reshape(-1).astype(np.int32) for values in (fitted, image))
                    means = 16 * symbols - canvas.residuals[where].reshape(-1)
                    yield step, canvas.inputs(step, means, scales, self.lean), means, scales, symbols

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
            yield part, [to_integers(values) for values in net(band, canvas.inputs(band, means[part], scales[part], net.lean))]


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


def mixtures_by_rows(net, canvas, step, means, scales, tuning):
    """(fill, means, scales, weights) of the mixtures of `_mixture`: three empty arrays, int32 (R, C, K), and fill(first, last), compiled code that writes
    into their rows first ... last - 1, given those of `linear`'s means and scales, int32 (R, C)."""
    from .linear_net_compiled import layers_of, mixtures  # here: numba takes half a second to import

    (offsets, errors), layers = _own(_pass(step), net.lean), layers_of(net.heads[3 * _pass(step) + len(step.earlier)])
    tuned_by = np.asarray([0] * 6 * net.components if tuning is None else tuning, dtype=np.int64).reshape(2, -1) << OUTPUT_BITS - TUNING_BITS
    found = np.empty((3, *means.shape, net.components), dtype=np.int32)
    known = (canvas.pixels, canvas.residuals, np.array([step.channel, *step.earlier]), *layout(step, [*offsets, (0, 0), *_SAME_PASS], canvas.pixels.shape),
             len(offsets), errors, means, scales, inverse_scales(), _SHIFT, INPUT_LIMIT, min(step.stride.bit_length() - 1, LEVELS - 1) << INPUT_BITS,
             layers, tuned_by, exp_table())
    return lambda first, last: mixtures(*known, first, last, *found), *found


def _compiled(net, canvas, step, parameters, way, tuning, pool):
    """(distribution of the step's pixels, `linear`'s means of them, which are there when its symbols are), by compiled code."""
    fill, means, scales = by_rows(canvas, step, parameters, parameters.scales)
    if way == PLAIN:
        return Ahead(fill, means[..., None], scales[..., None], None, pool), means.reshape(-1)
    more, own_means, own_scales, weights = mixtures_by_rows(net, canvas, step, means, scales, tuning)

    def both(first, last):
        fill(first, last)
        more(first, last)

    return Ahead(both, own_means, own_scales, None if net.components == 1 else weights, pool), means.reshape(-1)


def tuning_codec(net):
    """The Codec of a tuning: int32 (6 * components,), -64 ... 63."""
    return _tuning_codec(6 * net.components)


@lru_cache(maxsize=None)
def _tuning_codec(count):
    zeros = np.zeros(count, dtype=np.int32)
    return independent(laplace(zeros, zeros + int(np.rint(48 + 16 * np.log(TUNING_SCALE))), 2 * TUNING_LIMIT, -TUNING_LIMIT))


def _model(net, canvas):
    """The image's distribution as a generator in decoding order (see `coding.autoregressive`), which leaves the image on an empty canvas."""
    with helpers() as pool:
        yield from _steps(net, canvas, pool)


def _steps(net, canvas, pool):
    """The same; pool: of threads to help, or None."""
    fast = canvas.pixels.size >= LARGE and all(getattr(layer, "arithmetic", None) == "float32" for layer in net.heads[0][::2])  # exact, and as it comes
    canvas.pixels[0, 0] = yield independent(Uniform(256), canvas.pixels.shape[2])
    for step in steps(canvas.pixels.shape):
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


def codec(net, shape):
    """The Codec of uint8 images of `shape` (H, W, 1) or (H, W, 3) under an exact twin of a LinearNet. push and bits raise InvalidInput for other images."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InvalidInput(f"linear-net codes images of one or three channels, got the shape {tuple(shape)}")
    def parts(image):
        """The codecs that the generator will yield for this image, and their values, in order."""
        from .linear_fit import choices  # only the encoder fits
        from .linear_tune import ways
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.shape != tuple(shape):
            raise InvalidInput(f"this codec takes uint8 images of shape {tuple(shape)}, got {image.dtype} of shape {image.shape}")
        canvas = NetCanvas(shape)
        canvas.pixels[0, 0] = image[0, 0]
        found = [(independent(Uniform(256), shape[2]), image[0, 0])]
        for step, fitted, parameters, (means, classes), symbols in choices(image, canvas):
            way, sent = ways(net, canvas, step, means, parameters.scales[classes], symbols)
            found += [(independent(Uniform(6), 1), np.array([fitted + 2 * way])), *[*zip(parameter_codecs(step), parameters)] * fitted, *sent]
        return found

    def push(stack, image):
        with all_or_nothing(stack):
            for codec, values in reversed(parts(image)):
                codec.push(stack, values)

    def pop(stack):
        canvas = NetCanvas(shape)
        autoregressive(lambda: _model(net, canvas)).pop(stack)
        return canvas.pixels

    return Codec(push, pop, lambda image: float(sum(codec.bits(values) for codec, values in parts(image))))
