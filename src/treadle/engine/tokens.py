"""Verbs on tokens: let in, switch off and on, revoke. What is stored of one is its hash."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from treadle.model.container import Role, Token
from treadle.model.errors import Conflict, NotFound
from treadle.store.base import Store


class WhichToken(msgspec.Struct, frozen=True):
    """One of a workspace, by its id."""

    workspace_id: int
    token_id: str


class Tokens:
    """A workspace keeps one active admin token at least: else nobody could let anybody in any more."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, _now: float, requests: Sequence[Token]) -> list[Token]:
        """Let new ones in."""
        for token in requests:
            self._store.insert_token(token)
        return list(requests)

    def toggle(self, _now: float, requests: Sequence[WhichToken]) -> list[Token | NotFound | Conflict]:
        """Switch active ones off, and others on again."""
        return [self._toggle(which) for which in requests]

    def _toggle(self, which: WhichToken) -> Token | NotFound | Conflict:
        found = self._found(which)
        if isinstance(found, Token):
            self._store.switch_token(found.id, active=not found.active)
            return msgspec.structs.replace(found, active=not found.active)
        return found

    def revoke(self, _now: float, requests: Sequence[WhichToken]) -> list[Token | NotFound | Conflict]:
        """Forget them for good."""
        return [self._revoke(which) for which in requests]

    def _revoke(self, which: WhichToken) -> Token | NotFound | Conflict:
        found = self._found(which)
        if isinstance(found, Token):
            self._store.delete_token(found.id)
        return found

    def _found(self, which: WhichToken) -> Token | NotFound | Conflict:
        """One that may be taken out of use."""
        tokens = self._store.tokens(which.workspace_id)
        found = next((token for token in tokens if token.id == which.token_id), None)
        if found is None:
            return NotFound(f"No token has the id {which.token_id[:64]!r}.", "`treadle token list` shows them.")
        if [token.id for token in tokens if token.active and token.role is Role.ADMIN] == [found.id]:
            what = f"Token {found.id} is the last active admin token of this workspace."
            return Conflict(what, "Create another with `treadle token create --role admin` first.")
        return found


def token_hash(token: str) -> str:
    """What is stored of a token. Tokens are long and random, so a plain hash is as good as a slow one."""
    return sha256(token.encode()).hexdigest()


def add_token(store: Store, token: Token) -> None:
    """Let a token in. Runs in a transaction of its own."""
    with store.transaction():
        store.insert_token(token)
