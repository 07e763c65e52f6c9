"""Routes of tokens: make one for a role, switch it off and on, revoke it."""

from __future__ import annotations

import os
import time

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from treadle.engine.tokens import WhichToken, token_hash
from treadle.model.api_workspace import NewToken, TokenGone, TokenMade, TokenView
from treadle.model.container import Role, Token
from treadle.model.deployment import bad
from treadle.model.ids import iso, uuid7
from treadle.server.auth import LADDER
from treadle.server.folder import new_token
from treadle.server.house import House
from treadle.server.requests import AnyRequest, decode_body

ALL = ["/v2/tokens", "/api/v1/token/{workspace:str}"]
ONE = ["/v2/tokens/{token_id:str}", "/api/v1/token/{workspace:str}/{token_id:str}"]
SWITCH = [f"{path}/toggle" for path in ONE]
MAX_BODY = 4096  # bytes
MAX_NAME = 64  # characters
# Beam's kinds: the first may do everything in its workspace, the second changes nothing but tasks.
BEAMS = {"workspace": Role.ADMIN, "workspace_restricted": Role.SUBMIT}


class Tokens(Controller):
    """A token that is switched off or revoked opens nothing from the answer on, nor goes on with what it began."""

    tags = ("tokens",)

    @post(ALL, status_code=201, takes=NewToken)
    async def create(
        self, request: AnyRequest, house: NamedDependency[House], workspace: FromPath[str] = ""
    ) -> TokenMade:
        """Make a token. Nobody is told it again."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        asked = await decode_body(request, NewToken, MAX_BODY)
        now, secret = time.time(), new_token()
        token = Token(
            id=uuid7(now, os.urandom(10)),
            workspace_id=caller.workspace_id,
            hash=token_hash(secret),
            role=_role(asked),
            active=True,
            created_at=now,
            name=_name(asked.name),
        )
        view = _view(await house.bridge.ask(house.bridge.engine.tokens.create, token))
        return TokenMade(
            view.id, view.external_id, view.name, view.role, view.token_type, view.active, view.created_at, secret
        )

    @get(ALL)
    async def all(
        self, request: AnyRequest, house: NamedDependency[House], workspace: FromPath[str] = ""
    ) -> list[TokenView]:
        """The tokens of the workspace, oldest first, without what opens doors."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        return [_view(token) for token in house.reader.tokens(caller.workspace_id)]

    @post(SWITCH, status_code=200)
    async def toggle(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        token_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> TokenView:
        """Switch an active token off, and one that is off on again."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        after = await house.bridge.ask(house.bridge.engine.tokens.toggle, WhichToken(caller.workspace_id, token_id))
        house.doors.changed(after.hash, active=after.active)
        return _view(after)

    @delete(ONE, status_code=200)
    async def revoke(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        token_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> TokenGone:
        """Forget a token for good; the last active admin token stays."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        gone = await house.bridge.ask(house.bridge.engine.tokens.revoke, WhichToken(caller.workspace_id, token_id))
        house.doors.changed(gone.hash, active=False)
        return TokenGone()


def _role(asked: NewToken) -> Role:
    if not asked.role and asked.token_type:
        if asked.token_type not in BEAMS:
            raise bad("token_type", asked.token_type[:64], ", ".join(BEAMS))
        return BEAMS[asked.token_type]
    if asked.role not in LADDER:
        raise bad("role", asked.role[:64], ", ".join(LADDER))
    return Role(asked.role)


def _name(name: str) -> str:
    if len(name) > MAX_NAME or not name.isprintable():
        raise bad("name", name[:MAX_NAME], f"at most {MAX_NAME} printable characters")
    return name


def _view(token: Token) -> TokenView:
    kind = "workspace" if token.role in (Role.ADMIN, Role.DEPLOY) else "workspace_restricted"
    return TokenView(token.id, token.id, token.name, token.role, kind, token.active, iso(token.created_at))
