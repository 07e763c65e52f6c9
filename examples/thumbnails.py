"""A task queue that makes thumbnails: a picture comes in as JSON, smaller ones come out as files."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from treadle import Image, Output, QueueDepthAutoscaler, task_queue

SIZES = (64, 160, 320)  # the longer side of each thumbnail, in pixels
MAX_PIXELS = 50_000_000  # a small file may claim to be a huge picture


@task_queue(
    image=Image(python_packages=["pillow>=12"]),
    memory=256,
    workers=2,
    autoscaler=QueueDepthAutoscaler(max_containers=2, tasks_per_container=6),
)
def make_thumbnails(
    picture: str,
    name: str = "picture",
    sizes: list[int] | tuple[int, ...] = SIZES,
    callback_url: str | None = None,  # noqa: ARG001 - the server reads it; like every argument it comes here too
) -> dict[str, Any]:
    """Save a thumbnail of `picture` (base64, or a URL) for each of `sizes`; answer their names and sizes."""
    from PIL import Image as Pictures  # only the container's image has Pillow

    with Pictures.open(io.BytesIO(read(picture))) as original:
        if original.width * original.height > MAX_PIXELS:
            raise ValueError(f"{name} has {original.width}x{original.height} pixels; the limit is {MAX_PIXELS}")
        thumbnails = [save(original, name, size) for size in sizes]
        return {"name": name, "original": list(original.size), "thumbnails": thumbnails}


def read(picture: str) -> bytes:
    """The bytes of a picture that is given as a URL or as base64."""
    if picture.startswith(("http://", "https://")):
        with urlopen(picture, timeout=30) as answer:  # noqa: S310 - the scheme is checked above
            return bytes(answer.read())
    return base64.b64decode(picture, validate=True)


def save(original: Any, name: str, size: int) -> dict[str, Any]:
    """Scale to fit a square of `size` pixels and save the result as an output of the task."""
    small = original.convert("RGB")
    small.thumbnail((size, size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{Path(name).stem}-{size}.jpg"
        small.save(path, quality=85)
        Output(path=path).save()
        return {"file": path.name, "width": small.width, "height": small.height, "bytes": path.stat().st_size}
