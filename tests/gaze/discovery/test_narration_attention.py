"""Attention while a text is told: transformers agrees, row by row; and what is made of it."""

import jax
import numpy as np
import pytest
import torch

from gaze.discovery.narration_attention import (
    attended,
    averaged,
    by_line,
    complete,
    first_token,
    line_mass,
    line_of_token,
    narration_attention,
    stairs,
)
from gaze.pictures.regions import panel_cells, region_keys
from gaze.text_spans import TextSpan
from qwen3vl_jax.model import Qwen3VL

from ..conftest import HEADS, IMAGE, LAYERS, ask, picture

WIDTHS = [10, 20, 12]
QUESTION = [5, 6, 7, 30]
SAID = [40, 41, 42, 43, 44]


@pytest.fixture(scope="module")
def read(toy):
    """Our reading of two texts of different lengths about two pictures, [layer, strip, token, head, panel]."""
    pictures = [picture(0, (4, 12)), picture(1, (6, 8))]
    images, prompt = ask(toy.model.config, pictures, [QUESTION])
    cells = images.patches.shape[1] // 4
    panels = np.stack([
        region_keys(row, panel_cells(grid, WIDTHS, 2), number * cells)
        for number, (row, (_, grid)) in enumerate(zip(prompt.image_cell, pictures, strict=True))
    ])  # fmt: skip
    said = np.array([SAID, [50, 51, 0, 0, 0]], np.int32)
    vision = jax.jit(Qwen3VL.encode)(toy.model, images)
    return pictures, [np.asarray(one) for one in narration_attention(toy.model, prompt, vision, panels, said)]


def reference(toy, patches, grid, said):
    """Transformers' attention and value norms in one pass over prompt and text: [token, layer, head, panel] twice."""
    tokens = torch.tensor([[1, 2, 248, *[IMAGE] * (grid[0] * grid[1] // 4), 249, *QUESTION, *said]])
    norms = []
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(
            lambda module, given, out: norms.append(out[0].reshape(out.shape[1], -1, 16).norm(dim=-1).T)
        )
        for layer in toy.reference.model.language_model.layers
    ]
    with torch.no_grad():
        output = toy.reference(
            input_ids=tokens,
            mm_token_type_ids=(tokens == IMAGE).long(),
            pixel_values=torch.tensor(patches),
            image_grid_thw=torch.tensor([[1, *grid]]),
            output_attentions=True,
        )
    for hook in hooks:
        hook.remove()
    image = torch.nonzero(tokens[0] == IMAGE)[:, 0]
    groups = torch.tensor(panel_cells(grid, WIDTHS, 2)).float()
    first = tokens.shape[1] - len(said) - 1
    mass, weighted = [], []
    for attention, norm in zip(output.attentions, norms, strict=True):
        rows = attention[0, :, first:-1][:, :, image]
        mass.append(torch.einsum("htk,pk->thp", rows, groups))
        weighted.append(torch.einsum("htk,hk,pk->thp", rows, norm.repeat_interleave(2, 0)[:, image], groups))
    return [torch.stack(one, dim=1).numpy() for one in (mass, weighted)]


def test_each_token_has_the_row_that_predicts_it(toy, read):
    pictures, ours = read
    for number, said in enumerate((SAID, [50, 51])):
        theirs = reference(toy, *pictures[number], said)
        for got, want in zip(ours, theirs, strict=True):
            got = got[:, number, : len(said)].transpose(1, 0, 2, 3)
            assert got.shape == (len(said), LAYERS, HEADS, 3)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)
            # One row off would show.
            assert np.abs(got[1:] - want[:-1]).max() > 1e-3
        # Values matter: their norms are no constant.
        ratio = theirs[1] / theirs[0]
        assert np.ptp(ratio) > 0.1


def made(lines, panels=3):
    """Mass of one strip, [1, token, 1, 2, panel]: head 0 looks at the panel of the line, head 1 at panel 0."""
    mass = np.zeros((1, len(lines), 1, 2, panels), np.float32)
    for token, panel in enumerate(lines):
        if panel < 0:
            mass[0, token] = np.nan
        else:
            mass[0, token, 0, 0, panel] = 0.5 + 0.1 * token
            mass[0, token, 0, 1, 0] = 0.2
    return mass


LINES = np.array([[2, 2, 0, 0, 0, -1]])


def test_lines_average_their_tokens():
    mass = made(LINES[0])
    found = by_line(mass, LINES)
    assert found.shape == (1, 3, 1, 2, 3)
    assert found[0, 2, 0, 0].tolist() == pytest.approx([0, 0, 0.55])
    assert found[0, 0, 0, 0].tolist() == pytest.approx([0.8, 0, 0])
    assert np.isnan(found[0, 1]).all()
    assert not complete(found).any()
    assert complete(by_line(made([0, 1, 2]), np.array([[0, 1, 2]]))).all()


def test_sets_average_their_heads():
    mass = made(LINES[0])
    sets = np.array([[[1, 0]], [[1, 1]]], np.float32)
    found = averaged(mass, sets)
    assert found.shape == (1, 2, 6, 3)
    np.testing.assert_allclose(found[:, 0], mass[:, :, 0, 0])
    np.testing.assert_allclose(found[:, 1], mass[:, :, 0].mean(axis=2), rtol=1e-6)
    own, blind = (attended(line_mass(averaged(mass, one)[:, 0], LINES)) for one in (sets[:1], 1 - sets[:1]))
    assert own.tolist() == [[0, -1, 2]]
    assert blind.tolist() == [[0, -1, 0]]


def test_stairs_lay_lines_over_one_another():
    mass = averaged(np.concatenate([made([0, 0, 1, 2]), made([0, 1, 1, 1])]), np.array([[[1, 0]]], np.float32))[:, 0]
    lines = np.array([[0, 0, 1, 2], [0, 1, 1, 1]])
    found = stairs(mass, lines, [0, 1, 2], 2)
    assert found.shape == (6, 3)
    # Panel 0: tokens 0 and 1 of the first strip, token 0 twice of the second.
    assert found[:2, 0].tolist() == pytest.approx([0.5, 0.55])
    # Panel 1: the first strip's only token twice; two bins of three tokens share the middle one.
    assert found[2:4, 1].tolist() == pytest.approx([(0.7 + 0.65) / 2, (0.7 + 0.75) / 2])
    assert found[4:, 2].tolist() == pytest.approx([0.8, 0.8])  # the second strip has no line about panel 2
    assert np.isnan(stairs(mass, np.full_like(lines, -1), [0], 2)).all()


def test_lines_of_tokens():
    lines = line_of_token([{2: TextSpan("a", 0, 0, 2), 0: TextSpan("b", 9, 2, 5)}, {}], 6)
    assert lines.tolist() == [LINES[0].tolist(), [-1] * 6]
    assert first_token(lines, 3).tolist() == [[2, -1, 0], [-1, -1, -1]]
