"""The toys and prompts that several files share."""

import pytest

from ..toys import Row, Toy, make_row, make_toy, raw_config


@pytest.fixture(scope="session")
def toy() -> Toy:
    """Tied, float32, two query heads per key/value head, head width x heads unlike the hidden size."""
    return make_toy(raw_config())


@pytest.fixture(scope="session")
def row() -> Row:
    """Two pictures of different sizes."""
    return make_row([(4, 6), (6, 4)])
