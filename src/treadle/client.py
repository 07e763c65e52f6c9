"""All that a server can be asked, as methods: the only code that speaks HTTP to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO
from urllib.parse import quote, urlencode

import msgspec

from treadle.exchange import Exchange, decode, error_of
from treadle.model import api
from treadle.model.api_workspace import (
    FileView,
    KeyView,
    Move,
    NewSecret,
    NewToken,
    NewValue,
    NewVolume,
    SecretShown,
    SecretView,
    TokenMade,
    TokenView,
    VolumeMade,
    VolumeView,
)
from treadle.model.deployment import ImageSpec
from treadle.model.errors import Unreachable

MAX_WAIT = 60
IMAGES_WAIT = 120  # seconds for agents to weigh or remove large images
BUILD_SECONDS = 3600.0  # without a line from a build
JSON = "application/json"
ZIP = "application/zip"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
QUIET_SECONDS = 60.0  # without a sign of life from a log that is followed
AWAY_SECONDS = 30.0  # a server may be away before a log that is followed is given up
RETRY_SECONDS = 0.5
WALK_SECONDS = 600.0  # to look at, or remove, all files of a large folder


class Client(Exchange):
    """Talks to one server with one token. May be shared by threads and survives a fork."""

    # tasks

    def enqueue(self, queue: str, payload: bytes) -> str:
        """Submit a task to `NAME`, `NAME/latest`, `NAME/v2`, `id/ID` or `public/ID`; returns its id."""
        data = self._call("POST", f"/taskqueue/{quote(queue)}", payload, kind=JSON, repeatable=False)
        return decode(data, api.Accepted).task_id

    def enqueue_many(self, queue: str, payloads: bytes) -> list[str]:
        """Submit a JSON array of payloads in one request, all of them or none; returns the ids in order."""
        data = self._call("POST", f"/taskqueue/{quote(queue)}/batch", payloads, kind=JSON, repeatable=False)
        return decode(data, api.AcceptedMany).task_ids

    def task(self, task_id: str, wait: float = 0) -> api.TaskView:
        """A task as it is now, or after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        query = f"?wait={wait:g}" if wait else ""
        path = f"/v2/task/{quote(task_id, safe='')}/{query}"
        return decode(self._call("GET", path, wait=wait), api.TaskView)

    def result(self, task_id: str, wait: float = 0) -> api.ResultView:
        """A task's status and result, after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        path = f"/v2/task/{quote(task_id, safe='')}/result?wait={wait:g}"
        return decode(self._call("GET", path, wait=wait), api.ResultView)

    def tasks(
        self,
        limit: int = 10,
        cursor: str = "",
        *,
        statuses: Sequence[str] = (),
        task_ids: Sequence[str] = (),
        stub_ids: Sequence[str] = (),
        stub_names: Sequence[str] = (),
    ) -> api.TaskPage:
        """One page of tasks, newest first."""
        query = {"limit": str(limit), "cursor": cursor, "status": ",".join(statuses), "task_ids": ",".join(task_ids)}
        query |= {"stub_ids": ",".join(stub_ids), "stub_names": ",".join(stub_names)}
        given = urlencode({key: value for key, value in query.items() if value})
        return decode(self._call("GET", f"/v2/task/?{given}"), api.TaskPage)

    def cancel(self, task_ids: Sequence[str]) -> list[str]:
        """Cancel tasks; returns the ids of those that this request cancelled."""
        body = msgspec.json.encode(api.CancelRequest(list(task_ids)))
        return decode(self._call("DELETE", "/v2/task/cancel/", body), api.Cancelled).cancelled

    # logs, containers

    def task_log(self, task_id: str, cursor: str = "", limit: int = 1000) -> api.LogPage:
        """A page of what a task has printed, oldest first; `limit` is 10000 lines at most."""
        return self._log(f"/v2/task/{quote(task_id, safe='')}/logs", cursor, limit)

    def follow_task(self, task_id: str) -> Iterator[api.LogLine]:
        """What a task has printed and prints, until it is final. A server that restarts is waited for."""
        return self._follow(f"/v2/task/{quote(task_id, safe='')}/logs")

    def container_log(self, container_id: str, cursor: str = "", limit: int = 1000) -> api.LogPage:
        """A page of everything printed in a container, oldest first; `limit` is 10000 lines at most."""
        return self._log(f"/v2/containers/{quote(container_id, safe='')}/logs", cursor, limit)

    def follow_container(self, container_id: str) -> Iterator[api.LogLine]:
        """Everything printed in a container, until it has stopped. A server that restarts is waited for."""
        return self._follow(f"/v2/containers/{quote(container_id, safe='')}/logs")

    def containers(self, ended: int = 0) -> list[api.ContainerView]:
        """Containers that are not stopped, newest first; with `ended` the newest so many (1000 at most) of all."""
        query = f"?ended={ended}" if ended else ""
        return decode(self._call("GET", f"/v2/containers{query}"), list[api.ContainerView])

    def stop_container(self, container_id: str, grace: float) -> api.ContainerView:
        """End a container; its running tasks may finish for `grace` seconds, then they are retried."""
        path = f"/v2/containers/{quote(container_id, safe='')}/stop?grace={grace:g}"
        return decode(self._call("POST", path), api.ContainerView)

    def _log(self, path: str, cursor: str, limit: int) -> api.LogPage:
        return decode(self._call("GET", f"{path}?{urlencode({'cursor': cursor, 'limit': limit})}"), api.LogPage)

    def _follow(self, path: str) -> Iterator[api.LogLine]:
        for _, data in self._watch(path):
            yield decode(data, api.LogLine)

    def _watch(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Kind and data of each event until the `end`. A server that has answered once may be away for a while."""
        cursor, lost = "", 0.0
        while True:
            try:
                for kind, after, data in self._events(path, cursor):
                    cursor, lost = after, time.monotonic() + AWAY_SECONDS
                    if kind == "end":
                        return
                    if kind:
                        yield kind, data
            except Unreachable:
                if time.monotonic() > lost:
                    raise
                time.sleep(RETRY_SECONDS)

    def _events(self, path: str, cursor: str) -> Iterator[tuple[str, str, bytes]]:
        """Kind, id and data of each server-sent event; no kind for a sign of life. `cursor` is the id before them."""
        kind, data = "", b""
        answer = self._open("GET", f"{path}?cursor={cursor}" if cursor else path, accept=EVENTS, wait=QUIET_SECONDS)
        with self._to_the_end(answer, "the log"):
            yield "", cursor, b""
            for line in answer.lines():
                field, _, value = line.rstrip(b"\r\n").partition(b": ")
                if field == b"event":
                    kind = value.decode()
                elif field == b"id":
                    cursor = value.decode()
                elif field == b"data":
                    data = value
                elif not line.strip():
                    yield kind, cursor, data
                    kind = ""
        raise Unreachable(f"{self.url} ended the log in the middle.", "Try again.")

    def why(self, task_id: str) -> api.WhyView:
        """What a task waits for, or what has become of it."""
        return decode(self._call("GET", f"/v2/task/{quote(task_id, safe='')}/why"), api.WhyView)

    # serving

    def serve(self, request: api.ServeRequest) -> api.Deployed:
        """Serve a definition under a URL of its own, for as long as its log is followed."""
        return decode(self._call("POST", "/v2/serve", msgspec.json.encode(request)), api.Deployed)

    def reload(self, deployment_id: str, request: api.ServeRequest) -> api.Deployed:
        """Replace what is served."""
        path = f"/v2/serve/{quote(deployment_id, safe='')}"
        return decode(self._call("PUT", path, msgspec.json.encode(request)), api.Deployed)

    def end_serve(self, deployment_id: str) -> None:
        """Serve it no more: its containers end, what waits is cancelled."""
        self._call("DELETE", f"/v2/serve/{quote(deployment_id, safe='')}")

    def follow_served(self, deployment_id: str) -> Iterator[api.LogLine | api.TaskEnd | api.ServeNews]:
        """What is printed, ends of tasks, and how containers start, until it is served no more."""
        for kind, data in self._watch(f"/v2/serve/{quote(deployment_id, safe='')}/logs"):
            if kind == "line":
                yield decode(data, api.LogLine)
            elif kind == "task":
                yield decode(data, api.TaskEnd)
            else:
                yield decode(data, api.ServeNews)

    # deployments

    def warm_up(self, queue: str) -> None:
        """Have a container ready without a task; `queue` as in `enqueue`."""
        self._call("POST", f"/taskqueue/{quote(queue)}/warmup")

    def deployments(self, name: str = "", limit: int = 100) -> list[api.DeploymentView]:
        """Deployments, newest first; with `name` only its versions."""
        query = urlencode({"name": name, "limit": limit})
        return decode(self._call("GET", f"/v2/deployments?{query}"), api.DeploymentPage).data

    def stop_deployment(self, deployment_id: str) -> api.DeploymentView:
        """Have it take no tasks and run none."""
        return self._switch("POST", deployment_id, "/stop")

    def start_deployment(self, deployment_id: str) -> api.DeploymentView:
        """Have it take and run tasks again."""
        return self._switch("POST", deployment_id, "/start")

    def delete_deployment(self, deployment_id: str) -> api.DeploymentView:
        """Take it away for good."""
        return self._switch("DELETE", deployment_id)

    def _switch(self, method: str, deployment_id: str, verb: str = "") -> api.DeploymentView:
        path = f"/v2/deployments/{quote(deployment_id, safe='')}{verb}"
        return decode(self._call(method, path, repeatable=method == "POST"), api.DeploymentView)

    def build_image(self, spec: ImageSpec) -> Iterator[api.BuildEvent]:
        """Build an image; yields each line as it comes. The last event has `image_id` or `error`."""
        body = msgspec.json.encode(api.BuildRequest(spec))
        answer = self._open("POST", "/v2/images", body, wait=BUILD_SECONDS)
        with self._to_the_end(answer, "the build"):
            for line in answer.lines():
                if line.strip():
                    yield decode(line, api.BuildEvent)

    def images(self) -> list[api.ImageView]:
        """The images on the machines, the last used first."""
        return decode(self._call("GET", "/v2/images", wait=IMAGES_WAIT), list[api.ImageView])

    def prune_images(self, *, dry_run: bool = False) -> api.Pruned:
        """Remove the images that no active deployment uses, or with `dry_run` only say which."""
        body = msgspec.json.encode(api.PruneRequest(dry_run))
        return decode(self._call("POST", "/v2/images/prune", body, wait=IMAGES_WAIT), api.Pruned)

    def has_source(self, source_id: str) -> bool:
        """Whether the server holds the packed source with this sha256."""
        answer = self._exchange("HEAD", f"/v2/sources/{quote(source_id, safe='')}")
        self._read(answer)
        if answer.status not in (200, 404):
            raise error_of(answer.status, b"")
        return answer.status == 200

    def put_source(self, source_id: str, file: BinaryIO) -> None:
        """Upload packed source from a file, streamed."""
        self._call("PUT", f"/v2/sources/{quote(source_id, safe='')}", file, kind=ZIP)

    def get_source(self, source_id: str, file: BinaryIO) -> None:
        """Download packed source into a file, streamed."""
        answer = self._open("GET", f"/v2/sources/{quote(source_id, safe='')}")
        with self._to_the_end(answer, "the download"):
            for block in answer.blocks():
                file.write(block)

    def deploy(self, request: api.DeployRequest) -> api.Deployed:
        """Make a new version of a name, or find or make the draft when the name is empty."""
        data = self._call("POST", "/v2/deployments", msgspec.json.encode(request), repeatable=not request.name)
        return decode(data, api.Deployed)

    # outputs, workspace, server

    def save_output(self, task_id: str, attempt: int, name: str, file: BinaryIO) -> api.OutputSaved:
        """Upload a file as an output of a running attempt, streamed."""
        query = urlencode({"task_id": task_id, "attempt": attempt, "name": name})
        return decode(self._call("PUT", f"/v2/outputs?{query}", file, kind=BYTES), api.OutputSaved)

    def output_url(self, output_id: str, expires: int = 3600) -> str:
        """A signed URL of an output that works for `expires` seconds."""
        path = f"/v2/outputs/{quote(output_id, safe='')}/url?expires={expires}"
        return decode(self._call("GET", path), api.UrlView).url

    def workspace(self) -> api.WorkspaceView:
        """The workspace the token belongs to."""
        return decode(self._call("GET", "/v2/workspace"), api.WorkspaceView)

    def signing_key(self) -> str:
        """The key that signs the workspace's webhooks."""
        return decode(self._call("GET", "/v2/workspace/signing-key"), KeyView).signing_key

    def health(self) -> api.Health:
        """Whether the server is there, and which version it is; needs no token."""
        return decode(self._call("GET", "/health"), api.Health)

    # tokens

    def create_token(self, role: str, name: str = "") -> TokenMade:
        """Let somebody in; `role` is admin, deploy, submit or read. The answer alone has the token."""
        body = msgspec.json.encode(NewToken(role, name))
        return decode(self._call("POST", "/v2/tokens", body, repeatable=False), TokenMade)

    def tokens(self) -> list[TokenView]:
        """All tokens of the workspace, oldest first, without what opens doors."""
        return decode(self._call("GET", "/v2/tokens"), list[TokenView])

    def toggle_token(self, token_id: str) -> TokenView:
        """Switch a token off, or on again."""
        path = f"/v2/tokens/{quote(token_id, safe='')}/toggle"
        return decode(self._call("POST", path, repeatable=False), TokenView)

    def revoke_token(self, token_id: str) -> None:
        """Forget a token for good."""
        self._call("DELETE", f"/v2/tokens/{quote(token_id, safe='')}")

    def backup(self, begun: Callable[[int], None]) -> Iterator[bytes]:
        """A backup of the server's data folder, as it comes; `begun` gets its size in bytes before."""
        answer = self._open("GET", "/v2/backup", wait=WALK_SECONDS)
        begun(int(answer.headers.get(b"content-length", b"0")))
        with self._to_the_end(answer, "the backup"):
            yield from answer.blocks()

    # secrets

    def create_secret(self, name: str, value: str) -> SecretView:
        """Keep a new secret."""
        body = msgspec.json.encode(NewSecret(name, value))
        return decode(self._call("POST", "/v2/secrets", body, repeatable=False), SecretView)

    def modify_secret(self, name: str, value: str) -> SecretView:
        """Give a secret a new value."""
        body = msgspec.json.encode(NewValue(value))
        return decode(self._call("PATCH", f"/v2/secrets/{quote(name, safe='')}", body), SecretView)

    def secrets(self) -> list[SecretView]:
        """All secrets by name, without their values."""
        return decode(self._call("GET", "/v2/secrets"), list[SecretView])

    def secret(self, name: str) -> SecretShown:
        """A secret with its value."""
        return decode(self._call("GET", f"/v2/secrets/{quote(name, safe='')}"), SecretShown)

    def delete_secret(self, name: str, *, force: bool = False) -> None:
        """Forget a secret; with `force` also one that deployments use."""
        self._call("DELETE", f"/v2/secrets/{quote(name, safe='')}{'?force=true' if force else ''}")

    # volumes

    def volumes(self) -> list[VolumeView]:
        """All volumes by name, with what they hold."""
        return decode(self._call("GET", "/v2/volumes", wait=WALK_SECONDS), list[VolumeView])

    def make_volume(self, name: str) -> VolumeMade:
        """Make a volume if there is none of this name."""
        return decode(self._call("POST", "/v2/volumes", msgspec.json.encode(NewVolume(name))), VolumeMade)

    def delete_volume(self, name: str, *, force: bool = False) -> None:
        """Delete a volume with all that is in it; with `force` also one that is used."""
        query = "?force=true" if force else ""
        self._call("DELETE", f"/v2/volumes/{quote(name, safe='')}{query}", wait=WALK_SECONDS)

    def volume_files(self, name: str, path: str = "", *, deep: bool = False) -> list[FileView]:
        """What is in a folder of a volume, with `deep` also in those below it, by path."""
        query = {"path": path} | ({"deep": "true"} if deep else {})
        return decode(self._call("GET", _in_volume(name, "files", query), wait=WALK_SECONDS), list[FileView])

    def volume_entry(self, name: str, path: str) -> FileView:
        """What is at a path of a volume."""
        return decode(self._call("GET", _in_volume(name, "entry", {"path": path})), FileView)

    def volume_file(self, name: str, path: str) -> Iterator[bytes]:
        """The bytes of a file in a volume, as they come."""
        answer = self._open("GET", _in_volume(name, "file", {"path": path}))
        with self._to_the_end(answer, "the download"):
            yield from answer.blocks()

    def put_volume_file(self, name: str, path: str, file: BinaryIO) -> FileView:
        """Upload a file into a volume, streamed."""
        data = self._call("PUT", _in_volume(name, "file", {"path": path}), file, kind=BYTES, wait=WALK_SECONDS)
        return decode(data, FileView)

    def remove_volume_file(self, name: str, path: str, *, deep: bool = False) -> None:
        """Remove a file or an empty folder, with `deep` also a folder that is not empty."""
        query = {"path": path} | ({"deep": "true"} if deep else {})
        self._call("DELETE", _in_volume(name, "files", query), wait=WALK_SECONDS)

    def move_volume_file(self, name: str, path: str, other: str, target: str) -> FileView:
        """Give a file or folder another path, in its volume or another."""
        body = msgspec.json.encode(Move(path, target, other))
        return decode(self._call("POST", _in_volume(name, "move", {}), body, repeatable=False), FileView)


def _in_volume(name: str, route: str, query: dict[str, str]) -> str:
    return f"/v2/volumes/{quote(name, safe='')}/{route}{'?' if query else ''}{urlencode(query)}"
