"""What the routes stand on: one struct that the application hands to each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from treadle.engine.face import Blob, Reader
from treadle.model.container import Role
from treadle.model.deployment import MAX_DEFINITION
from treadle.model.errors import NotFound
from treadle.model.settings import Settings
from treadle.server.auth import Caller, Doors
from treadle.server.bridge import Bridge
from treadle.server.builds import Builds
from treadle.server.lookup import Lookup
from treadle.server.requests import AnyRequest
from treadle.server.sessions import Sessions
from treadle.server.shelves import Shelves
from treadle.server.views import Views


class Shield:
    """Keeps what a backup names until it is written: `held` then. `deleting` is locked by whoever deletes blobs.

    `storing` is locked while the bytes of a source get their name and their row.
    """

    def __init__(self) -> None:
        self.deleting = asyncio.Lock()
        self.storing = asyncio.Lock()
        self.held = False


class House(msgspec.Struct, frozen=True):
    """`base`: the URL the server is reached at. `draining`: whether it is shutting down."""

    settings: Settings
    base: str
    bridge: Bridge
    reader: Reader
    blob: Blob
    doors: Doors
    lookup: Lookup
    views: Views
    builds: Builds
    shelves: Shelves
    sessions: Sessions
    shield: Shield
    draining: Callable[[], bool]

    @property
    def max_definition(self) -> int:
        """Bytes of a body that defines a queue or an image."""
        return min(MAX_DEFINITION, self.settings.max_body)

    def caller(self, request: AnyRequest, role: Role, *, container: bool = False, workspace: str = "") -> Caller:
        """Whoever sends this request: a role that includes `role`; with `container` also the runner of a container.

        `workspace` is the one that Beam's routes name; it must be the caller's own. "" where the route names none.

        Raises:
            Unauthorized, Forbidden, NotFound
        """
        caller = self.doors.require(request.headers.get("authorization", ""), role, container=container)
        if workspace:
            mine = self.lookup.workspace(caller.workspace_id)
            if workspace not in (mine.external_id, mine.name, str(mine.id)):
                raise NotFound(f"No workspace {workspace[:64]!r} is open to this token.")
        return caller
