"""Files that a task saves: uploaded while it runs, listed on the task, handed out by expiring URLs."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

from treadle.client import Client
from treadle.model.errors import NotFound, TreadleError, Unreachable

if TYPE_CHECKING:
    from treadle.model.api import OutputSaved

PATIENCE = 60.0  # seconds that a container goes on without a server, unless set otherwise
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0  # seconds between two tries
MAX_NAME = 255  # bytes of UTF-8


class OutputError(TreadleError):
    """Base of what can go wrong with an output."""

    status = 400
    code = "output"


class OutputCannotRunLocallyError(OutputError):
    """An output was made outside a container."""


class OutputTaskIdError(OutputError):
    """An output was made in a container, but not while a task runs."""


class OutputNotSavedError(OutputError):
    """Asked of an output before `save()`."""


class OutputSaveError(OutputError):
    """The server did not take the file."""


class OutputNotFoundError(OutputError):
    """The server does not hold the output any more."""


class OutputPublicURLError(OutputError):
    """The server did not give a URL."""


class Stat(NamedTuple):
    """What `stat()` answers: as of the moment the file was saved."""

    mode: int
    size: int
    atime: float
    mtime: float


class Output:
    """A file (or a directory, saved as a zip) that belongs to the running task.

    Only the base name of the path is kept. `id` is set by `save()`.

    Raises:
        OutputCannotRunLocallyError: not in a container.
        OutputTaskIdError: no task is running.
        FileNotFoundError: there is nothing at `path`.
    """

    def __init__(self, *, path: str | Path) -> None:
        self.task_id, self._attempt = _running_task()
        self.path = Path(path)
        self.id = ""
        self._stat: Stat | None = None
        self._made = False  # the file is ours and goes when it is saved
        if not self.path.exists():
            raise FileNotFoundError(f"There is nothing at {str(path)!r} to save as an output.")
        name = self.path.name if self.path.name not in ("", "..") else self.path.resolve().name
        self.name = _check_name(f"{name}.zip" if self.path.is_dir() else name)

    @classmethod
    def from_file(cls, file: IO[Any]) -> Self:
        """An output with the content of an open file, under a random name."""
        _running_task()
        data = file.read()
        if not data and file.seekable():  # just written: it stands at its end
            file.seek(0)
            data = file.read()
        path = _new_file("")
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return cls._of_our(path)

    @classmethod
    def from_pil_image(cls, image: Any, format: str = "png") -> Self:  # noqa: A002 - Beam's name
        """An output with a PIL image in this format, under a random name."""
        _running_task()
        path = _new_file(f".{format.lower()}")
        image.save(path, format="jpeg" if format.lower() == "jpg" else format)
        return cls._of_our(path)

    def save(self) -> Self:
        """Upload the file; from then on it is listed on the task.

        A server that is being started again is waited for, up to PATIENCE seconds.

        Raises:
            OutputSaveError: the server refused it, or did not come back; the message says why.
        """
        status = self.path.stat()
        try:
            if self.path.is_dir():
                with tempfile.TemporaryFile() as packed:
                    _zip_folder(self.path, packed)
                    saved = self._upload(packed)
            else:
                with self.path.open("rb") as file:
                    saved = self._upload(file)
        except TreadleError as error:
            raise OutputSaveError(f"The output {self.name!r} was not saved: {error.message}", error.advice) from None
        self.id = saved.id
        self._stat = Stat(status.st_mode, saved.size, status.st_atime, status.st_mtime)
        if self._made:
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()
            self._made = False
        return self

    def _upload(self, file: BinaryIO) -> OutputSaved:
        deadline, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
        while True:
            try:
                return _client().save_output(self.task_id, self._attempt, self.name, file)
            except Unreachable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            file.seek(0)

    def stat(self) -> Stat:
        """Mode, size and times of the file when it was saved.

        Raises:
            OutputNotSavedError: `save()` was not called.
            OutputNotFoundError: the server does not hold it any more.
        """
        if self._stat is None:
            raise self._not_saved()
        try:
            _client().output_url(self.id)
        except NotFound:
            raise OutputNotFoundError(f"The server does not hold the output {self.name!r} any more.") from None
        return self._stat

    def exists(self) -> bool:
        """Whether the server holds the saved output."""
        try:
            self.stat()
        except OutputNotFoundError:
            return False
        return True

    def public_url(self, expires: int = 3600) -> str:
        """A URL for anybody who has it, which works for `expires` seconds.

        Raises:
            OutputNotSavedError: `save()` was not called.
            OutputPublicURLError: the server did not give one; the message says why.
        """
        if not self.id:
            raise self._not_saved()
        if not isinstance(expires, int) or expires <= 0:
            raise OutputPublicURLError(f"expires={expires!r} is not allowed.", "Allowed: whole seconds from 1.")
        try:
            return _client().output_url(self.id, expires)
        except TreadleError as error:
            raise OutputPublicURLError(f"There is no URL for {self.name!r}: {error.message}", error.advice) from None

    @classmethod
    def _of_our(cls, path: Path) -> Self:
        output = cls(path=path)
        output._made = True
        return output

    def _not_saved(self) -> OutputNotSavedError:
        return OutputNotSavedError(f"The output {self.name!r} is not saved yet.", "Call .save() first.")


def _running_task() -> tuple[str, int]:
    """Task id and attempt that this process runs."""
    if not os.environ.get("CONTAINER_ID"):
        raise OutputCannotRunLocallyError(
            "An Output belongs to a running task, and this code does not run in a container.",
            "Guard it with `if treadle.env.is_remote():`, or run the function with .put().",
        )
    task_id = os.environ.get("TASK_ID", "")
    if not task_id:
        raise OutputTaskIdError("No task is running here (TASK_ID is not set).", "Save outputs in the handler.")
    return task_id, int(os.environ.get("TASK_ATTEMPT", "1"))


def _client() -> Client:
    return Client(os.environ.get("TREADLE_URL", ""), os.environ.get("TREADLE_TOKEN", ""), timeout=300.0)


def _check_name(name: str) -> str:
    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME or "\\" in name:
        allowed = f"Allowed: 1 to {MAX_NAME} bytes of printable text without backslashes."
        raise OutputSaveError(f"The file name {name!r} cannot be the name of an output.", allowed)
    return name


def _new_file(suffix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix="treadle-output-")) / f"{uuid.uuid4()}{suffix}"


def _zip_folder(folder: Path, target: IO[bytes]) -> None:
    """All files below `folder`, by their paths relative to it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    target.seek(0)
