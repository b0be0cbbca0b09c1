"""The two machines of the compose files, as `.env.example` has them."""

import pytest

from tests.kit.compose import BOX, LAPTOP, Config, resolve


@pytest.fixture(scope="session")
def box() -> Config:
    """The one with cards."""
    return resolve(BOX).config


@pytest.fixture(scope="session")
def laptop() -> Config:
    """The one without."""
    return resolve(BOX, LAPTOP).config
