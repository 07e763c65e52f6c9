"""Verbs on volumes, and where each is: a row says that it exists, a folder holds what is in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from treadle.blob.tree import Tree
from treadle.depths import remove
from treadle.model.container import Workspace
from treadle.model.deployment import Deployment, newest
from treadle.model.errors import Conflict, NotFound
from treadle.model.volume import Volume
from treadle.model.wire import Mount
from treadle.store.base import Store

INCOMING = ".incoming"  # uploads under way
LEAVING = ".leaving"  # deleted volumes whose files are not gone yet


class NameVolume(msgspec.Struct, frozen=True):
    workspace_id: int
    name: str


class DropVolume(msgspec.Struct, frozen=True):
    """`force`: even if deployments or containers use it."""

    workspace_id: int
    name: str
    force: bool = False


class MadeVolume(msgspec.Struct, frozen=True):
    volume: Volume
    created: bool  # False: it existed


class Volumes:
    """`folder` holds one folder a workspace, and in it one a volume."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder.absolute()
        with suppress(OSError):
            remove(folder / INCOMING)  # of a server that was killed

    # verbs

    def make(self, now: float, requests: Sequence[NameVolume]) -> list[MadeVolume]:
        """Make volumes that do not exist yet."""
        return [self._make(request.workspace_id, request.name, now) for request in requests]

    def _make(self, workspace_id: int, name: str, now: float) -> MadeVolume:
        found = self._store.volume(workspace_id, name)
        if found is not None:
            return MadeVolume(found, created=False)
        volume = Volume(workspace_id, name, now)
        self._store.insert_volume(volume)
        return MadeVolume(volume, created=True)

    def make_all(self, deployment: Deployment, now: float) -> None:
        """Make the volumes of a deployment that do not exist yet; inside a verb."""
        for mount in deployment.config.volumes:
            self._make(deployment.workspace_id, mount.name, now)

    def delete(self, _now: float, requests: Sequence[DropVolume]) -> list[NotFound | Conflict | None]:
        """Forget volumes; refused while they are used. Their files go by `clear`."""
        return [self._delete(request) for request in requests]

    def _delete(self, request: DropVolume) -> NotFound | Conflict | None:
        if self._store.volume(request.workspace_id, request.name) is None:
            return unknown(request.name)
        users = self._users(request.workspace_id, request.name)
        if users and not request.force:
            advice = "Deploy without it first, or delete it all the same with --force."
            return Conflict(f"Volume {request.name!r} is used by {', '.join(users)}.", advice)
        self._store.delete_volume(request.workspace_id, request.name)
        return None

    def _users(self, workspace_id: int, name: str) -> list[str]:
        """The newest versions that mount a volume, as "resize v3", and others that have a container now."""
        users = {d.id: d for d in newest(self._store.deployments(workspace_id)) if d.active}
        for container in self._store.live_containers():
            deployment_now = self._store.deployment(container.deployment_id)
            if deployment_now is not None and container.workspace_id == workspace_id:
                users[deployment_now.id] = deployment_now
        return sorted(
            d.title if d.name else f"a draft of {d.config.handler}"
            for d in users.values()
            if name in {mount.name for mount in d.config.volumes}
        )

    # places

    def mounts(self, deployment: Deployment) -> list[Mount]:
        """What of this machine a container of a deployment finds where."""
        mounted = deployment.config.volumes
        if not mounted:
            return []
        workspace = self._store.workspace(deployment.workspace_id)
        assert workspace is not None, f"deployment {deployment.id} is of no workspace"
        return [Mount(str(self._place(workspace, one.name)), one.mount_path) for one in mounted]

    def tree(self, workspace: Workspace, name: str) -> Tree:
        """The files of a volume."""
        return Tree(self._place(workspace, name), self._folder / INCOMING)

    def clear(self, workspace: Workspace, name: str) -> None:
        """Remove the files of a volume that is deleted. Takes as long as there are files; not for the writer."""
        leaving = self._folder / LEAVING
        leaving.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):  # it was never used
            self._place(workspace, name).rename(Path(tempfile.mkdtemp(dir=leaving)) / name)
        for folder in leaving.iterdir():  # also what a server has left that was killed
            with suppress(OSError):  # the next time
                remove(folder)

    def _place(self, workspace: Workspace, name: str) -> Path:
        return self._folder / workspace.name / name


def unknown(name: str) -> NotFound:
    """The error for a name that no volume has."""
    return NotFound(f"Volume {name[:64]!r} does not exist.", "`treadle volume list` shows those that do.")
