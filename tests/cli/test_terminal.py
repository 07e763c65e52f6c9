"""What tasks say cannot take control of the terminal that shows it, nor pass for what the command says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import cast

import pytest

from cli.conftest import Run
from sdk.peer import TIME, Peer, task_view
from treadle.cli.files import _report
from treadle.cli.output import json_text
from treadle.cli.places import Place
from treadle.cli.transfer import Plan, Step, download
from treadle.client import Client
from treadle.lines import one_line, tamed
from treadle.model.api import AttemptView, OutputView
from treadle.sdk.console import Console

# ECMA-48: clear the screen, set the title, ask the terminal to type, 8-bit controls; and over it all a new first line.
EVIL = ["\x1b[2J", "\x1b]0;title\x07", "\x1b[6n", "\x1bP$q\x1b\\", "\x9b2J", "\x9d0;x\x9c", "\r\x1b[1Aall is well", "\x08\x08", "\x1b"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("evil", EVIL)
def test_a_terminal_is_not_told_to_do_anything(evil: str) -> None:
    """Colours, tabs and ends of lines are let through; all else that controls is shown as a sign."""
    out = Terminal()
    console = Console(out)
    console.say(f"a\t\x1b[31mred\x1b[0m {evil}")
    console.table(("NAME",), [(evil,)])
    console.warn(evil)
    said = out.getvalue().replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\x1b[1;33m", "").replace("\x1b[m", "")
    assert said.replace("\n", "").replace("\t", "").isprintable()


def test_a_pipe_gets_what_was_said() -> None:
    """Whoever reads it is a program."""
    assert tamed("\x1b[2J", io.StringIO()) == "\x1b[2J"


@pytest.mark.parametrize("text", ["a\nb", "a\r\nstatus:     COMPLETE", "a\x1b[2J", "\u202egnp", "a\u2028b", "\x85"])
def test_a_part_of_a_line_stays_one(text: str) -> None:
    """Nothing in it begins another or turns its direction."""
    assert one_line(text).isprintable()
    assert one_line("plain ä") == "plain ä"


def test_a_failure_cannot_pass_for_the_state_of_its_task(treadle: Run, peer: Peer) -> None:
    """The words of an exception and the names of outputs are parts of their lines."""
    forged = "no\nstatus:     COMPLETE\nresult:     1"
    attempt = AttemptView(1, "FAILED", "c", TIME, TIME, "exception", forged, "")
    output = OutputView("a\n\x1b[2Jb", "http://host/a", 3600, "out-1", 1)
    peer.set_task(task_view("bad", "FAILED", failure_reason=forged, attempts=[attempt], outputs=[output]))
    lines = treadle("task", "show", "bad").stdout.splitlines()
    assert [line for line in lines if line.startswith("status:")] == ["status:     FAILED"]
    assert not [line for line in lines if line.startswith("result:")]
    assert all(line.isprintable() for line in lines)
    waited = treadle("task", "wait", "bad").stdout.splitlines()
    assert len(waited) == 1


@pytest.mark.parametrize("evil", EVIL)
def test_json_has_no_controls(evil: str) -> None:
    """They are escaped, those of 8 bits too, and read back as they were."""
    text = json_text(json.dumps(evil, ensure_ascii=False).encode())
    assert text.isprintable()
    assert json.loads(text) == evil


@pytest.mark.parametrize("text", ["boom \x1b[8m hidden", "\x1b[31mred\x1b[0m and \x1b[7mback"])
def test_a_line_ends_what_it_has_set(text: str) -> None:
    """The lines after it are seen, whatever a traceback has hidden or coloured; what sets nothing is as it was."""
    out = Terminal()
    Console(out).say(text)
    Console(out).say("plain")
    assert out.getvalue() == f"{text}\x1b[0m\nplain\n"


def test_a_file_left_out_of_a_copy_cannot_pass_for_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name is a part of its line."""
    plan = Plan([], ["treadle://v/x\n=> Downloaded 2 files (9 kB) to here: a link"])
    _report(Console(), "Downloaded", plan, "dl")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("! Left out treadle://v/x\\n=> Downloaded 2 files")
    assert second == "=> Downloaded 0 files (0 B) to dl"


def test_a_file_with_the_longest_name_is_copied(tmp_path: Path) -> None:
    """It grows under a short one."""

    class Volume:
        def volume_file(self, _volume: str, _path: str) -> list[bytes]:
            return [b"data"]

    name = "x" * 255
    step = Step(tmp_path / name, Place("v", name), 4)
    download(cast(Client, Volume()), Plan([step]), Console(io.StringIO()))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"data")]
