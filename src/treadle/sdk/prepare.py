"""What happens before a function can run elsewhere: its image is built, its source synced, its deployment made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from treadle.client import Client
from treadle.model.api import BuildEvent, DeployRequest
from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.model.errors import BuildFailed, Unavailable
from treadle.model.settings import Settings
from treadle.sdk.console import Console, amount
from treadle.sdk.local import ensure_server
from treadle.sdk.prepared import Prepared
from treadle.sdk.source import pack


def prepare(
    config: QueueConfig,
    settings: Settings,
    console: Console,
    *,
    root: Path,
    name: str = "",
    context: Path | None = None,
) -> Prepared:
    """Build the image, sync the source below `root` and make a version of `name`, or the draft when it is empty.

    `context` is the folder that the image's Dockerfile copies from, if it does.
    """
    settings = ensure_server(settings, console)
    client = Client(settings.url, settings.token)
    image = with_context(client, config.image, context, console, data=settings.data)
    config = msgspec.structs.replace(config, image=image)
    image_id = build_image(client, image, console)
    source_id = sync_source(client, root, console, exclude=[settings.data, *_mounted(config, root)])
    request = DeployRequest(name=name, config=config, source_id=source_id, image_id=image_id)
    deployed = client.deploy(request)
    if deployed.warning:
        console.warn(f"No container of this can run here: {deployed.warning}")
    return Prepared(client, settings, deployed)


def with_context(client: Client, spec: ImageSpec, context: Path | None, console: Console, *, data: Path) -> ImageSpec:
    """The definition with its Dockerfile's context, which is uploaded if the server does not hold it yet."""
    if context is None:
        return spec
    console.step("Syncing the context of the Dockerfile")
    return msgspec.structs.replace(spec, context_id=_upload(client, context, console, exclude=[data]))


def build_image(client: Client, spec: ImageSpec, console: Console) -> str:
    """The image's id; shows the lines of the build as they come.

    Raises:
        BuildFailed: with the reason.
    """
    last, building, since = BuildEvent(), False, time.monotonic()
    with console.busy("Preparing the image"):
        for event in client.build_image(spec):
            last = event
            if not building and not event.cached and not event.error:
                console.step("Building image")
                building = True
            if event.log:
                console.detail(event.log)
    if last.error:
        raise BuildFailed(last.error)
    if not last.image_id:
        raise Unavailable("The image build ended without an answer.", "Try again; the server's log may say more.")
    seconds = time.monotonic() - since
    took = f" ({seconds:.0f} s)" if seconds >= 1 else ""
    console.step(f"Image ready{took}" if building else "Using cached image")
    return last.image_id


def sync_source(client: Client, root: Path, console: Console, *, exclude: Sequence[Path]) -> str:
    """The id of the packed source, which is uploaded only if the server does not hold it yet."""
    console.step("Syncing files")
    return _upload(client, root, console, exclude=exclude)


def _upload(client: Client, root: Path, console: Console, *, exclude: Sequence[Path]) -> str:
    with tempfile.TemporaryFile() as file:
        packed = pack(root, file, exclude=exclude)
        for reason in packed.skipped:
            console.warn(f"Left out {reason}")
        held = client.has_source(packed.id)
        if not held:
            client.put_source(packed.id, file)
    size = f"{packed.files} {'file' if packed.files == 1 else 'files'}, {amount(packed.size)}"
    console.step(f"Files synced ({size}{', unchanged: not uploaded' if held else ''})")
    return packed.id


def _mounted(config: QueueConfig, root: Path) -> list[Path]:
    """Folders that nobody would see in a container, because a volume is mounted there."""
    return [root / mount.mount_path for mount in config.volumes if not mount.is_absolute]
