"""Tasks as JSON: Beam's record (spec §3.5) with our attempts, reasons and fresh output URLs."""

from __future__ import annotations

from uuid import UUID, uuid5

import msgspec

from treadle.engine.assemble import Engine
from treadle.engine.face import Reader
from treadle.engine.signing import sign_output_url
from treadle.model.api import (
    AppView,
    AttemptView,
    ContainerView,
    DeploymentRef,
    DeploymentView,
    OutputView,
    Stats,
    StubView,
    TaskView,
    WhyView,
    WorkspaceView,
)
from treadle.model.container import Container, Workspace
from treadle.model.deployment import Deployment, QueueConfig
from treadle.model.ids import iso
from treadle.model.task import WAITING, Attempt, Output, Task, TaskStatus
from treadle.server.lookup import Lookup, is_draft

OUTPUT_SECONDS = 3600
NULL = msgspec.Raw(b"null")


def maybe_iso(when: float | None) -> str | None:
    return None if when is None else iso(when)


class Views:
    """`base` is the URL the server is reached at, for output URLs."""

    def __init__(self, engine: Engine, reader: Reader, lookup: Lookup, base: str) -> None:
        self._engine = engine
        self._reader = reader
        self._lookup = lookup
        self._base = base

    def task(self, task: Task, now: float) -> TaskView:
        """The whole record of a task."""
        deployment = self._lookup.by_id(task.deployment_id)
        workspace = self._lookup.workspace(task.workspace_id)
        result = self._reader.result(task.id)
        return TaskView(
            id=task.id,
            external_id=task.id,
            status=task.status.value,
            failure_reason=task.failure.reason if task.failure else "",
            container_id=task.container_id,
            created_at=iso(task.created_at),
            started_at=maybe_iso(task.started_at),
            ended_at=maybe_iso(task.ended_at),
            updated_at=iso(task.updated_at),
            deployment=deployment_ref(deployment),
            outputs=[self.output(o, workspace, now, OUTPUT_SECONDS) for o in self._reader.outputs(task.id)],
            stats=self._stats(deployment.id),
            result=NULL if result is None else msgspec.Raw(result),
            attempts=[attempt_view(a) for a in self._reader.attempts(task.id)],
            why=self._why(task, now),
            workspace=workspace_view(workspace),
            external_workspace=None,
            stub=stub_view(deployment),
            app=app_view(deployment, workspace),
        )

    def output(self, output: Output, workspace: Workspace, now: float, seconds: int) -> OutputView:
        """An output with a URL that is good for `seconds`."""
        return OutputView(
            name=output.name,
            url=self.output_url(output.id, workspace, now, seconds),
            expires_in=seconds,
            id=output.id,
            size=output.size,
        )

    def output_url(self, output_id: str, workspace: Workspace, now: float, seconds: int) -> str:
        expires = int(now) + seconds
        signature = sign_output_url(workspace.url_key, output_id, expires)
        return f"{self._base}/output/id/{output_id}?expires={expires}&signature={signature}"

    def why(self, task: Task, now: float) -> WhyView:
        """What a task waits for, or else what has become of it."""
        trouble = self._engine.troubles.of(task.deployment_id) if task.status in WAITING else None
        return WhyView(
            task_id=task.id,
            status=task.status.value,
            why=self._why(task, now) or _what_became(task),
            deployment=deployment_ref(self._lookup.by_id(task.deployment_id)),
            log_tail=trouble.tail if trouble else "",
        )

    def deployment(self, deployment: Deployment, now: float) -> DeploymentView:
        """A deployment and how it does."""
        workspace = self._lookup.workspace(deployment.workspace_id)
        counts, trouble = self._engine.hints.counts, self._engine.troubles.of(deployment.id)
        state, why = self._state(deployment, now)
        app = app_view(deployment, workspace)
        return DeploymentView(
            id=deployment.id,
            external_id=deployment.id,
            name=deployment.name,
            active=deployment.active,
            subdomain="",
            stub_type=deployment.stub_type,
            version=deployment.version,
            created_at=iso(deployment.created_at),
            updated_at=iso(deployment.updated_at),
            deleted_at=maybe_iso(deployment.deleted_at),
            stub_id=deployment.id,
            app_id=app.id,
            workspace_id=workspace.external_id,
            invoke_url=self.invoke_url(deployment),
            state=state,
            why=why,
            log_tail=trouble.tail if trouble else "",
            containers=len(self._engine.roster.of(deployment.id)),
            waiting=counts.waiting.get(deployment.id, 0),
            running=counts.running.get(deployment.id, 0),
            workspace=workspace_view(workspace),
            stub=stub_view(deployment),
            app=app,
        )

    def _state(self, deployment: Deployment, now: float) -> tuple[str, str]:
        troubles = self._engine.troubles
        if not deployment.active:
            return "stopped", ""
        if troubles.degraded(deployment.id, now):
            return "degraded", troubles.why(deployment.id, now)
        never = self._engine.scaler.unschedulable(deployment)
        if never:
            return "unschedulable", never
        why = troubles.why(deployment.id, now)
        return ("waiting" if why else "active"), why

    def invoke_url(self, deployment: Deployment) -> str:
        """Where tasks are submitted to it."""
        if not deployment.config.authorized:
            path = f"public/{deployment.id}"
        elif deployment.name:
            path = f"{deployment.name}/v{deployment.version}"
        else:
            path = f"id/{deployment.id}"
        return f"{self._base}/taskqueue/{path}"

    def _stats(self, deployment_id: str) -> Stats:
        depth = self._engine.hints.counts.unfinished(deployment_id)
        return Stats(active_containers=len(self._engine.roster.of(deployment_id)), queue_depth=depth)

    def _why(self, task: Task, now: float) -> str:
        if task.status not in WAITING:
            return ""
        if task.due > now:
            return f"next attempt in {task.due - now:.1f} s"
        return self._engine.scaler.why(task.deployment_id, now)


    def container(self, container: Container) -> ContainerView:
        """A container and what runs in it."""
        deployment = self._lookup.by_id(container.deployment_id)
        return ContainerView(
            id=container.id,
            status=container.status.value,
            deployment_id=deployment.id,
            deployment=deployment.title,
            agent_id=container.agent_id,
            limits=container.limits,
            isolation=container.isolation,
            reason=container.reason,
            created_at=iso(container.created_at),
            started_at=maybe_iso(container.started_at),
            ended_at=maybe_iso(container.ended_at),
            running=[task.id for task in self._reader.running_in(container.id)],
        )
