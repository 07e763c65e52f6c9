"""What a path on the command line means: `treadle://VOLUME/PATH` is in a volume, all else is on this machine."""

from __future__ import annotations

import msgspec

from treadle.model.errors import InvalidInput
from treadle.model.volume import check_volume_name

SCHEMES = ("treadle://", "beam://", "beta9://")
FORM = "treadle://VOLUME/PATH"


class Place(msgspec.Struct, frozen=True):
    """A path in a volume; `path` has no slashes at its ends, `as_folder` says that one was written at its end."""

    volume: str
    path: str
    as_folder: bool = False

    def __str__(self) -> str:
        return f"treadle://{self.volume}/{self.path}"

    def below(self, name: str) -> Place:
        """A path in the folder at this one."""
        return Place(self.volume, f"{self.path}/{name}".strip("/"))


def parse(text: str) -> Place | None:
    """The place in a volume that a text names; None for a path on this machine.

    Raises:
        InvalidOption: the volume's name has a form that is not allowed.
    """
    for scheme in SCHEMES:
        if text.startswith(scheme):
            return _place(text.removeprefix(scheme))
    return None


def in_volume(text: str) -> Place:
    """The same where nothing else can be meant: the scheme may be left out."""
    return parse(text) or _place(text)


def _place(rest: str) -> Place:
    volume, _, path = rest.partition("/")
    if not volume:
        raise InvalidInput("A path names no volume.", f"Write it as {FORM}.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return Place(check_volume_name(volume), "/".join(parts), path.endswith("/"))
