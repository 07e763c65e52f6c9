"""Fixtures for whole-product tests: `place` is a running server shared by a file, `own_place` one for a single test."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import Place, Receiver, shared_beside


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that containers can see, too, and that lies beside the data folders, which they cannot."""
    name = re.sub(r"\W", "_", request.node.name)[:40]
    shared = shared_beside(tmp_path_factory.getbasetemp() / "any")
    return Path(tempfile.mkdtemp(prefix=name, dir=shared))


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


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server whose agent has level 2."""
    place = Place(tmp_path_factory.mktemp("shut"))
    try:
        place.up(env={"TREADLE_ISOLATION": "namespaces"})
        yield place
        assert place.stop() == 0, place.log.read_text()
        assert place.processes() == [], "the server left processes behind"
        left = place.data / "agent" / "tmp"
        assert not left.exists() or list(left.iterdir()) == [], "temporary files were left behind"
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
