"""Which commands need a root file system of their own: those that call an installer of system packages."""

from __future__ import annotations

import pytest

from treadle.model.deployment import ImageSpec
from treadle.model.rooted import needs_engine


@pytest.mark.parametrize(
    "command",
    [
        "apt-get install -y jq", "true && sudo apt install jq", "A=1 B= env apk add x", "(apk add jq)", "a | sudo dpkg -i x",
        "if a; then yum install x; fi", "for a in b; do dnf install $a; done", "ls\n  \n apt-get \\\n install x", "A=;apt update",
    ],
)  # fmt: skip
def test_an_installer_that_is_called_needs_it(command: str) -> None:
    """Wherever in the command a shell would call it."""
    assert "installs system packages" in needs_engine(ImageSpec(commands=("true", command)))


@pytest.mark.parametrize(
    "command", ["echo apt-get install x", "ls /etc | grep apt", "x=apt install", "pip install apt", "/do/apt x", "apt", "aptly x"]
)
def test_an_installer_that_is_only_named_does_not(command: str) -> None:
    """Nor what is called nearly like one."""
    assert needs_engine(ImageSpec(commands=(command,))) == ""
