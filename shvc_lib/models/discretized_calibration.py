"""From a trained discretised VAE to one that can code: the exact twin of its hierarchy, and integers in the place of every number that both ends must share."""

import copy

import torch

from ..coding.tables import mean_index, scale_index, weight_index
from ..nn import to_exact
from ..nn.parameters import OUTPUT_BITS
from .discretized_codec import INPUT_BITS, INVERSE_BITS, UNIT_BITS
from .hierarchy import proceed


@torch.no_grad()
def ready(model, images):
    """A copy of a trained DiscretizedVAE, ready to code with. images: uint8 (B, 3, H, W) for calibration, multiples of 64 a side."""
    model = copy.deepcopy(model).eval()
    points = torch.arange(len(model.lambdas))
    gains = (model.upper_log_gain[:, :model.upper] if model.groups else model.log_gain).exp()
    factorised = model.top if model.groups else model.prior
    mean, scale, weight = (values.double().numpy() for values in factorised.parameters_at(points, gains))
    for table, values in ((factorised.means, mean_index(mean)), (factorised.scales, scale_index(scale)), (factorised.weights, weight_index(weight))):
        table.copy_(torch.from_numpy(values))
    if not model.groups:
        return model
    units = torch.cat(model.units(points), 1)[:, :, 0, 0].double()
    model.unit_table.copy_(torch.round(units * 2**UNIT_BITS))
    model.inverse_table.copy_(torch.round(2**INVERSE_BITS / units))
    model.log_table.copy_(torch.round(units.log() * 2**OUTPUT_BITS))

    def run(hierarchy):
        """Every layer's means and log scales, with latents rounded as the codec does, but about float means."""
        outputs = []
        for point, (y, z1, z2) in enumerate(latents):
            y_unit, z1_unit, z2_unit = model.units(torch.tensor([point]))
            grid = 2**INPUT_BITS
            walk, sent = hierarchy.walk((torch.round(z1) / z1_unit * grid).round() / grid, torch.full((len(y),), point)), None
            while (layer := proceed(walk, sent)) is not None:
                outputs += [layer.mean, layer.log_scale]
                here, unit = (z2, z2_unit) if layer.source == "z2" else (y[:, layer.channels], y_unit[:, layer.channels])
                sent = (torch.round(here) / unit * grid).round().clamp(-127 * grid, 127 * grid) / grid
        return outputs

    latents = []
    for point in range(len(points)):
        here = torch.full((len(images),), point)
        y = model.latents(images, here)
        latents.append((y, *model.upper_latents(y, here)))
    model.hierarchy = to_exact(model.hierarchy, run)
    return model
