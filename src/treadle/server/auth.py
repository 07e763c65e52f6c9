"""Doors: who a token belongs to and what its role may do."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from hmac import compare_digest

import msgspec

from treadle.engine.face import Reader
from treadle.engine.tokens import token_hash
from treadle.model.container import Container, ContainerStatus, Role
from treadle.model.errors import Forbidden, Unauthorized

LADDER = (Role.READ, Role.SUBMIT, Role.DEPLOY, Role.ADMIN)
ADVICE = "Send 'Authorization: Bearer TOKEN'; `treadle up` wrote one to credentials.toml in its data folder."
REVOKED = "This token was revoked."


class Caller(msgspec.Struct, frozen=True):
    """Who asks: a workspace, a role, and for a runner its container."""

    workspace_id: int
    role: Role
    container: Container | None = None
    digest: str = ""  # of the token

    def may(self, role: Role) -> bool:
        """Whether this caller's role includes `role`."""
        return self.role in LADDER and LADDER.index(self.role) >= LADDER.index(role)


def bare(header: str) -> str:
    """The token of an Authorization header: Bearer, Basic (plain, or base64 of `user:token`) or bare."""
    scheme, _, rest = header.strip().partition(" ")
    if not rest:
        return scheme
    if scheme.lower() == "basic":
        return _basic(rest.strip())
    return rest.strip() if scheme.lower() == "bearer" else ""


def _basic(value: str) -> str:
    try:
        user, colon, password = b64decode(value, validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        return value
    return (password or user) if colon else value


class Doors:
    """Looks tokens up by their hash. Known ones are remembered until `changed` says otherwise.

    A token itself is never kept nor compared: what is looked up is its hash, of which whoever guesses knows nothing.
    """

    def __init__(self, reader: Reader, agent_token: str) -> None:
        self._reader = reader
        self._agent_hash = token_hash(agent_token)
        self._known: dict[str, Caller] = {}  # by hash
        self._shut: set[str] = set()  # hashes of those that were revoked or switched off since the start

    def caller(self, header: str) -> Caller:
        """Who sends this Authorization header.

        Raises:
            Unauthorized: none was sent, or nobody has this token.
        """
        token = bare(header)
        if not token:
            raise Unauthorized("No token was sent.", ADVICE)
        digest = token_hash(token)
        found = self._known.get(digest)
        if found is not None:
            return found
        known = self._reader.token(digest)
        if known is not None and known.active:
            caller = self._known[digest] = Caller(known.workspace_id, known.role, digest=digest)
            return caller
        container = self._reader.container_by_token(digest)
        if container is None or container.status is ContainerStatus.STOPPED:
            raise Unauthorized(REVOKED if digest in self._shut else "This token is not known here.", ADVICE)
        return Caller(container.workspace_id, Role.CONTAINER, container, digest)

    def changed(self, digest: str, *, active: bool) -> None:
        """The token with this hash was switched or revoked."""
        if active:
            self._shut.discard(digest)
        else:
            self._shut.add(digest)
            self._known.pop(digest, None)

    def let_in(self, header: str) -> Caller | None:
        """Who sends this Authorization header, if it opens anything."""
        try:
            return self.caller(header)
        except Unauthorized:
            return None

    def ended(self, caller: Caller) -> Unauthorized | None:
        """Why one who was let in may not go on: the token was revoked or switched off, or its container is over."""
        if caller.container is None:
            return Unauthorized(REVOKED, ADVICE) if caller.digest in self._shut else None
        now = self._reader.container(caller.container.id)
        if now is None or now.status is ContainerStatus.STOPPED:
            return Unauthorized("The container of this token is over.", ADVICE)
        return None

    def still(self, caller: Caller) -> None:
        """Whoever was let in before may go on.

        Raises:
            Unauthorized: see `ended`.
        """
        if error := self.ended(caller):
            raise error

    def require(self, header: str, role: Role, *, container: bool = False) -> Caller:
        """A caller whose role includes `role`; with `container` also the runner of a container.

        Raises:
            Unauthorized, Forbidden
        """
        caller = self.caller(header)
        if caller.may(role) or (container and caller.container is not None):
            return caller
        raise Forbidden(f"A token with role {caller.role.value!r} may not do this.", f"It takes {role.value!r}.")

    def container(self, header: str) -> Container:
        """The live container whose runner sends this header."""
        caller = self.caller(header)
        if caller.container is None:
            raise Forbidden("Only a container's own token opens this.")
        return caller.container

    def agent(self, header: str) -> None:
        """Let an agent in."""
        if not compare_digest(token_hash(bare(header)), self._agent_hash):
            raise Unauthorized("Only an agent's token opens this.")
