"""Every door of the server, and who may go through it. A route that is not here fails test_doors.py."""

from __future__ import annotations

from typing import NamedTuple

from treadle.model.container import Role


class Door(NamedTuple):
    """The least role that opens a route, and whether the token of a container does. None: no role does."""

    role: Role | None
    container: bool = False
    query: str = ""  # without it the request is not understood before anybody is asked for a token


READ, SUBMIT, DEPLOY, ADMIN = (Door(role) for role in (Role.READ, Role.SUBMIT, Role.DEPLOY, Role.ADMIN))
RUNNERS = Door(None, container=True)
AGENTS = Door(None)
FILE = Door(Role.DEPLOY, query="path=a")

# No token is asked for. Of data they show none but a signed URL's output, and take none but tasks of public queues.
OPEN = {
    "GET /health",
    "GET /openapi.json",
    "GET /output/id/{output_id}",
    "POST /taskqueue/public/{deployment_id}",
    "POST /taskqueue/public/{deployment_id}/batch",
}

QUEUES = {  # {version} is tried with a number and with the word `latest`
    "POST /taskqueue/{queue}": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/{queue}/batch": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/{queue}/warmup": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/{queue}/{version}": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/{queue}/{version}/batch": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/{queue}/{version}/warmup": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/id/{deployment_id}": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/id/{deployment_id}/batch": Door(Role.SUBMIT, container=True),
    "POST /taskqueue/id/{deployment_id}/warmup": Door(Role.SUBMIT, container=True),
}
VERSIONS = ("latest", "v1")

DOORS = {route.replace("{version}", version): door for route, door in QUEUES.items() for version in VERSIONS} | {
    "GET /v2/task": READ,
    "GET /v2/task/{task_id}": Door(Role.READ, container=True),
    "GET /v2/task/{task_id}/why": Door(Role.READ, container=True),
    "GET /v2/task/{task_id}/result": Door(Role.READ, container=True),
    "GET /v2/task/{task_id}/logs": READ,
    "DELETE /v2/task/cancel": SUBMIT,
    "GET /api/v1/task/{workspace}": READ,
    "GET /api/v1/task/{workspace}/{task_id}": Door(Role.READ, container=True),
    "DELETE /api/v1/task/{workspace}": SUBMIT,
    "PUT /v2/outputs": Door(None, container=True, query="task_id={task_id}&name=a&attempt=1"),
    "GET /v2/outputs/{output_id}/url": Door(Role.READ, container=True),
    "GET /v2/containers": READ,
    "GET /v2/containers/{container_id}": READ,
    "GET /v2/containers/{container_id}/logs": READ,
    "POST /v2/containers/{container_id}/stop": DEPLOY,
    "HEAD /v2/sources/{source_id}": DEPLOY,
    "PUT /v2/sources/{source_id}": DEPLOY,
    "GET /v2/sources/{source_id}": AGENTS,
    "GET /v2/images": READ,
    "POST /v2/images": DEPLOY,
    "POST /v2/images/prune": ADMIN,
    "GET /v2/deployments": READ,
    "POST /v2/deployments": Door(Role.DEPLOY, container=True),
    "GET /v2/deployments/{deployment_id}": READ,
    "DELETE /v2/deployments/{deployment_id}": DEPLOY,
    "POST /v2/deployments/{deployment_id}/start": DEPLOY,
    "POST /v2/deployments/{deployment_id}/stop": DEPLOY,
    "GET /api/v1/deployment/{workspace}": READ,
    "GET /api/v1/deployment/{workspace}/{deployment_id}": READ,
    "DELETE /api/v1/deployment/{workspace}/{deployment_id}": DEPLOY,
    "POST /api/v1/deployment/{workspace}/start/{deployment_id}": DEPLOY,
    "POST /api/v1/deployment/{workspace}/stop/{deployment_id}": DEPLOY,
    "POST /v2/serve": DEPLOY,
    "PUT /v2/serve/{served_id}": DEPLOY,
    "DELETE /v2/serve/{served_id}": DEPLOY,
    "GET /v2/serve/{served_id}/logs": DEPLOY,
    "GET /v2/secrets": DEPLOY,
    "POST /v2/secrets": ADMIN,
    "GET /v2/secrets/{secret}": ADMIN,
    "PATCH /v2/secrets/{secret}": ADMIN,
    "DELETE /v2/secrets/{secret}": ADMIN,
    "GET /secret/{workspace}": DEPLOY,
    "POST /secret/{workspace}": ADMIN,
    "GET /secret/{workspace}/{secret}": ADMIN,
    "PATCH /secret/{workspace}/{secret}": ADMIN,
    "DELETE /secret/{workspace}/{secret}": ADMIN,
    "GET /v2/volumes": DEPLOY,
    "POST /v2/volumes": DEPLOY,
    "DELETE /v2/volumes/{volume}": DEPLOY,
    "GET /v2/volumes/{volume}/entry": FILE,
    "GET /v2/volumes/{volume}/file": FILE,
    "PUT /v2/volumes/{volume}/file": FILE,
    "GET /v2/volumes/{volume}/files": DEPLOY,
    "DELETE /v2/volumes/{volume}/files": FILE,
    "POST /v2/volumes/{volume}/move": DEPLOY,
    "GET /v2/tokens": ADMIN,
    "POST /v2/tokens": ADMIN,
    "DELETE /v2/tokens/{token_id}": ADMIN,
    "POST /v2/tokens/{token_id}/toggle": ADMIN,
    "GET /api/v1/token/{workspace}": ADMIN,
    "POST /api/v1/token/{workspace}": ADMIN,
    "DELETE /api/v1/token/{workspace}/{token_id}": ADMIN,
    "POST /api/v1/token/{workspace}/{token_id}/toggle": ADMIN,
    "GET /v2/backup": ADMIN,
    "GET /v2/workspace": READ,
    "GET /v2/workspace/signing-key": ADMIN,
    "GET /api/v1/token/{workspace}/signing-key": ADMIN,
}

# WebSockets.
LINKS = {"/link/runner": RUNNERS, "/link/agent": AGENTS}
