"""A server that is killed between an output's bytes and its row leaves nothing for good."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from treadle.server import loops

from .inside import Inside
from .test_output_urls import Saver


def test_bytes_without_a_row_are_removed_when_they_are_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next server. What has a row stays, however old it is, and so does what may still get one."""
    server = Inside(tmp_path)
    server.deploy()
    saver = Saver(server)
    kept = saver.save("kept.txt").json()["id"]
    for _ in range(2):
        kill_before_the_row(saver, monkeypatch)
    server.close()

    paths = sorted(path for path in (tmp_path / "blob" / "outputs").rglob("*") if path.is_file())
    assert len(paths) == 3
    old, fresh = [path for path in paths if path.name != kept]
    long_ago = time.time() - 4000
    for path in paths:
        if path != fresh:
            os.utime(path, (long_ago, long_ago))
    again = Inside(tmp_path)
    again.wait(loops.sweep_outputs(again.house.reader, again.house.blob, time.time()))
    assert {path for path in paths if path.exists()} == {*paths} - {old}
    again.wait(loops.sweep_outputs(again.house.reader, again.house.blob, time.time() + 3700))
    assert [path.name for path in paths if path.exists()] == [kept]
    again.close()


def kill_before_the_row(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request leaves that goes no further than to the end of its bytes."""

    async def end(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(saver.server.bridge, "ask", end)
        with pytest.raises(BaseException):  # noqa: B017 - whatever becomes of it on the way through the framework
            saver.save("lost.txt")
