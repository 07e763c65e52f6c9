"""The route of backups: a whole folder while the server works on, one at a time, and nothing it names goes meanwhile."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from treadle.engine.archive import unpack
from treadle.engine.audit import audit
from treadle.engine.outputs import SaveOutput, blob_key
from treadle.engine.restore import restore
from treadle.engine.retention import Cap, Keep
from treadle.model.container import Role, Workspace
from treadle.server import loops
from treadle.server.backups import _begin

from .inside import Inside

OUTPUT = "019aab00-0000-7000-8000-0000000000aa"


def quiet(_: int) -> None:
    pass


def test_what_comes_is_a_whole_backup(server: Inside, tmp_path: Path) -> None:
    """It says its size and what it is, may not be kept by anything on the way, and holds what was committed before."""
    server.deploy()
    task_id = server.submitted("resize")
    answer = server.request("GET", "/v2/backup")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-tar")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith('attachment; filename="treadle-')
    restore(io.BytesIO(answer.content), tmp_path / "new", quiet, force=False)
    assert not list(tmp_path.glob("*.part*"))
    found = audit(tmp_path / "new", server.house.blob, quiet, time.time())
    assert found.held is not None and found.held.counts["PENDING"] == 1
    assert {breach.name for breach in found.breaches} == {"blobs"}  # this server's source was never uploaded
    assert server.house.reader.task(task_id) is not None


def test_an_admin_of_another_workspace_gets_none(server: Inside) -> None:
    """A backup holds all workspaces, so it is for the admin of the server's own."""
    new = Workspace(0, "11111111-1111-7111-8111-111111111111", "other", "sk_2", "u", 0.0)
    other = server.wait(server.bridge.run(lambda _: server.store.insert_workspace(new)))
    refused = server.request("GET", "/v2/backup", token=server.add_token(Role.ADMIN, other))
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert "'default'" in refused.json()["advice"]


def sending(server: Inside) -> Any:
    """A backup that is under way: what would be sent next."""
    return server.wait(_begin(server.house))


async def drained(blocks: AsyncIterator[bytes]) -> bytes:
    whole = b""
    async for block in blocks:
        whole += block
    return whole


def test_of_two_at_once_the_second_is_refused(server: Inside) -> None:
    """Each would keep a copy of the database; when the first has ended, the next may begin."""
    first = sending(server)
    refused = server.request("GET", "/v2/backup")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    unpack(io.BytesIO(server.wait(drained(aiter(first)))), lambda _: None, quiet)
    assert server.request("GET", "/v2/backup").status_code == 200


@pytest.mark.parametrize("blocks", [0, 1])
def test_who_goes_away_holds_nothing_up(server: Inside, tmp_path: Path, blocks: int) -> None:
    """Before the first block or in the middle: the copy is removed, and the next backup may begin."""

    async def part() -> None:
        stream = aiter(await _begin(server.house))
        assert (tmp_path / "backup.part").exists()
        for _ in range(blocks):
            await anext(stream)
        await stream.aclose()

    server.wait(part())
    server.until(lambda: not server.house.shield.held)
    assert not (tmp_path / "backup.part").exists()
    assert server.request("GET", "/v2/backup").status_code == 200


def test_what_a_backup_names_is_not_forgotten_while_it_is_sent(server: Inside) -> None:
    """Finished tasks that are due to be forgotten wait for its end, with their outputs."""
    deployment = server.deploy()
    task_id = server.submitted("resize")
    key = blob_key(task_id, OUTPUT)
    upload = server.house.blob.start(key)
    upload.write(b"saved")
    upload.commit()

    def save(_now: float) -> None:
        connection: Any = server.store._connection  # type: ignore[attr-defined]
        connection.execute("UPDATE task SET status = 'RUNNING', attempts = 1")
        server.engine.outputs.save(1.0, [SaveOutput(OUTPUT, task_id, 1, "a", 5, key)])
        connection.execute("UPDATE task SET status = 'CANCELLED', ended_at = 1.0, created_at = 1.0")

    server.wait(server.bridge.run(save))

    def prune() -> None:
        server.wait(loops.prune(server.bridge, server.house.blob, Keep(1.0), Cap(2**30), server.house.shield))

    begun = sending(server)
    prune()
    assert server.house.blob.size(key) == 5 and server.house.reader.task(task_id) is not None
    assert b"saved" in server.wait(drained(aiter(begun)))
    prune()
    assert server.house.blob.size(key) is None and server.house.reader.task(task_id) is None
    assert deployment.name == "resize"


def test_a_backup_waits_for_what_is_being_forgotten(server: Inside) -> None:
    """Half deleted, a task would be in the backup without its output."""

    async def order() -> list[str]:
        said: list[str] = []

        async def back_up() -> None:
            begun = await _begin(server.house)
            said.append("begun")
            await drained(aiter(begun))

        async with server.house.shield.deleting:
            task = asyncio.create_task(back_up())
            for _ in range(3):  # turns of the loop, in which it would begin
                await asyncio.sleep(0)
            said.append("deleted")
        await task
        return said

    assert server.wait(order()) == ["deleted", "begun"]
