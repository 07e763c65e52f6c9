"""What holds one container: cgroups for all that they can hold, and the watchdog where they cannot hold memory."""

from __future__ import annotations

from pathlib import Path

from treadle.model.wire import RunSpec
from treadle.runtime.cgroup import Group
from treadle.runtime.watchdog import Watchdog

CGROUP2 = "cgroup2"
CGROUP1 = "cgroup1"
WATCHDOG = "watchdog"
KINDS = (CGROUP2, CGROUP1, WATCHDOG)  # of holding memory


class Limit:
    """The limits of one container. The three files and `limit` go into its RunSpec.

    `groups`: one in version 2, one for each controller's hierarchy in version 1, none where none can be made. Memory
    is held by the group `memory`, else by `watchdog`, which must be made to look (`Watchdog.tick`).
    """

    def __init__(
        self, kind: str, limit: int, groups: list[Group], memory: Group | None, watchdog: Watchdog | None
    ) -> None:
        self.kind = kind
        self.limit = limit  # bytes
        self.watchdog = watchdog
        self.procs_files = [group.procs_file for group in groups]
        evidence = memory or watchdog
        self.oom_file = evidence.oom_file if evidence else ""
        self.peak_file = evidence.peak_file if evidence else ""
        self._groups = groups

    def pids(self) -> list[int]:
        """Processes held by groups; the watchdog knows of none."""
        return [pid for group in self._groups for pid in group.pids()]

    def kill(self) -> None:
        """Kill what is in the groups."""
        for group in self._groups:
            group.kill()

    def close(self) -> bool:
        """Clear the groups away; False while processes are still in one."""
        left = [group for group in self._groups if not group.remove()]
        return not left


class Foreign(Exception):
    """What a container's folder tells is not this container's: somebody has changed it."""


def reopen(kind: str, folder: Path, run: RunSpec) -> Limit:
    """The limits of a container started by an earlier agent, from what its folder says.

    Raises:
        Foreign: it names another container, or a group that is not this one's; what is in a group gets killed.
    """
    groups = [Group.of(file) for file in run.procs_files]
    if run.container_id != folder.name or not all(group.is_named(folder.name) for group in groups):
        raise Foreign
    watchdog = Watchdog(folder, run.limit) if kind == WATCHDOG else None
    return Limit(kind, run.limit, groups, None, watchdog)
