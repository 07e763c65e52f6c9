"""Which images need a root file system of their own: those with a base image, or with system packages."""

from __future__ import annotations

import re

from treadle.model.deployment import ImageSpec
from treadle.model.errors import BuildFailed

_PREFIXES = r"(?:sudo\s+|env\s+|\w+=\S*\s+)*"
_START = r"(?:^|[;&|(\n]|\bthen\b|\bdo\b)\s*"
_INSTALLER = re.compile(rf"{_START}{_PREFIXES}(?:apt-get|apt|dpkg|apk|yum|dnf|zypper|pacman)\s")


def root_file_system(spec: ImageSpec) -> str:
    """What of a definition needs a root file system of its own, as it is written; "" if nothing does."""
    if spec.base_image:
        return f"base_image={spec.base_image!r}"
    return next((f"the command {command!r}" for command in spec.commands if _INSTALLER.search(command)), "")


def check_environment_is_enough(spec: ImageSpec) -> None:
    """Refuse a definition that an environment on this machine cannot hold.

    Raises:
        BuildFailed: says which part of it, what it needs, and what to do.
    """
    what = root_file_system(spec)
    if spec.base_image:
        advice = "Leave base_image out and use python_packages and commands."
        raise BuildFailed(f"{what} needs the Docker runtime, which is not available yet.", advice)
    if what:
        raise BuildFailed(
            f"The image needs the Docker runtime, which is not available yet: {what} installs system packages.",
            "Install them on the machine that runs the containers, and leave the command out.",
        )
