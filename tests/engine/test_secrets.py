"""Secrets: sealed at rest, opened for a container that starts, and in nobody's way for longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from treadle.engine.catalog import Deploy
from treadle.engine.effects import ToAgent
from treadle.engine.fleet import Connected
from treadle.engine.secrets import DropSecret, KeepSecret
from treadle.model.deployment import Deployment, QueueConfig
from treadle.model.errors import Conflict, Forbidden, NotFound, TreadleError
from treadle.model.secret import Secret
from treadle.model.volume import VolumeMount
from treadle.model.wire import ContainerSpec, Hello, Wanted

from .making import IMAGE, NOW, SOURCE, Desk

VALUE = "correct horse battery staple"


def kept(desk: Desk, name: str, value: str = VALUE) -> KeepSecret:
    home = desk.workspace.id
    return KeepSecret(home, name, desk.engine.secrets.vault.seal(home, name, value))


def create(desk: Desk, name: str = "KEY", value: str = VALUE) -> Secret:
    secret: Secret = desk.ask(desk.engine.secrets.create, kept(desk, name, value))
    return secret


def delete(desk: Desk, name: str = "KEY", *, force: bool = False) -> None:
    desk.ask(desk.engine.secrets.delete, DropSecret(desk.workspace.id, name, force))


def started(desk: Desk, deployment: Deployment) -> list[ContainerSpec]:
    """What the agent is told to run for a deployment once a task waits; [] when no container is wanted."""
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    told = [e.message.containers for e in desk.sent if isinstance(e, ToAgent) and isinstance(e.message, Wanted)]
    return [spec for spec in (told[-1] if told else []) if spec.deployment_id == deployment.id]


# at rest


def test_what_was_sealed_opens_again_after_a_restart(desk: Desk) -> None:
    """With the key from its file, and two seals of one value differ."""
    secret = create(desk)
    assert desk.engine.secrets.vault.seal(1, "KEY", VALUE) != desk.engine.secrets.vault.seal(1, "KEY", VALUE)
    desk.crash()
    assert desk.engine.secrets.vault.open(secret) == VALUE


def test_the_key_is_a_file_of_its_owner_alone(desk: Desk) -> None:
    """Made at the first seal, beside the database and not in it; the value is nowhere in the folder."""
    folder = desk.path.parent
    assert not (folder / "secret.key").exists()
    create(desk)
    key = (folder / "secret.key").read_bytes().strip()
    assert (folder / "secret.key").stat().st_mode & 0o777 == 0o600
    for path in folder.iterdir():
        assert VALUE.encode() not in path.read_bytes()
        assert path.name == "secret.key" or key not in path.read_bytes()


@pytest.mark.parametrize("change", [{"name": "OTHER"}, {"workspace_id": 99}], ids=["name", "workspace"])
def test_a_value_moved_to_another_row_does_not_open(desk: Desk, change: dict[str, object]) -> None:
    """Name and workspace are part of what is authenticated."""
    moved = msgspec.structs.replace(create(desk), **change)
    with pytest.raises(TreadleError, match="was not encrypted with the key"):
        desk.engine.secrets.vault.open(moved)


def test_an_altered_value_does_not_open(desk: Desk) -> None:
    """Not one bit of it."""
    secret = create(desk)
    for at in (1, 15, len(secret.sealed) - 1):
        altered = bytearray(secret.sealed)
        altered[at] ^= 1
        with pytest.raises(TreadleError):
            desk.engine.secrets.vault.open(msgspec.structs.replace(secret, sealed=bytes(altered)))


def _lose(key: Path) -> str:
    key.unlink()
    return "cannot be read: No such file"


def _open_to_all(key: Path) -> str:
    key.chmod(0o644)
    return "can be read by other users"


def _break(key: Path) -> str:
    key.write_text("not a key\n")
    return "does not hold a key"


@pytest.mark.parametrize("spoil", [_lose, _open_to_all, _break])
def test_a_key_that_cannot_be_used_is_told(desk: Desk, spoil: object) -> None:
    """Missing, readable by others or broken: the error names the file and what to do."""
    secret = create(desk)
    assert callable(spoil)
    message = spoil(desk.path.parent / "secret.key")
    desk.crash()
    with pytest.raises(TreadleError, match=message) as error:
        desk.engine.secrets.vault.open(secret)
    assert "secret.key" in str(error.value) and error.value.advice


def test_a_key_file_that_vanishes_under_a_running_server_is_written_again(desk: Desk) -> None:
    """The server still knows the key, and nothing that it sealed is lost."""
    first = create(desk)
    (desk.path.parent / "secret.key").unlink()
    create(desk, "SECOND")
    desk.crash()
    assert desk.engine.secrets.vault.open(first) == VALUE


# verbs


def test_a_name_is_taken_once(desk: Desk) -> None:
    """Creating it again is refused, and changes nothing."""
    create(desk)
    with pytest.raises(Conflict, match="Secret KEY already exists"):
        create(desk, value="other")
    found = desk.store.secret(desk.workspace.id, "KEY")
    assert found is not None and desk.engine.secrets.vault.open(found) == VALUE


def test_a_change_keeps_the_time_of_creation(desk: Desk) -> None:
    """Only a secret that exists can be changed."""
    create(desk)
    desk.now = NOW + 5
    changed = desk.ask(desk.engine.secrets.modify, kept(desk, "KEY", "new"))
    assert (changed.created_at, changed.updated_at) == (NOW, NOW + 5)
    with pytest.raises(NotFound, match="Secret NOPE does not exist"):
        desk.ask(desk.engine.secrets.modify, kept(desk, "NOPE"))


def test_deleting_one_in_use_names_who_uses_it(desk: Desk) -> None:
    """The newest version of a name counts; `force` deletes all the same."""
    create(desk)
    for name in ("a", "b"):
        desk.deploy(name, secrets=("KEY",))
    desk.deploy("b")
    with pytest.raises(Conflict, match=r"Secret KEY is used by a v1\."):
        delete(desk)
    delete(desk, force=True)
    with pytest.raises(NotFound):
        delete(desk)


# deployments and containers


def test_a_deployment_or_draft_with_an_unknown_secret_is_refused(desk: Desk) -> None:
    """All that are missing are named, none that is there."""
    create(desk)
    for name in ("a", ""):
        with pytest.raises(TreadleError, match=r"Secret does not exist: NOPE, OTHER\. Create it with"):
            desk.deploy(name, secrets=("NOPE", "KEY", "OTHER"))


def test_a_container_is_told_its_secrets_until_it_has_called(desk: Desk) -> None:
    """Those it asks for, in the clear, with its token; after its first call neither is sent again."""
    create(desk)
    create(desk, "OTHER", "else")
    desk.agent()
    deployment = desk.deploy(secrets=("KEY",))
    (spec,) = started(desk, deployment)
    assert spec.secrets == {"KEY": VALUE} and spec.token
    desk.connect(spec.container_id)
    desk.ask(desk.engine.fleet.agent_connected, desk.engine.roster.agents["a1"])
    (again,) = [e.message.containers[0] for e in desk.sent if isinstance(e, ToAgent)]
    assert (again.container_id, again.token, again.secrets) == (spec.container_id, "", {})
    assert desk.engine.roster.secrets == {}


def test_a_first_call_that_was_not_written_leaves_a_container_what_it_needs(desk: Desk) -> None:
    """It starts with its token and its secrets when its agent is told again."""
    create(desk)
    desk.agent()
    (spec,) = started(desk, desk.deploy(secrets=("KEY",)))
    desk.store.broken = 1
    desk.run((desk.engine.fleet.connect, Connected(Hello(spec.container_id, [], 1), 1)))
    desk.ask(desk.engine.fleet.agent_connected, desk.engine.roster.agents["a1"])
    (again,) = [e.message.containers[0] for e in desk.sent if isinstance(e, ToAgent)]
    assert (again.token, again.secrets) == (spec.token, {"KEY": VALUE})


def test_a_changed_secret_is_for_containers_started_afterwards(desk: Desk) -> None:
    """One that is about to start keeps what it was given."""
    create(desk)
    desk.agent()
    deployment = desk.deploy(secrets=("KEY",), autoscaler=desk.scale_of(2))
    started(desk, deployment)
    desk.ask(desk.engine.secrets.modify, kept(desk, "KEY", "new"))
    assert [spec.secrets["KEY"] for spec in started(desk, deployment)] == [VALUE, "new"]


def test_no_container_starts_without_its_secret(desk: Desk) -> None:
    """A task waits and says why; it runs once the secret is there again."""
    create(desk)
    desk.agent()
    deployment = desk.deploy(secrets=("KEY",))
    delete(desk, force=True)
    assert started(desk, deployment) == []
    why = desk.engine.scaler.why(deployment.id, desk.now)
    assert why == "Secret KEY does not exist any more. Set it: `treadle secret create KEY`."
    create(desk, value="back")
    assert [spec.secrets for spec in started(desk, deployment)] == [{"KEY": "back"}]


def test_a_container_lends_only_what_it_has(desk: Desk) -> None:
    """The draft it asks for may have its own secrets and volumes, or be one that exists already."""
    create(desk)
    create(desk, "OTHER")
    volumes = (VolumeMount("mine", "v"),)

    def draft(new_id: str, lender: QueueConfig | None, **fields: Any) -> Deploy:
        config = QueueConfig(handler="a:f", **fields)
        return Deploy(new_id, desk.workspace.id, "", config, SOURCE, IMAGE.id, lender)

    lender = QueueConfig(handler="a:g", secrets=("KEY",), volumes=volumes)
    with pytest.raises(Forbidden, match="has not itself: secret OTHER, volume other at 'v'"):
        wanted = (VolumeMount("other", "v"),)
        desk.ask(desk.engine.switch.deploy, draft("d1", lender, secrets=("KEY", "OTHER"), volumes=wanted))
    assert desk.ask(desk.engine.switch.deploy, draft("d2", lender, secrets=("KEY",), volumes=volumes)).created
    assert desk.ask(desk.engine.switch.deploy, draft("d3", None, secrets=("OTHER",))).created
    assert not desk.ask(desk.engine.switch.deploy, draft("d4", lender, secrets=("OTHER",))).created
