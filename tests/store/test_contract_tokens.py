"""What every store must do with tokens."""

from __future__ import annotations

import msgspec

from treadle.model.container import Role, Token
from treadle.store.base import Reader, Store

from .making import NOW

TOKEN = Token("1", 1, "a" * 64, Role.SUBMIT, active=True, created_at=NOW, name="ci")


def let_in(store: Store, *tokens: Token) -> None:
    with store.transaction():
        for token in tokens:
            store.insert_token(token)


def test_a_token_is_found_by_its_hash(store: Store, reader: Reader) -> None:
    """As it was inserted, and by nothing else."""
    let_in(store, TOKEN)
    assert reader.token(TOKEN.hash) == TOKEN
    assert reader.token("1") is None


def test_tokens_are_listed_oldest_first(store: Store, reader: Reader) -> None:
    """Those of one workspace."""
    older = msgspec.structs.replace(TOKEN, id="2", hash="b" * 64, created_at=NOW - 1)
    let_in(store, TOKEN, older, msgspec.structs.replace(TOKEN, id="3", hash="c" * 64, workspace_id=2))
    assert reader.tokens(1) == [older, TOKEN]


def test_a_token_is_switched_and_deleted(store: Store, reader: Reader) -> None:
    """The one with this id alone."""
    other = msgspec.structs.replace(TOKEN, id="2", hash="b" * 64)
    let_in(store, TOKEN, other)
    with store.transaction():
        store.switch_token("1", active=False)
    assert reader.tokens(1) == [msgspec.structs.replace(TOKEN, active=False), other]
    with store.transaction():
        store.switch_token("1", active=True)
        store.delete_token("2")
        store.delete_token("2")
    assert reader.tokens(1) == [TOKEN]
