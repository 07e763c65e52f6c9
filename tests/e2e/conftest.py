"""Fixtures for whole-product tests: `place` is a running server shared by a file, `own_place` one for a single test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from place import Place, Receiver


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running server for all tests of a file; use a queue name of your own in each test."""
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        yield place.up()
        assert place.stop() == 0, place.log.read_text()
        assert place.processes() == [], "the server left processes behind"
    finally:
        place.clean_up()


@pytest.fixture
def own_place(tmp_path: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place that is not started yet, for tests that start, kill and stop it."""
    place = Place(tmp_path_factory.mktemp("own"))
    try:
        yield place
    finally:
        place.clean_up()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
