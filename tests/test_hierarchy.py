"""The prior of a hierarchy: who knows what, in which order, and the exact twin of it all."""

import pytest
import torch
from torch.nn import functional as F

from shvc_lib import nn
from shvc_lib.models.hierarchy import Layer, TopDown, chessboard, proceed

POINTS, UPPER, HIDDEN, WIDTH = 2, 3, 6, 8
GROUPS = {"three layers": ((7,), 1), "a chessboard": ((7,), 2), "groups": ((2, 1, 4), 1), "both": ((1, 2, 4), 2)}


def made(kind, shaken=True):
    torch.manual_seed(0)
    prior = TopDown(POINTS, *GROUPS[kind], UPPER, HIDDEN, WIDTH)
    if shaken:
        for values in prior.parameters():
            values.data += 0.2 * torch.randn_like(values) if values.ndim < 4 else 0.5 * torch.randn_like(values) / values[0].numel() ** 0.5
    return prior


def draw(layer_or_shape, generator):
    shape = getattr(layer_or_shape, "mean", layer_or_shape)
    shape = shape.shape if torch.is_tensor(shape) else shape
    return torch.round(2 * torch.randn(shape, generator=generator) * 256) / 256


def run(prior, batch=1, size=(2, 1), seed=0, change=None, change_z1=None, point=None):
    """(layers, what was sent): all latents drawn at random. change(number, layer, sent) may send something else."""
    generator = torch.Generator().manual_seed(seed)
    z1 = draw((batch, UPPER, *size), generator)
    walk = prior.walk(change_z1(z1) if change_z1 else z1, torch.zeros(batch, dtype=torch.int64) if point is None else point)
    layers, sent, value = [], [], None
    with torch.no_grad():
        while (layer := proceed(walk, value)) is not None:
            value = draw(layer, generator)
            value = change(len(layers), layer, value) if change else value
            layers.append(layer), sent.append(value)
    return layers, sent


def means(layers):
    return [torch.cat([layer.mean, layer.log_scale], 1) for layer in layers]


def test_a_chessboard():
    white, black = chessboard(3, 4, False), chessboard(3, 4, True)
    assert white[0, 0].int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]] and white.dtype == torch.bool and white.shape == (1, 1, 3, 4)
    assert torch.equal(black, ~white)


