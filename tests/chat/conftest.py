"""Fixtures of the chat tests: the sample shop as a database that may be asked."""

from collections.abc import Iterator

import pytest

from dbgpt_lite.sql.database import Database, Databases
from dbgpt_lite.sql.sample_shop import build


@pytest.fixture(scope="session")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """The sample shop as the only connection."""
    databases = Databases({"shop": f"sqlite:///{build(tmp_path_factory.mktemp('shop') / 'shop.db')}"})
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def shop(shops: Databases) -> Database:
    return shops.default
