"""The route of backups: the whole data folder as one stream, while the server goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.response import Stream

from treadle import __version__
from treadle.engine.backup import Backup, take
from treadle.engine.catalog import DEFAULT_WORKSPACE
from treadle.model.container import Role
from treadle.model.errors import Conflict, NotFound
from treadle.server.house import House, Shield
from treadle.server.requests import AnyRequest


class Backups(Controller):
    tags = ("server",)

    @get("/v2/backup", gives="application/x-tar")
    async def backup(self, request: AnyRequest, house: NamedDependency[House]) -> Stream:
        """Everything that a server needs to go on elsewhere, as of now: a tar archive for `treadle restore`."""
        caller = house.caller(request, Role.ADMIN)
        if house.lookup.workspace(caller.workspace_id).name != DEFAULT_WORKSPACE:
            what = "No backup is open to this token: it would hold all workspaces."
            raise NotFound(what, f"It takes an admin's token of the workspace {DEFAULT_WORKSPACE!r}.")
        sending = await _begin(house)
        name = f"treadle-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar"
        headers = {
            "content-length": str(sending.size),
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-store",
        }
        return Stream(sending, media_type="application/x-tar", headers=headers)


async def _begin(house: House) -> _Sending:
    shield = house.shield
    if shield.held:
        raise Conflict("A backup is being made already.", "Wait until it has ended.")
    shield.held = True
    try:
        async with shield.deleting:  # what is half deleted now is neither in the backup nor missing
            backup = await asyncio.to_thread(take, house.settings.data, house.blob, time.time(), __version__)
    except BaseException:
        shield.held = False
        raise
    return _Sending(backup, shield)


class _Sending:
    """The blocks of a backup, read on threads; whether it is sent to its end or not, nothing of it stays."""

    def __init__(self, backup: Backup, shield: Shield) -> None:
        self.size = backup.archive.size
        self._backup = backup
        self._shield: Shield | None = shield

    async def __aiter__(self) -> AsyncIterator[bytes]:
        blocks = self._backup.archive.blocks()
        try:
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                yield block
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()  # whoever asked may have gone before the first block

    def _end(self) -> None:
        shield, self._shield = self._shield, None
        if shield is not None:
            self._backup.remove()
            shield.held = False
