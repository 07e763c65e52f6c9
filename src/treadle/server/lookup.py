"""Finding deployments and workspaces on the event loop, with what was found remembered."""

from __future__ import annotations

import re

from treadle.engine.face import Reader
from treadle.model.container import Workspace
from treadle.model.deployment import Deployment, DeploymentKind
from treadle.model.errors import InvalidInput, NotFound

VERSION = re.compile(r"v([1-9][0-9]{0,8})")  # one spelling a number: each is remembered
LATEST = 0  # in the place of a version's number, which counts from 1
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Lookup:
    """Only this server writes deployments, so `forget` and `changed` after each write keep this true."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._named: dict[tuple[int, str, int], Deployment] = {}
        self._by_id: dict[str, Deployment] = {}
        self._workspaces: dict[int, Workspace] = {}

    def forget(self, workspace_id: int, name: str) -> None:
        """A new version of this name exists."""
        self._named.pop((workspace_id, name, LATEST), None)

    def changed(self, deployment: Deployment) -> None:
        """It was switched, or deleted."""
        self._by_id.pop(deployment.id, None)
        for key in [key for key in self._named if key[:2] == (deployment.workspace_id, deployment.name)]:
            del self._named[key]

    def by_id(self, deployment_id: str) -> Deployment:
        """Also one that was deleted. Raises NotFound."""
        found = self._by_id.get(deployment_id) or self._reader.deployment(deployment_id)
        if found is None:
            raise NotFound(f"No deployment has the id {deployment_id[:64]!r}.", "`treadle deploy` prints it.")
        self._by_id[deployment_id] = found
        return found

    def in_workspace(self, workspace_id: int, deployment_id: str) -> Deployment:
        """Raises NotFound, also for a deployment of another workspace, and for one that was deleted."""
        found = self.by_id(deployment_id)
        if found.workspace_id != workspace_id or found.deleted_at is not None:
            raise NotFound(f"No deployment has the id {deployment_id[:64]!r}.", "`treadle deploy` prints it.")
        return found

    def named(self, workspace_id: int, name: str, version: str = "latest") -> Deployment:
        """A deployment by name and `latest` or `v{n}`.

        Raises:
            NotFound: no such name or version.
            InvalidInput: the version has another form.
        """
        key = (workspace_id, name, _number(version))
        found = self._named.get(key)
        if found is None:
            found = self._named[key] = self._find(*key)
        return found

    def _find(self, workspace_id: int, name: str, number: int) -> Deployment:
        found = self._reader.deployment_version(workspace_id, name, number or None)
        if found is None:
            what = f"{name[:64]!r} has no version {number}" if number else f"No deployment is named {name[:64]!r}"
            raise NotFound(f"{what}.", "Make one with `treadle deploy FILE.py:FUNC --name NAME`.")
        return found

    def workspace(self, workspace_id: int) -> Workspace:
        found = self._workspaces.get(workspace_id) or self._reader.workspace(workspace_id)
        assert found is not None, f"token of workspace {workspace_id}, which does not exist"
        self._workspaces[workspace_id] = found
        return found


def _number(version: str) -> int:
    match = VERSION.fullmatch(version)
    if version != "latest" and match is None:
        raise InvalidInput(f"{version[:64]!r} is not a version.", "Use 'latest' or 'v1', 'v2', …")
    return int(match[1]) if match else LATEST


def is_draft(deployment: Deployment) -> bool:
    return deployment.kind is not DeploymentKind.DEPLOYMENT
