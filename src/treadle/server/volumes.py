"""Routes of volumes and of the files in them, which stream: no file is held in memory as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import BinaryIO

from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from treadle.engine.face import Entry, Tree
from treadle.engine.volumes import DropVolume, NameVolume, unknown
from treadle.model.api_workspace import FileView, Move, NewVolume, VolumeMade, VolumeView
from treadle.model.container import Role
from treadle.model.errors import TreadleError
from treadle.model.ids import iso
from treadle.model.volume import Volume, check_volume_name
from treadle.server.auth import Caller
from treadle.server.house import House
from treadle.server.requests import AnyRequest, decode_body, take_in

MAX_FILE = 1024**4  # bytes
BLOCK = 256 * 1024  # bytes


class Volumes(Controller):
    tags = ("volumes",)

    @post("/v2/volumes", status_code=200, takes=NewVolume)
    async def make(self, request: AnyRequest, house: NamedDependency[House]) -> VolumeMade:
        """Make a volume if there is none of this name."""
        caller = house.caller(request, Role.DEPLOY)
        asked = await decode_body(request, NewVolume, house.settings.max_body)
        name = NameVolume(caller.workspace_id, check_volume_name(asked.name))
        made = await house.bridge.ask(house.bridge.engine.volumes.make, name)
        return VolumeMade(made.volume.name, iso(made.volume.created_at), made.created)

    @get("/v2/volumes")
    async def all(self, request: AnyRequest, house: NamedDependency[House]) -> list[VolumeView]:
        """All volumes by name, with what they hold."""
        caller = house.caller(request, Role.DEPLOY)
        found = house.reader.volumes(caller.workspace_id)
        return [await asyncio.to_thread(_view, volume, _tree(house, caller, volume.name)) for volume in found]

    @delete("/v2/volumes/{name:str}", status_code=204)
    async def forget(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        name: FromPath[str],
        force: FromQuery[bool] = False,
    ) -> None:
        """Delete a volume with all that is in it; with `force` also one that is used."""
        caller = house.caller(request, Role.DEPLOY)
        volumes, workspace = house.bridge.engine.volumes, house.lookup.workspace(caller.workspace_id)
        verb = DropVolume(caller.workspace_id, check_volume_name(name), force)
        doomed = await asyncio.to_thread(volumes.doom, workspace, name)
        try:
            await house.bridge.ask(volumes.delete, verb)
        except TreadleError:
            await asyncio.to_thread(volumes.spare, doomed)
            raise
        try:
            await asyncio.to_thread(volumes.clear, workspace, name, doomed)
        except OSError as error:
            what = f"Volume {name!r} is deleted, but not all of its files could be removed: {error}."
            raise TreadleError(what, "The next start tries it again.") from error

    @get("/v2/volumes/{name:str}/files")
    async def list_files(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        name: FromPath[str],
        path: FromQuery[str] = "",
        deep: FromQuery[bool] = False,
    ) -> list[FileView]:
        """What is in a folder, with `deep` also in those below it, by path; a file is listed alone."""
        tree = _known(house, house.caller(request, Role.DEPLOY), name)
        found = await asyncio.to_thread(tree.entries, path, deep=deep)
        return [_shown(entry) for entry in found]

    @get("/v2/volumes/{name:str}/entry")
    async def look(
        self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str], path: FromQuery[str] = ""
    ) -> FileView:
        """What is at a path."""
        tree = _known(house, house.caller(request, Role.DEPLOY), name)
        return _shown(await asyncio.to_thread(tree.look, path))

    @delete("/v2/volumes/{name:str}/files", status_code=204)
    async def remove(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        name: FromPath[str],
        path: FromQuery[str],
        deep: FromQuery[bool] = False,
    ) -> None:
        """Remove a file or an empty folder, with `deep` also a folder that is not empty."""
        tree = _known(house, house.caller(request, Role.DEPLOY), name)
        await asyncio.to_thread(tree.remove, path, deep=deep)

    @get("/v2/volumes/{name:str}/file", gives="application/octet-stream")
    async def download(
        self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str], path: FromQuery[str]
    ) -> Stream:
        """The bytes of a file."""
        file, size = await asyncio.to_thread(_known(house, house.caller(request, Role.DEPLOY), name).open, path)
        headers = {"content-length": str(size)}
        return Stream(_blocks(file, size), media_type="application/octet-stream", headers=headers)

    @put("/v2/volumes/{name:str}/file", status_code=201, takes=bytes)
    async def upload(
        self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str], path: FromQuery[str]
    ) -> FileView:
        """Store the body as a file, which is seen when it is whole; makes the volume and the folders it takes."""
        caller = house.caller(request, Role.DEPLOY)
        await house.bridge.ask(
            house.bridge.engine.volumes.make, NameVolume(caller.workspace_id, check_volume_name(name))
        )
        tree = _tree(house, caller, name)
        upload = await asyncio.to_thread(tree.start, path)
        try:
            await take_in(request, upload, MAX_FILE)
            await asyncio.to_thread(upload.commit)
        finally:
            upload.abort()
        return _shown(await asyncio.to_thread(tree.look, path))

    @post("/v2/volumes/{name:str}/move", status_code=200, takes=Move)
    async def move(self, request: AnyRequest, house: NamedDependency[House], name: FromPath[str]) -> FileView:
        """Give a file or folder another path, in this volume or another."""
        caller = house.caller(request, Role.DEPLOY)
        asked = await decode_body(request, Move, house.settings.max_body)
        tree, other = _known(house, caller, name), _known(house, caller, asked.volume or name)
        await asyncio.to_thread(tree.move, asked.source, other, asked.target)
        return _shown(await asyncio.to_thread(other.look, asked.target))


def _tree(house: House, caller: Caller, name: str) -> Tree:
    return house.bridge.engine.volumes.tree(house.lookup.workspace(caller.workspace_id), name)


def _known(house: House, caller: Caller, name: str) -> Tree:
    """The files of a volume that exists."""
    if house.reader.volume(caller.workspace_id, check_volume_name(name)) is None:
        raise unknown(name)
    return _tree(house, caller, name)


def _view(volume: Volume, tree: Tree) -> VolumeView:
    files, size = tree.usage()
    return VolumeView(volume.name, iso(volume.created_at), files, size)


def _shown(entry: Entry) -> FileView:
    return FileView(entry.path, entry.kind, entry.size, iso(entry.modified))


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """As many bytes as were announced, though the file may grow meanwhile."""
    with file:
        while size and (block := file.read(min(BLOCK, size))):
            size -= len(block)
            yield block