@pytest.mark.parametrize("kind", GROUPS)
def test_the_layers_are_all_latents_once(kind):
    prior, (groups, fields) = made(kind), GROUPS[kind]
    layers, _ = run(prior, batch=2, size=(1, 3))
    assert prior.layers == 1 + len(layers) == 2 + len(groups) * fields
    z2, *rest = layers
    assert z2.source == "z2" and z2.fields is None and z2.channels == slice(None) and z2.mean.shape == z2.log_scale.shape == (2, UPPER, 2, 6)
    covered = torch.zeros(sum(groups), 4, 12)
    for number, layer in enumerate(rest):
        assert isinstance(layer, Layer) and layer.source == "y" and layer.mean.shape == layer.log_scale.shape == (2, groups[number // fields], 4, 12)
        assert (layer.fields is None) == (fields == 1)
        covered[layer.channels] += 1 if layer.fields is None else layer.fields[0].float()
        assert fields == 1 or bool(layer.fields[0, 0, 0, 0]) == (number % 2 == 0)
    assert (covered == 1).all()


def test_the_last_embedding_is_there_only_if_something_follows():
    """White fields of the last group are known to its black ones; where there are no fields nobody asks what the last group was."""
    assert [layer.in_channels for layer in made("both").embeddings] == [1, 2, 4] and [layer.in_channels for layer in made("groups").embeddings] == [2, 1]
    assert len(made("three layers").embeddings) == 0 and len(made("a chessboard").embeddings) == 1
    assert len(made("both").shift) == len(made("both").last_shift) == 6


def test_how_it_starts():
    """Means near 0 and scales near 1, alike for all operating points."""
    prior = made("both", shaken=False)
    for layer in run(prior, size=(3, 3))[0]:
        assert layer.mean.abs().max() < 0.6 and layer.log_scale.abs().max() < 0.6
    layers, other = (run(prior, point=torch.tensor([point]))[0] for point in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(means(layers), means(other)))


@pytest.mark.parametrize("kind", GROUPS)
def test_each_layer_knows_all_before_it_and_nothing_else(kind):
    """Another value of one layer's latents: the layers before it and itself stay as they were, bit for bit, and every later one changes."""
    prior = made(kind)
    before = means(run(prior)[0])
    for changed in range(-1, len(before)):
        after = means(run(prior, change=lambda number, layer, sent: sent + (number == changed), change_z1=lambda z1: z1 + (changed == -1))[0])
        for number, (a, b) in enumerate(zip(before, after)):
            assert torch.equal(a, b) == (number <= changed), (changed, number)


@pytest.mark.parametrize("kind", ["a chessboard", "both"])
def test_positions_of_other_fields_do_not_matter(kind):
    """What is sent at the positions that belong to another layer is not looked at; the layer's own is, everywhere."""
    prior = made(kind)
    before = means(run(prior)[0])
    last = len(before) - 1
    for target in range(1, last):
        def garbage(number, layer, sent):
            return torch.where(layer.fields, sent, 1e3) if number == target else sent

        assert all(torch.equal(a, b) for a, b in zip(before, means(run(prior, change=garbage)[0])))

        def own(number, layer, sent):
            return torch.where(layer.fields, sent + 1, sent) if number == target else sent

        after = means(run(prior, change=own)[0])
        assert not any(torch.equal(a, b) for a, b in zip(before[target + 1:], after[target + 1:]))


def test_black_fields_see_their_white_neighbours():
    """One white latent changes the forecast of the black fields beside it."""
    prior = made("a chessboard")

    def one(number, layer, sent):
        if number == 1:
            sent = sent.clone()
            sent[:, :, 4, 2] += 3
        return sent

    before, after = (means(run(prior, size=(2, 2), change=change)[0]) for change in (None, one))
    moved = (before[2] != after[2]).any(1)[0]
    assert all(moved[position] for position in ((3, 2), (5, 2), (4, 1), (4, 3))) and not moved[0, 7] and torch.equal(before[1], after[1])


def test_operating_points_have_shifts_of_their_own():
    prior, point = made("both"), torch.tensor([0, 1])
    before = means(run(prior, batch=2, point=point)[0])
    for table in (prior.upper_shift, prior.hidden_shift, *prior.shift, *prior.last_shift):
        old = table.data.clone()
        table.data[1] += 1
        after = means(run(prior, batch=2, point=point)[0])
        table.data = old
        assert all(torch.equal(a[0], b[0]) for a, b in zip(before, after)) and not all(torch.equal(a[1], b[1]) for a, b in zip(before, after))
    layer, shifted = run(prior)[0][3], 0.75
    prior.last_shift[2].data[0, 2:] += shifted  # the second half of a shift is the log scale's
    again = run(prior)[0][3]
    assert torch.equal(again.mean, layer.mean) and torch.allclose(again.log_scale, layer.log_scale + shifted)


def test_three_layers_written_out():
    """z2 given z1, and y given both: the docstring's figure in a dozen lines."""
    prior, generator = made("three layers"), torch.Generator().manual_seed(3)
    z1, z2, point = draw((1, UPPER, 2, 2), generator), draw((1, UPPER, 4, 4), generator), torch.tensor([1])

    def at(table):
        return table[point][:, :, None, None]

    walk = prior.walk(z1, point)
    with torch.no_grad():
        first = next(walk)
        h = F.relu(F.pixel_shuffle(prior.first(z1), 2) + at(prior.hidden_shift))
        assert torch.equal(torch.cat([first.mean, first.log_scale], 1), prior.upper_head(h) + at(prior.upper_shift))
        second = walk.send(z2)
        h = prior.upper_block(h + prior.second(z2))
        h = F.pixel_shuffle(prior.down(F.relu(h)), 2)
        features = prior.blocks[0](h + at(prior.shift[0]))
        assert torch.equal(torch.cat([second.mean, second.log_scale], 1), prior.heads[0](F.relu(features)) + at(prior.last_shift[0]))
        with pytest.raises(StopIteration):
            walk.send(torch.zeros(1, 7, 8, 8))


def test_a_group_in_two_fields_written_out():
    """The black fields' forecast has the features of the white ones' and an embedding of these; the next group's, of the whole group."""
    prior = made("both")
    layers, sent = run(prior, size=(1, 1))
    white, black = (chessboard(4, 4, field) for field in (False, True))
    z1 = draw((1, UPPER, 1, 1), torch.Generator().manual_seed(0))

    def at(table):
        return table[:1, :, None, None]

    with torch.no_grad():
        h = F.relu(F.pixel_shuffle(prior.first(z1), 2) + at(prior.hidden_shift))
        h = F.pixel_shuffle(prior.down(F.relu(prior.upper_block(h + prior.second(sent[0])))), 2)
        for group in range(3):
            known, begun = torch.zeros_like(sent[1 + 2 * group]), h
            for number, fields in ((2 * group, white), (2 * group + 1, black)):
                features = prior.blocks[group](begun + at(prior.shift[number]))
                assert torch.equal(means(layers)[1 + number], prior.heads[group](F.relu(features)) + at(prior.last_shift[number]))
                known = known + sent[1 + number] * fields
                begun = features + prior.embeddings[group](known)
            h = begun


def test_proceed_ends_with_none():
    walk = made("three layers").walk(torch.zeros(1, UPPER, 1, 1), torch.tensor([0]))
    first = proceed(walk, None)
    second = proceed(walk, torch.zeros_like(first.mean))
    assert first.source == "z2" and second.source == "y" and proceed(walk, torch.zeros_like(second.mean)) is None


@pytest.mark.parametrize("kind", GROUPS)
def test_the_exact_twin(kind):
    """Bit for bit in float32, float64 and integers, in a batch or alone, and close to the network that it stands for."""
    prior, point = made(kind), torch.tensor([0, 1, 1])

    def outputs(prior, **options):
        return means(run(prior, **options)[0])

    twin = nn.to_exact(prior, lambda prior: outputs(prior, batch=3, point=point))
    expected, trained = (outputs(network, batch=3, point=point) for network in (twin, prior))
    for name in ("float64", "int64"):
        with nn.arithmetic(twin, name):
            assert all(torch.equal(a.double(), b.double()) for a, b in zip(expected, outputs(twin, batch=3, point=point)))
    for a, b in zip(expected, trained):
        assert torch.equal(a * 4096, torch.round(a * 4096)) and float((a - b).abs().mean()) < 0.03 < float(a.std())
    layers, sent = run(twin, batch=3, point=point)
    generator = torch.Generator().manual_seed(0)
    z1 = draw((3, UPPER, 2, 1), generator)
    for one in range(3):
        walk, value = twin.walk(z1[one:one + 1], point[one:one + 1]), None
        with torch.no_grad():
            for layer, latents in zip(layers, sent):
                alone = proceed(walk, value)
                assert torch.equal(alone.mean, layer.mean[one:one + 1]) and torch.equal(alone.log_scale, layer.log_scale[one:one + 1])
                value = latents[one:one + 1]
