"""Which variables a container gets, and which of several with one name."""

from __future__ import annotations

import msgspec
import pytest

from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.runtime.process import environment

from .conftest import Make

CONFIG = QueueConfig(
    handler="app:f",
    image=ImageSpec(env_vars={"A": "image", "B": "image", "C": "image", "STUB_ID": "image"}),
    env={"B": "env", "C": "env", "STUB_ID": "env"},
)
SECRETS = {"C": "secret", "STUB_ID": "secret", "PATH": "/secret"}


@pytest.mark.parametrize(
    ("name", "winner"),
    [("A", "image"), ("B", "env"), ("C", "secret"), ("STUB_ID", "d1"), ("PATH", "/secret")],
)
def test_the_later_of_image_env_secrets_and_treadle_wins(make: Make, name: str, winner: str) -> None:
    """What Treadle itself fills is what the runner was given."""
    spec = msgspec.structs.replace(make("", config=CONFIG), secrets=SECRETS)
    assert environment(spec, spec.folder)[name] == winner


def test_nothing_of_the_agents_own_environment_is_passed_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what every process has."""
    monkeypatch.setenv("OF_THE_AGENT", "1")
    spec = make("")
    assert environment(spec, spec.folder).keys() & {"OF_THE_AGENT", "USER", "PWD"} == set()
