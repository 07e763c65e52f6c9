"""The routes of volumes: their files come and go in streams, and no path leads out of one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from blob.deep import deepen
from treadle.model.container import Container, ContainerStatus, Role, Workspace

from .inside import Inside

DATA = bytes(range(256)) * 2000


def put(server: Inside, path: str = "a/b.bin", data: bytes = DATA, volume: str = "weights") -> None:
    answer = server.request("PUT", f"/v2/volumes/{volume}/file", params={"path": path}, content=data)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["path"], answer.json()["kind"], answer.json()["size"]) == (path, "file", len(data))


def paths(server: Inside, path: str = "", volume: str = "weights", **params: str) -> list[str]:
    answer = server.request("GET", f"/v2/volumes/{volume}/files", params={"path": path, **params})
    assert answer.status_code == 200, answer.text
    return [entry["path"] for entry in answer.json()]


def test_the_life_of_a_volume(server: Inside) -> None:
    """Made once, listed with what it holds, deleted with all of it."""
    made = [server.request("POST", "/v2/volumes", json={"name": "weights"}).json() for _ in range(2)]
    assert [(one["name"], one["created"]) for one in made] == [("weights", True), ("weights", False)]
    put(server)
    (view,) = server.request("GET", "/v2/volumes").json()
    assert (view["name"], view["files"], view["size"]) == ("weights", 1, len(DATA))
    assert server.request("DELETE", "/v2/volumes/weights").status_code == 204
    assert server.request("GET", "/v2/volumes").json() == []
    assert server.request("DELETE", "/v2/volumes/weights").status_code == 404
    put(server, "new")
    assert paths(server, deep="true") == ["new"]


def test_folders_deeper_than_any_path_are_counted_and_removed(server: Inside) -> None:
    """With their path, or with the volume; what they are in is listed meanwhile."""
    put(server)
    folder = server.engine.volumes._folder / "default" / "weights"
    deepen(folder / "deep")
    (view,) = server.request("GET", "/v2/volumes").json()
    assert (view["files"], view["size"]) == (2, len(DATA))
    assert paths(server) == ["a", "deep"]
    deleted = server.request("DELETE", "/v2/volumes/weights/files", params={"path": "deep", "deep": "true"})
    assert deleted.status_code == 204 and paths(server) == ["a"]
    deepen(folder / "deep")
    assert server.request("DELETE", "/v2/volumes/weights").status_code == 204
    assert list((folder.parents[1] / ".leaving").iterdir()) == []


def test_a_volume_is_deleted_where_nothing_can_be_made(server: Inside) -> None:
    """On a full disk, say; made again, it is empty."""
    put(server)
    (server.engine.volumes._folder / ".leaving").touch()
    assert server.request("DELETE", "/v2/volumes/weights").status_code == 204
    server.request("POST", "/v2/volumes", json={"name": "weights"})
    assert paths(server) == []


def test_a_volume_that_was_not_deleted_leaves_no_note_of_it(server: Inside) -> None:
    """Refused because there is none."""
    assert server.request("DELETE", "/v2/volumes/weights").status_code == 404
    assert list((server.engine.volumes._folder / ".leaving").iterdir()) == []


def test_a_file_comes_back_as_it_was_sent(server: Inside) -> None:
    """Into a volume that did not exist, with its length told, as bytes and nothing that a browser would show."""
    put(server)
    answer = server.request("GET", "/v2/volumes/weights/file", params={"path": "a/b.bin"})
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("application/octet-stream", "nosniff")


def test_a_file_is_taken_in_piece_by_piece(server: Inside) -> None:
    """It grows on the disk while it comes, and is seen at its path when it is whole."""
    growing: list[int] = []
    incoming = server.engine.volumes._folder / ".incoming"

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield DATA
            growing.extend(path.stat().st_size for path in incoming.iterdir())
        assert not (server.engine.volumes._folder / "default" / "weights" / "big").exists()

    answer = server.request("PUT", "/v2/volumes/weights/file", params={"path": "big"}, content=pieces())
    assert (answer.status_code, answer.json()["size"]) == (201, 50 * len(DATA))
    assert list(incoming.iterdir()) == []


def test_files_are_listed_looked_at_moved_and_removed(server: Inside) -> None:
    """By their paths in the volume."""
    put(server)
    put(server, "c")
    assert paths(server) == ["a", "c"]
    assert paths(server, "a") == paths(server, "a/b.bin") == ["a/b.bin"]
    assert paths(server, deep="true") == ["a", "a/b.bin", "c"]
    entry = server.request("GET", "/v2/volumes/weights/entry", params={"path": "a"}).json()
    assert (entry["path"], entry["kind"]) == ("a", "folder")
    moved = server.request("POST", "/v2/volumes/weights/move", json={"source": "a/b.bin", "target": "x/y"})
    assert (moved.status_code, moved.json()["path"]) == (200, "x/y")
    refused = server.request("DELETE", "/v2/volumes/weights/files", params={"path": "x"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert server.request("DELETE", "/v2/volumes/weights/files", params={"path": "x", "deep": "true"}).status_code == 204
    assert paths(server, deep="true") == ["a", "c"]


def test_a_move_into_another_volume(server: Inside) -> None:
    """Which must exist."""
    put(server)
    body = {"source": "a", "target": "b", "volume": "other"}
    assert server.request("POST", "/v2/volumes/weights/move", json=body).status_code == 404
    server.request("POST", "/v2/volumes", json={"name": "other"})
    assert server.request("POST", "/v2/volumes/weights/move", json=body).status_code == 200
    assert (paths(server), paths(server, volume="other", deep="true")) == ([], ["b", "b/b.bin"])


@pytest.mark.parametrize("path", ["../x", "a/../../x", "..", "%2e%2e/x", "a\0"])
@pytest.mark.parametrize(
    ("method", "route"), [("GET", "files"), ("GET", "entry"), ("DELETE", "files"), ("GET", "file"), ("PUT", "file")]
)
def test_no_path_leads_out(shared: Inside, method: str, route: str, path: str) -> None:
    """400; a name that only looks like an escape is one of a file that does not exist."""
    shared.request("POST", "/v2/volumes", json={"name": "walled"})
    answer = shared.request(method, f"/v2/volumes/walled/{route}", params={"path": path})
    assert answer.status_code == 400 if ".." in path.split("/") or "\0" in path else answer.status_code in (201, 204, 404, 200)
    assert not (shared.engine.volumes._folder / "default" / "x").exists()


def test_a_link_that_a_container_left_is_not_followed(server: Inside) -> None:
    """Here to the key of the secrets: neither read nor overwritten."""
    put(server)
    folder = server.engine.volumes._folder / "default" / "weights"
    key = server.engine.volumes._folder.parent / "secret.key"
    key.write_text("key")
    (folder / "file").symlink_to(key)
    (folder / "folder").symlink_to(key.parent)
    for path in ("file", "folder/secret.key"):
        assert server.request("GET", "/v2/volumes/weights/file", params={"path": path}).status_code == 409
    assert server.request("PUT", "/v2/volumes/weights/file", params={"path": "folder/secret.key"}, content=b"x").status_code == 409
    put(server, "file", b"replaces the link")
    assert key.read_text() == "key"


@pytest.mark.parametrize("name", ["..", ".incoming", "a b", "%2e%2e", "x" * 65])
def test_a_volume_has_the_name_of_a_folder(shared: Inside, name: str) -> None:
    """Nothing else is let in, wherever a name is taken."""
    assert shared.request("POST", "/v2/volumes", json={"name": name}).status_code == 400
    for method, path in (("DELETE", ""), ("GET", "/files"), ("PUT", "/file?path=x"), ("GET", "/file?path=x")):
        assert shared.request(method, f"/v2/volumes/{name}{path}").status_code in (400, 404, 405)
    body = {"source": "a", "target": "b", "volume": name}
    assert shared.request("POST", "/v2/volumes/walled/move", json=body).status_code in (400, 404)


def test_what_is_not_there_is_not_found(server: Inside) -> None:
    """Volumes and files; asking makes none."""
    for route in ("files", "entry", "file?path=x"):
        assert server.request("GET", f"/v2/volumes/nope/{route}").status_code == 404
    assert server.request("GET", "/v2/volumes").json() == []
    put(server)
    assert server.request("GET", "/v2/volumes/weights/file", params={"path": "nope"}).status_code == 404
    assert server.request("GET", "/v2/volumes/weights/file", params={"path": "a"}).status_code == 409


def test_one_in_use_is_deleted_only_by_force(server: Inside) -> None:
    """The refusal names the deployment, and the files stay."""
    from treadle.model.volume import VolumeMount

    put(server)
    server.deploy(volumes=(VolumeMount("weights", "models"),))
    refused = server.request("DELETE", "/v2/volumes/weights")
    assert refused.status_code == 409 and "resize v1" in refused.json()["error"]
    assert paths(server) == ["a"]
    assert server.request("DELETE", "/v2/volumes/weights?force=true").status_code == 204


def test_another_workspace_has_its_own(server: Inside) -> None:
    """Under the same name, in another folder."""
    put(server)

    def another(_now: float) -> Workspace:
        return server.store.insert_workspace(Workspace(0, "other-id", "other", "sk_x", "key", 0.0))

    foreign = server.add_token(Role.ADMIN, server.wait(server.bridge.run(another)))
    assert server.request("GET", "/v2/volumes", token=foreign).json() == []
    assert server.request("GET", "/v2/volumes/weights/files", token=foreign).status_code == 404
    answer = server.request("PUT", "/v2/volumes/weights/file?path=theirs", token=foreign, content=b"x")
    assert answer.status_code == 201
    assert paths(server, deep="true") == ["a", "a/b.bin"]


def test_a_container_comes_to_volumes_by_its_mounts_alone(server: Inside) -> None:
    """Its token opens none of the routes."""
    put(server)
    token = "container-" + "x" * 64
    row = Container(
        "taskqueue-c", server.workspace.id, server.deploy().id, "a", ContainerStatus.RUNNING,
        sha256(token.encode()).hexdigest(), time.time(), time.time() + 60,
    )  # fmt: skip
    server.wait(server.bridge.run(lambda _now: server.store.insert_container(row)))
    routes = [("GET", ""), ("POST", ""), ("DELETE", "/weights"), ("GET", "/weights/files"), ("GET", "/weights/file?path=c"),
              ("PUT", "/weights/file?path=c"), ("DELETE", "/weights/files?path=c"), ("POST", "/weights/move")]  # fmt: skip
    for method, path in routes:
        assert server.request(method, f"/v2/volumes{path}", token=token).status_code == 403
