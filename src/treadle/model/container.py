"""A container: one isolated group of processes of one deployment, and the tokens that open doors."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ContainerStatus(StrEnum):
    STARTING = "STARTING"  # wanted; its runner has not called yet
    RUNNING = "RUNNING"  # its runner is or was connected
    STOPPING = "STOPPING"  # gets no more work
    STOPPED = "STOPPED"


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


class Workspace(msgspec.Struct, frozen=True):
    """A tenant. `signing_key` signs webhooks, `url_key` signs output URLs; neither is ever in a task's JSON."""

    id: int
    external_id: str
    name: str
    signing_key: str
    url_key: str
    created_at: float
