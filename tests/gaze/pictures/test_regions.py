"""`regions`: panels as in the paper's code, boxes by cell centre, cells to keys."""

import numpy as np
import pytest

from gaze.pictures.regions import Regions, box_cells, panel_cells, region_keys
from qwen3vl_jax.errors import InputError


def reference_panels(grid, widths, merge):
    """From the protocol: proportional to pixel widths, rounded, strictly increasing with room for the rest, tiled."""
    rows, cols = grid[0] // merge, grid[1] // merge
    edges = [0]
    for panel in range(1, len(widths)):
        edge = round(cols * sum(widths[:panel]) / sum(widths))
        edge = max(edge, edges[-1] + 1)
        edges.append(min(edge, cols - len(widths) + panel))
    edges.append(cols)
    columns = [sum(column >= edge for edge in edges[1:]) for column in range(cols)]
    return np.array(columns * rows)


@pytest.mark.parametrize("seed", range(40))
def test_panels_are_those_of_the_papers_code(seed):
    rng = np.random.default_rng(seed)
    widths = [int(width) for width in rng.choice([1, 7, 32, 256, 900], rng.integers(1, 9))]
    grid = (2 * int(rng.integers(1, 9)), 2 * int(rng.integers(len(widths), 60)))
    cells = panel_cells(grid, widths, 2)
    assert (cells.sum(axis=0) == 1).all()
    assert cells.any(axis=1).all()
    np.testing.assert_array_equal(cells.argmax(axis=0), reference_panels(grid, widths, 2))


def test_six_equal_panels_have_64_cells_each():
    cells = panel_cells((16, 96), [256] * 6, 2)
    np.testing.assert_array_equal(cells.sum(axis=1), [64] * 6)
    np.testing.assert_array_equal(np.flatnonzero(cells[1].reshape(8, 48)[3]), np.arange(8, 16))


@pytest.mark.parametrize(("widths", "message"), [([1] * 5, "too few for 5"), ([], "positive"), ([3, 0], "positive")])
def test_impossible_panels_are_an_error(widths, message):
    with pytest.raises(InputError, match=message):
        panel_cells((4, 8), widths, 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_box_takes_the_cells_whose_centre_it_holds(seed):
    rng = np.random.default_rng(seed)
    rows, cols, (width, height) = 5, 7, (210, 90)
    (left, right), (top, bottom) = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
    want = [
        left <= (col + 0.5) * 30 <= right and top <= (row + 0.5) * 18 <= bottom
        for row in range(rows)
        for col in range(cols)
    ]
    cells, held = box_cells((2 * rows, 2 * cols), (left, top, right, bottom), (width, height), 2)
    assert held == any(want)
    if held:
        np.testing.assert_array_equal(cells, want)
    else:
        assert cells.sum() == 1


def test_edges_of_a_box_count_and_it_may_reach_over_the_picture():
    cells, held = box_cells((4, 4), (-50, 5, 5, 15), (20, 20), 2)
    assert held
    np.testing.assert_array_equal(cells, [True, False, True, False])


def test_a_box_between_centres_falls_back_to_the_cell_it_overlaps_most():
    cells, held = box_cells((4, 6), (8, 11, 13, 14), (30, 20), 2)
    assert not held
    np.testing.assert_array_equal(np.flatnonzero(cells), [4])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5, 5, 2, 8), "empty"),
        ((5, 8, 8, 5), "empty"),
        ((5, 5, 5, 8), "empty"),
        ((np.nan, 0, 1, 1), "empty"),
        ((30, 0, 40, 9), "outside"),
        ((-9, 0, 0, 9), "outside"),
        ((0, 20, 9, 30), "outside"),
    ],
)
def test_impossible_boxes_are_an_error(box, message):
    with pytest.raises(InputError, match=message):
        box_cells((4, 6), box, (30, 20), 2)


def test_keys_of_a_region_are_those_that_show_its_cells():
    image_cell = np.array([-1, -1, 0, 1, 2, 3, -1, 6, 7, 8, 9, -1])
    cells = np.array([[True, False, False, False], [False, True, True, False]])
    np.testing.assert_array_equal(np.where(region_keys(image_cell, cells)), [[0, 1, 1], [2, 3, 4]])
    np.testing.assert_array_equal(np.where(region_keys(image_cell, cells, first_cell=6)), [[0, 1, 1], [7, 8, 9]])


def test_a_region_without_a_key_is_an_error():
    with pytest.raises(InputError, match="region 2 covers no token"):
        region_keys(np.array([0, 1, -1]), np.eye(3, dtype=bool)[[0, 2]])
    with pytest.raises(InputError, match="region 1 covers no cell"):
        Regions(np.zeros((1, 4), bool))


def test_people_count_regions_from_1():
    regions = Regions(panel_cells((4, 12), [10] * 6, 2))
    assert [regions.index(number) for number in (1, 6)] == [0, 5]
    for number in (0, 7, -1):
        with pytest.raises(InputError, match="from 1 to 6"):
            regions.index(number)
