"""What people write in config.toml, in the environment and after `treadle`: understood, or told what is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.core
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from treadle.agent import machine
from treadle.cli import main as treadle
from treadle.cli.app import app as cli
from treadle.model.deployment import parse_cpu, parse_memory
from treadle.model.errors import InvalidInput, InvalidOption, TreadleError
from treadle.model.settings import ALLOWED, Settings, load
from treadle.server import main

from .effort import effort
from .listening import Listening

NUMBERS = ["nan", "inf", "-inf", "-0", "1e400", "0x10", "²", "٣", "9" * 400, "9" * 5000, "1_0", "", " ", "true"]
VALUES = ["[" * 3000 + "]" * 3000, "{" * 3000, '"\\ud800"', '"\\u0000"', "1979-05-27", "nan", "inf", "9" * 5000, "-1", '""', '"x"', "[]", "true", "0x_1", "1e999"]


@pytest.mark.parametrize("key", sorted(ALLOWED))
@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:12])
def test_a_value_in_config_toml_is_good_or_told(tmp_path: Path, key: str, value: str) -> None:
    """Whatever it is: endless numbers and nesting too."""
    (tmp_path / "config.toml").write_text(f"{key} = {value}\n")
    with contextlib.suppress(InvalidInput):
        assert isinstance(load(data=tmp_path, environ={}), Settings)


@effort(80)
@given(text=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode(errors="replace"))))
def test_no_config_toml_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """Nor any credentials.toml."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("config.toml", "credentials.toml"):
        (folder / name).write_bytes(text)
    with contextlib.suppress(InvalidInput):
        load(data=folder, environ={})


@effort(60)
@given(url=st.text(max_size=30) | st.sampled_from(["http://[", "http://[::1", "http://a:99999", "http://\0", "http://ä", "http://a:٣", "//", "http://a@b@c:1/"]), token=st.text(max_size=10))
def test_no_variable_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, url: str, token: str) -> None:
    """Of those that say where the server is."""
    with contextlib.suppress(InvalidInput):
        load(data=tmp_path_factory.mktemp("data"), environ={"TREADLE_URL": url, "TREADLE_TOKEN": token})


@pytest.mark.parametrize("given_", [*NUMBERS, "9" * 400 + "gi", "²gi", "-1gi"], ids=lambda value: value[:9])
def test_an_amount_is_a_number_in_its_range(given_: str) -> None:
    """In variables of the agent, and in definitions."""
    for read in (machine.memory, machine.orphan_grace):
        for name in ("TREADLE_MEMORY", "TREADLE_ORPHAN_GRACE"):
            with contextlib.suppress(InvalidOption):
                assert 0 < read({name: given_}) < 2**40
    for parse in (parse_memory, parse_cpu):
        with contextlib.suppress(InvalidOption):
            assert 0 < parse(given_) < 2**40


@pytest.mark.parametrize("host", ["\0", "a" * 64, "a" * 300, "ä" * 64, ".", "a..b", "\ud800"])
def test_a_host_that_is_none_is_told(tmp_path: Path, host: str) -> None:
    """Not with a traceback of whoever looks it up."""
    with pytest.raises(TreadleError, match=r"host|listen"):
        main._listen(Settings(data=tmp_path, host=host, port=0))


# command line

STARTING = {"up", "serve", "run", "doctor", "bench", "deploy"}  # what starts processes, or runs until it is stopped


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, typer.core.TyperGroup):
        for name, below in command.commands.items():
            yield from _leaves(below, (*path, name))
    elif not STARTING & set(path):
        yield path, command


COMMANDS = dict(_leaves(get_command(cli)))
# Nothing that could be somebody's file: some commands write where they are told to.
ODD = ["\udcff", "", "-", "--", "\n\x1b[2J", "..", "/proc/self/none", "a b", "ü\u202e", "9" * 400, "nan", "-1", "x" * 5000, ":", "vol:", "vol:../x", "%s%00"]


@pytest.fixture
def at(server: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with the server known."""
    monkeypatch.setenv("TREADLE_URL", server.url)
    monkeypatch.setenv("TREADLE_TOKEN", server.token)
    monkeypatch.setenv("TREADLE_DATA", str(tmp_path / "data"))
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_no_argument_makes_a_command_fail_otherwise(
    server: Listening, at: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Bytes that are no text, control characters, numbers that are none, for each argument and option: an exit code, in words."""
    options = [option for parameter in COMMANDS[words].params for option in parameter.opts if option.startswith("--") and option not in ("--follow", "--help", "--wait")]

    @effort(6)
    @given(
        arguments=st.lists(st.sampled_from(ODD) | st.text(st.characters(exclude_characters="\0/"), max_size=8), max_size=3),
        flags=st.lists(st.tuples(st.sampled_from(options or ["--json"]), st.sampled_from(ODD)), max_size=2),
    )
    def tried(arguments: list[str], flags: list[tuple[str, str]]) -> None:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            treadle([*words, *arguments, *(word for flag in flags for word in flag)])
        said = capfd.readouterr()
        assert end.value.code in (0, 1, 2)
        assert "Traceback" not in said.err
        assert end.value.code == 0 or said.err.startswith("error: ") or said.out or said.err.startswith("! "), said

    tried()
    assert words == ("backup",) or list(at.iterdir()) == []  # that one writes where it is told to
