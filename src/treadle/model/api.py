"""JSON shapes of the HTTP API (docs/reference/http.md); field names are Beam's where Beam has them."""

from __future__ import annotations

import msgspec

from treadle.model.deployment import ImageSpec, QueueConfig


class Accepted(msgspec.Struct, frozen=True):
    """Answer of the enqueue routes."""

    task_id: str


class AcceptedMany(msgspec.Struct, frozen=True):
    """Answer of the batch routes: ids in the order of the batch."""

    task_ids: list[str]


class ErrorBody(msgspec.Struct, frozen=True):
    """The one error shape. `message` repeats `error` for Beam's clients."""

    error: str
    code: str
    advice: str
    message: str


class BuildRequest(msgspec.Struct, frozen=True):
    """POST /v2/images. Answered by JSON lines of BuildEvent."""

    spec: ImageSpec


class BuildEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a build: a log line, or the end (`image_id`, or `error`)."""

    log: str = ""
    image_id: str = ""
    cached: bool = False
    error: str = ""


class ImageView(msgspec.Struct, frozen=True):
    """An image on a machine. `freed`: bytes of `size` that its removal frees; the rest is in uv's cache too."""

    id: str
    machine: str
    python: str
    packages: tuple[str, ...]
    base_image: str
    size: int
    freed: int
    created_at: str
    last_used: str
    used_by: list[str]  # "name vN", and what waits or runs without a name


class PruneRequest(msgspec.Struct, frozen=True):
    """POST /v2/images/prune."""

    dry_run: bool = False


class Pruned(msgspec.Struct, frozen=True):
    """What was removed, or with `dry_run` would be; `freed` bytes in all."""

    removed: list[ImageView]
    freed: int
    dry_run: bool


class DeployRequest(msgspec.Struct, frozen=True):
    """POST /v2/deployments. `name` "" asks for the draft with this config, source and image (made if new).

    A container asks for drafts only and names neither source nor image: it has the source that it was started from.
    """

    name: str
    config: QueueConfig
    source_id: str = ""
    image_id: str = ""


class Deployed(msgspec.Struct, frozen=True):
    deployment_id: str
    deployment_name: str
    stub_id: str
    version: int
    invoke_url: str
    workspace_id: str
    image_id: str
    source_id: str
    authorized: bool
    created: bool  # False: an equal draft existed
    warning: str = ""  # why no container of it can run here


class OutputView(msgspec.Struct, frozen=True):
    name: str
    url: str
    expires_in: int
    id: str = ""
    size: int = 0


class OutputSaved(msgspec.Struct, frozen=True):
    """Answer of PUT /v2/outputs."""

    id: str
    name: str
    size: int


class UrlView(msgspec.Struct, frozen=True):
    url: str


class AttemptView(msgspec.Struct, frozen=True):
    number: int
    status: str
    container_id: str
    started_at: str
    ended_at: str | None
    failure_kind: str
    failure_reason: str
    traceback: str


class DeploymentRef(msgspec.Struct, frozen=True):
    id: str | None
    name: str | None
    version: int | None


class Stats(msgspec.Struct, frozen=True):
    active_containers: int
    queue_depth: int


class WorkspaceView(msgspec.Struct, frozen=True):
    id: int
    external_id: str
    name: str
    created_at: str
    updated_at: str


class StubView(msgspec.Struct, frozen=True):
    id: str
    external_id: str
    name: str
    type: str
    config: str  # a JSON string, as in Beam
    config_version: int
    public: bool
    created_at: str
    updated_at: str


class AppView(msgspec.Struct, frozen=True):
    id: str
    external_id: str
    name: str
    description: str
    created_at: str
    updated_at: str
    deleted_at: str | None


class TaskView(msgspec.Struct, frozen=True):
    """GET /v2/task/{id}/ (spec §3.5). `why` says what a waiting task waits for."""

    id: str
    external_id: str
    status: str
    failure_reason: str
    container_id: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    updated_at: str
    deployment: DeploymentRef
    outputs: list[OutputView]
    stats: Stats
    result: msgspec.Raw
    attempts: list[AttemptView]
    why: str
    workspace: WorkspaceView
    external_workspace: None
    stub: StubView
    app: AppView


class WhyView(msgspec.Struct, frozen=True):
    """GET /v2/task/{id}/why. `log_tail` is what the last container that failed to start left to read."""

    task_id: str
    status: str
    why: str
    deployment: DeploymentRef
    log_tail: str


class DeploymentView(msgspec.Struct, frozen=True):
    """A deployment as Beam shows it, and how it does. `state`: active, stopped, degraded, waiting, unschedulable."""

    id: str
    external_id: str
    name: str
    active: bool
    subdomain: str
    stub_type: str
    version: int
    created_at: str
    updated_at: str
    deleted_at: str | None
    stub_id: str
    app_id: str
    workspace_id: str
    invoke_url: str
    state: str
    why: str
    log_tail: str
    containers: int
    waiting: int
    running: int
    workspace: WorkspaceView
    stub: StubView
    app: AppView


class DeploymentPage(msgspec.Struct, frozen=True):
    data: list[DeploymentView]


class ResultView(msgspec.Struct, frozen=True):
    """GET /v2/task/{id}/result: what somebody who waits needs of a task. `result` is null unless it is COMPLETE."""

    status: str
    result: msgspec.Raw


class TaskPage(msgspec.Struct, frozen=True):
    data: list[TaskView]
    next: str


class LogLine(msgspec.Struct, frozen=True):
    """A line that was printed. `task_id` "" and `attempt` 0: by no task but its container."""

    at: str
    stream: str  # stdout, stderr, or treadle for its own remarks
    text: str
    task_id: str
    attempt: int
    container_id: str


class LogPage(msgspec.Struct, frozen=True):
    """Lines, oldest first. `next` is the cursor of those after them; "" when nothing will follow any more."""

    data: list[LogLine]
    next: str


class TaskEnd(msgspec.Struct, frozen=True):
    """The end of a task, as followers of what is served are told it. `seconds`: of its last attempt."""

    task_id: str
    status: str
    failure_reason: str
    seconds: float | None


class ServeNews(msgspec.Struct, frozen=True):
    """Of what is served, a container is `ready`, or has `failed` for the reason in `text`."""

    kind: str
    text: str


class ServeRequest(msgspec.Struct, frozen=True):
    """POST /v2/serve and PUT /v2/serve/{id}: what to serve."""

    config: QueueConfig
    source_id: str
    image_id: str


class ContainerView(msgspec.Struct, frozen=True):
    """A container. `running`: ids of the tasks in it."""

    id: str
    status: str
    deployment_id: str
    deployment: str  # its name and version, or its handler
    agent_id: str
    limits: str
    isolation: int  # 0 to 3
    reason: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    running: list[str]


class CancelRequest(msgspec.Struct, frozen=True):
    task_ids: list[str]


class Cancelled(msgspec.Struct, frozen=True):
    """Ids that were cancelled by this request; finished and unknown ones are not among them."""

    cancelled: list[str]


class Health(msgspec.Struct, frozen=True):
    status: str  # "ok" or "draining"
    version: str
    pid: int


class Credentials(msgspec.Struct, frozen=True):
    """$TREADLE_DATA/credentials.toml, mode 0600."""

    url: str
    workspace: str
    token: str
