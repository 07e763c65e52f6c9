"""Routes of secrets: values go in, and come out for an admin who asks for one by name."""

from __future__ import annotations

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from treadle.engine.secrets import DropSecret, KeepSecret, unknown
from treadle.model.api_workspace import NewSecret, NewValue, SecretShown, SecretView
from treadle.model.container import Role
from treadle.model.ids import iso
from treadle.model.secret import MAX_VALUE, Secret, check_secret_name, check_secret_value
from treadle.server.auth import Caller
from treadle.server.house import House
from treadle.server.requests import AnyRequest, decode_body

MAX_SECRET_BODY = 8 * MAX_VALUE  # bytes: JSON may write a character as six
ALL = ["/v2/secrets", "/secret/{workspace:str}"]
ONE = ["/v2/secrets/{name:str}", "/secret/{workspace:str}/{name:str}"]


class Secrets(Controller):
    tags = ("secrets",)

    @post(ALL, status_code=201, takes=NewSecret)
    async def create(
        self, request: AnyRequest, house: NamedDependency[House], workspace: FromPath[str] = ""
    ) -> SecretView:
        """Keep a new secret."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        asked = await decode_body(request, NewSecret, MAX_SECRET_BODY)
        kept = _sealed(house, caller, check_secret_name(asked.name), asked.value)
        return _view(await house.bridge.ask(house.bridge.engine.secrets.create, kept))

    @get(ALL)
    async def all(
        self, request: AnyRequest, house: NamedDependency[House], workspace: FromPath[str] = ""
    ) -> list[SecretView]:
        """All secrets by name, without their values."""
        caller = house.caller(request, Role.DEPLOY, workspace=workspace)
        return [_view(secret) for secret in house.reader.secrets(caller.workspace_id)]

    @get(ONE)
    async def show(
        self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str], workspace: FromPath[str] = ""
    ) -> SecretShown:
        """A secret with its value."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        secret = house.reader.secret(caller.workspace_id, check_secret_name(name))
        if secret is None:
            raise unknown(name)
        value = house.bridge.engine.secrets.vault.open(secret)
        return SecretShown(name, value, iso(secret.created_at), iso(secret.updated_at))

    @patch(ONE, takes=NewValue)
    async def modify(
        self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str], workspace: FromPath[str] = ""
    ) -> SecretView:
        """Give a secret a new value."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        asked = await decode_body(request, NewValue, MAX_SECRET_BODY)
        kept = _sealed(house, caller, check_secret_name(name), asked.value)
        return _view(await house.bridge.ask(house.bridge.engine.secrets.modify, kept))

    @delete(ONE, status_code=204)
    async def forget(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        name: FromPath[str],
        workspace: FromPath[str] = "",
        force: FromQuery[bool] = False,
    ) -> None:
        """Forget a secret; with `force` also one that deployments use."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        drop = DropSecret(caller.workspace_id, check_secret_name(name), force)
        await house.bridge.ask(house.bridge.engine.secrets.delete, drop)


def _sealed(house: House, caller: Caller, name: str, value: str) -> KeepSecret:
    """Encrypted before it is handed on: nothing behind this line sees the value until a container starts."""
    sealed = house.bridge.engine.secrets.vault.seal(caller.workspace_id, name, check_secret_value(name, value))
    return KeepSecret(caller.workspace_id, name, sealed)


def _view(secret: Secret) -> SecretView:
    return SecretView(secret.name, iso(secret.created_at), iso(secret.updated_at))