def _what_became(task: Task) -> str:
    if task.status is TaskStatus.RUNNING:
        return f"attempt {task.attempts} runs in {task.container_id}"
    if task.status is TaskStatus.COMPLETE:
        return f"it is complete since {iso(task.ended_at or task.updated_at)}"
    return task.failure.reason if task.failure else ""


def deployment_ref(deployment: Deployment) -> DeploymentRef:
    if is_draft(deployment):
        return DeploymentRef(None, None, None)
    return DeploymentRef(deployment.id, deployment.name, deployment.version)


def attempt_view(attempt: Attempt) -> AttemptView:
    failure = attempt.failure
    return AttemptView(
        number=attempt.number,
        status=attempt.status.value,
        container_id=attempt.container_id,
        started_at=iso(attempt.started_at),
        ended_at=maybe_iso(attempt.ended_at),
        failure_kind=failure.kind.value if failure else "",
        failure_reason=failure.reason if failure else "",
        traceback=failure.traceback if failure else "",
    )


def workspace_view(workspace: Workspace) -> WorkspaceView:
    created = iso(workspace.created_at)
    return WorkspaceView(workspace.id, workspace.external_id, workspace.name, created, created)


def stub_view(deployment: Deployment) -> StubView:
    kind = deployment.stub_type
    return StubView(
        id=deployment.id,
        external_id=deployment.id,
        name=f"{kind}/{deployment.config.handler}",
        type=kind,
        config=beam_config(deployment.config, deployment.image_id),
        config_version=0,
        public=not deployment.config.authorized,
        created_at=iso(deployment.created_at),
        updated_at=iso(deployment.updated_at),
    )


def beam_config(config: QueueConfig, image_id: str) -> str:
    """The definition under Beam's keys, as the JSON string Beam's clients expect."""
    scale = config.autoscaler
    shown = {
        "runtime": {
            "cpu": config.cpu, "memory": config.memory, "gpu": config.gpus[0] if config.gpus else "",
            "gpus": config.gpus, "gpu_count": config.gpu_count, "image_id": image_id,
        },
        "handler": config.handler,
        "on_start": config.on_start,
        "python_version": config.image.python_version,
        "keep_warm_seconds": config.keep_warm_seconds,
        "max_pending_tasks": config.max_pending_tasks,
        "callback_url": config.callback_url or "",
        "task_policy": {"max_retries": config.retries, "timeout": config.timeout, "ttl": config.ttl},
        "workers": config.workers,
        "authorized": config.authorized,
        "secrets": [{"name": name} for name in config.secrets],
        "env": sorted(config.env),  # names only: values are nobody's business here
        "autoscaler": {
            "type": "queue_depth", "max_containers": scale.max_containers,
            "tasks_per_container": scale.tasks_per_container, "min_containers": scale.min_containers,
        },
        "checkpoint_enabled": config.checkpoint_enabled,
    }  # fmt: skip
    return msgspec.json.encode(shown).decode()


def app_view(deployment: Deployment, workspace: Workspace) -> AppView:
    """An app is a name for a group; its id follows from the name."""
    name = deployment.config.app or deployment.name or deployment.config.handler
    app_id = str(uuid5(UUID(workspace.external_id), name))
    created = iso(deployment.created_at)
    return AppView(app_id, app_id, name, "", created, created, None)
