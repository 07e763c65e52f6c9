"""Verbs on secrets: kept sealed, given in the clear to a container that is about to start and to nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from treadle.engine.vault import Vault
from treadle.model.deployment import Deployment, newest
from treadle.model.errors import Conflict, NotFound
from treadle.model.secret import Secret
from treadle.store.base import Store


class KeepSecret(msgspec.Struct, frozen=True):
    """A value, sealed already: it is in the clear in no verb and no transaction."""

    workspace_id: int
    name: str
    sealed: bytes


class DropSecret(msgspec.Struct, frozen=True):
    """`force`: even if deployments use it, whose containers then cannot start."""

    workspace_id: int
    name: str
    force: bool = False


class Secrets:
    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self.vault = vault

    def create(self, now: float, requests: Sequence[KeepSecret]) -> list[Secret | Conflict]:
        """Keep new ones."""
        return [self._create(request, now) for request in requests]

    def _create(self, request: KeepSecret, now: float) -> Secret | Conflict:
        if self._store.secret(request.workspace_id, request.name) is not None:
            advice = f"Change it with `treadle secret modify {request.name}`."
            return Conflict(f"Secret {request.name} already exists.", advice)
        secret = Secret(request.workspace_id, request.name, request.sealed, created_at=now, updated_at=now)
        self._store.put_secret(secret)
        return secret

    def modify(self, now: float, requests: Sequence[KeepSecret]) -> list[Secret | NotFound]:
        """Give others a new value; containers that are started from now on get it."""
        return [self._modify(request, now) for request in requests]

    def _modify(self, request: KeepSecret, now: float) -> Secret | NotFound:
        before = self._store.secret(request.workspace_id, request.name)
        if before is None:
            return unknown(request.name)
        secret = msgspec.structs.replace(before, sealed=request.sealed, updated_at=now)
        self._store.put_secret(secret)
        return secret

    def delete(self, _now: float, requests: Sequence[DropSecret]) -> list[NotFound | Conflict | None]:
        """Forget secrets; refused while the newest version of a name uses them."""
        return [self._delete(request) for request in requests]

    def _delete(self, request: DropSecret) -> NotFound | Conflict | None:
        if self._store.secret(request.workspace_id, request.name) is None:
            return unknown(request.name)
        users = self._users(request.workspace_id, request.name)
        if users and not request.force:
            advice = "Deploy without it first, or delete it all the same with --force: then they cannot start."
            return Conflict(f"Secret {request.name} is used by {', '.join(users)}.", advice)
        self._store.delete_secret(request.workspace_id, request.name)
        return None

    def _users(self, workspace_id: int, name: str) -> list[str]:
        """Names whose newest version asks for a secret, as "resize v3"; neither older versions nor drafts count."""
        deployments = newest(self._store.deployments(workspace_id))
        return [d.title for d in deployments if d.active and name in d.config.secrets]

    def missing(self, workspace_id: int, names: Sequence[str]) -> list[str]:
        """Those of the names that do not exist."""
        return [name for name in names if self._store.secret(workspace_id, name) is None]

    def values(self, deployment: Deployment) -> dict[str, str]:
        """What a container of this deployment is to be started with.

        Raises:
            NotFound: one of them does not exist any more.
            TreadleError: one cannot be decrypted.
        """
        return {name: self._value(deployment.workspace_id, name) for name in deployment.config.secrets}

    def _value(self, workspace_id: int, name: str) -> str:
        secret = self._store.secret(workspace_id, name)
        if secret is None:
            raise NotFound(f"Secret {name} does not exist any more.", f"Set it: `treadle secret create {name}`.")
        return self.vault.open(secret)


def unknown(name: str) -> NotFound:
    """The error for a name that no secret has."""
    return NotFound(f"Secret {name} does not exist.", "`treadle secret list` shows those that do.")
