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
LEAVING = ".leaving"  # in it a folder for each volume that is deleted, until its files are gone
_BETWEEN = ":"  # the names in that folder's name: neither has one


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
        self._left = self._leavings()

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

    def doom(self, workspace: Workspace, name: str) -> Path | None:
        """Note that a volume is about to be deleted: by a folder, into which its files go when it is.

        The next server knows by it, if this one is killed in between. None where there is no room for it.
        """
        leaving = self._folder / LEAVING
        with suppress(OSError):
            leaving.mkdir(parents=True, exist_ok=True, mode=0o700)
            return Path(tempfile.mkdtemp(prefix=f"{workspace.name}{_BETWEEN}{name}{_BETWEEN}", dir=leaving))
        return None

    def spare(self, doomed: Path | None) -> None:
        """Forget that note: the volume was not deleted."""
        if doomed is not None:
            remove(doomed)

    def clear(self, workspace: Workspace, name: str, doomed: Path | None) -> None:
        """Remove the files of a volume that is deleted. Takes as long as there are files; not for the writer.

        Raises:
            OSError: some could not be removed; all others are.
        """
        place = self._place(workspace, name)
        if doomed is None or not _moved(place, doomed):
            remove(place)
        if doomed is not None:
            remove(doomed)

    def sweep(self) -> list[OSError]:
        """Remove what earlier servers have left of deleted volumes. Answers why some of it could not be."""
        failed, left = [], []
        for path in self._left:
            try:
                remove(path)
            except OSError as error:
                failed.append(error)
                left.append(path)
        self._left = left
        return failed

    def _leavings(self) -> list[Path]:
        """What earlier servers have left of deleted volumes, out of the way of those that are made anew.

        A folder without a row is not enough to go by: a restored database may be older than the folders beside it.
        """
        left: list[Path] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            left += sorted((self._folder / LEAVING).iterdir())
        places = []
        for doomed in left:
            workspace, _, rest = doomed.name.partition(_BETWEEN)
            name, noted, _ = rest.partition(_BETWEEN)
            place = self._folder / workspace / name
            if noted and self._is_deleted(workspace, name) and _is_empty(doomed) and not _moved(place, doomed):
                places.append(place)
        return left + places

    def _is_deleted(self, workspace: str, name: str) -> bool:
        known = self._store.workspace_by_name(workspace)
        return known is not None and self._store.volume(known.id, name) is None

    def _place(self, workspace: Workspace, name: str) -> Path:
        return self._folder / workspace.name / name


def _is_empty(folder: Path) -> bool:
    with suppress(OSError):
        return not any(folder.iterdir())
    return False


def _moved(place: Path, doomed: Path) -> bool:
    """Whether a volume's files, if it has any, are in the folder from which they are removed."""
    try:
        place.rename(doomed / place.name)
    except FileNotFoundError:  # it was never used
        return True
    except OSError:  # a full disk: the folder needs room for a name
        return False
    return True


def unknown(name: str) -> NotFound:
    """The error for a name that no volume has."""
    return NotFound(f"Volume {name[:64]!r} does not exist.", "`treadle volume list` shows those that do.")
