"""The stores that are held to the contract: a factory each, and what the tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from treadle.store.base import Reader, Store
from treadle.store.sqlite import SqliteStore

OpenStore = Callable[[], Store]
FACTORIES: dict[str, Callable[[Path], OpenStore]] = {
    "sqlite": lambda folder: lambda: SqliteStore.open(folder / "treadle.db"),
}


@pytest.fixture(params=FACTORIES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same store each time it is called; all are closed at the end."""
    opened: list[Store] = []
    open_one = FACTORIES[request.param](tmp_path)

    def tracked() -> Store:
        opened.append(open_one())
        return opened[-1]

    yield tracked
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def reader(store: Store) -> Iterator[Reader]:
    reader = store.reader()
    yield reader
    reader.close()
