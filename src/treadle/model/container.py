"""A container: one isolated group of processes of one deployment, and the tokens that open doors."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

RELAY = "TREADLE_RELAY"  # variable: HOST:PORT to dial in place of the server's, in a container without a network


class ContainerStatus(StrEnum):
    STARTING = "STARTING"  # wanted; its runner has not called yet
    RUNNING = "RUNNING"  # its runner is or was connected
    STOPPING = "STOPPING"  # gets no more work, and ends
    STOPPED = "STOPPED"


class Isolation(IntEnum):
    """How far a container is shut off from its machine; each level holds what those below it do."""

    PROCESS = 0  # processes of their own, and nothing more
    LANDLOCK = 1  # files outside of its own cannot be changed, nor those of Treadle read; no rights to gain
    NAMESPACES = 2  # its own processes, files, temporary folder; the machine's are not there for it
    ENGINE = 3  # Docker or Podman


class Container(msgspec.Struct, frozen=True):
    id: str  # taskqueue-<deployment id>-<8 hex>
    workspace_id: int
    deployment_id: str
    agent_id: str
    status: ContainerStatus
    token_hash: str  # sha256 of its runner's token
    created_at: float
    lease_until: float  # without a heartbeat until then it is lost
    started_at: float | None = None  # its runner's first call
    ended_at: float | None = None
    reason: str = ""  # why it stopped
    limits: str = ""  # what holds its memory: cgroup2, cgroup1, watchdog
    for_task: str = ""  # the waiting task that caused its start: what it printed meanwhile is in that task's log
    isolation: Isolation = Isolation.PROCESS  # as its runner has entered it
    gpus: tuple[str, ...] = ()  # UUIDs of the devices that are its alone until it has STOPPED
    stop_by: float | None = None  # told to stop by then: what it does not finish is not its tasks' fault


class Role(StrEnum):
    """What a token may do; each role includes those after it, but for `container`, which stands alone."""

    ADMIN = "admin"
    DEPLOY = "deploy"
    SUBMIT = "submit"
    READ = "read"
    AGENT = "agent"
    CONTAINER = "container"


class Token(msgspec.Struct, frozen=True):
    id: str
    workspace_id: int
    hash: str  # sha256 of the opaque token, hex
    role: Role
    active: bool
    created_at: float
    name: str = ""  # says what it is for


class Workspace(msgspec.Struct, frozen=True):
    """A tenant. `signing_key` signs webhooks, `url_key` signs output URLs; neither is ever in a task's JSON."""

    id: int
    external_id: str
    name: str
    signing_key: str
    url_key: str
    created_at: float
