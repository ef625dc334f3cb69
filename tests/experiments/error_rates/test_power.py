"""Simulated diagnoses: yes at published figures, not where the heads do what random ones do."""

import json

import pytest

from experiments.error_rates.power import CASES, DEFAULT, NULLS, PowerRow, rates, save

TIMES = 6


@pytest.mark.parametrize("case", [CASES[0], CASES[1]], ids=["8B", "4B"])
def test_published_figures_are_enough(case):
    assert rates(case, DEFAULT, TIMES)["yes"] >= 0.8


@pytest.mark.parametrize("case", [NULLS[0], NULLS[1]], ids=["no head looks", "nothing follows"])
def test_nothing_is_taken_for_nothing(case):
    assert rates(case, DEFAULT, TIMES)["yes"] == 0


def test_rates_are_the_same_again():
    assert rates(CASES[1], DEFAULT, 2) == rates(CASES[1], DEFAULT, 2)


def test_the_page(tmp_path):
    rows = [
        PowerRow(case="real", null=False, sizes=DEFAULT, yes=0.9, uncertain=0.1, no=0.0),
        PowerRow(case="none", null=True, sizes={**DEFAULT, "draws": 3}, yes=0.0, uncertain=0.25, no=0.75),
    ]
    save(rows, 4, tmp_path)
    assert json.loads((tmp_path / "power.json").read_text())["rows"] == rows
    page = (tmp_path / "power.md").read_text()
    assert f"| real | {DEFAULT['draws']} | 90.0% | 10.0% | 0.0% |" in page
    assert page.index("| real |") < page.index("where yes is wrong") < page.index("| none | 3 |")
