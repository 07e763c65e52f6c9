"""What a real runner's children print: to whom it is counted, when it is sent, and that nobody suffers from it."""

from __future__ import annotations

import time

import psutil
import pytest

from treadle.model.log import KEPT_BYTES, KEPT_LINES, Line, Stream
from treadle.model.wire import AttemptRef, Finished, Lines, LoadFailed

from .link_server import Link, Server, wait_until
from .running import Runner

pytestmark = pytest.mark.process
MIB = 1024 * 1024


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def ref(task_id: str, attempt: int = 1) -> AttemptRef:
    return AttemptRef(task_id, attempt)


def before_its_end(link: Link, task_id: str) -> list[str]:
    """What a task has printed before it was reported, which is all that it ever prints."""
    end = next(n for n, m in enumerate(link.heard) if isinstance(m, Finished) and m.ref.task_id == task_id)
    told = [line.text for m in link.heard[:end] if isinstance(m, Lines) and m.ref == ref(task_id) for line in m.lines]
    assert told == texts(link.printed(ref(task_id)))
    return told


def test_lines_come_before_the_report(runner: Runner) -> None:
    """Of both streams, stamped with them and the time; a line without an end is one at the end."""
    link = runner.start("""
        import sys
        def handler():
            print("out")
            print("err", file=sys.stderr)
            print("halfway", end="")
    """)
    link.run("t1")
    assert sorted(before_its_end(link, "t1")) == ["err", "halfway", "out"]
    assert {(line.text, line.stream) for line in link.printed(ref("t1"))} == {
        ("out", Stream.STDOUT), ("err", Stream.STDERR), ("halfway", Stream.STDOUT),
    }  # fmt: skip
    assert all(abs(line.at - time.time()) < 60 for line in link.printed(ref("t1")))
    assert link.printed() == []


def test_lines_come_while_the_task_runs(runner: Runner) -> None:
    """Nobody waits for its end."""
    link = runner.start("""
        import time
        def handler(file):
            print("under way")
            while not __import__("os").path.exists(file):
                time.sleep(0.005)
    """)
    gate = runner.code / "gate"
    task = link.work("t1", str(gate))
    assert link.prints("under way", task)
    gate.touch()
    link.next(Finished)


def test_each_of_many_short_tasks_has_its_own_lines(runner: Runner) -> None:
    """Though they lie in the child already when the first prints, and are over before anybody has read."""
    link = runner.start("def handler(n):\n    print('task', n)\n    print(n * 'x')", config={"workers": 2})
    tasks = [link.work(f"t{n}", n) for n in range(300)]
    for _ in tasks:
        link.next(Finished)
    for n in range(300):
        assert before_its_end(link, f"t{n}") == [f"task {n}", n * "x"]
    assert link.printed() == []


def test_other_programs_print_for_the_task_that_runs(runner: Runner) -> None:
    """What they and C code write bears no stamp, and follows what was printed in Python before."""
    link = runner.start("""
        import os, subprocess
        def handler(n):
            subprocess.run(["echo", f"echo {n}"])
            print("python", n)
            os.write(2, b"raw %d\\n" % n)
    """)
    for n in range(5):
        link.run(f"t{n}", n)
    for n in range(5):
        assert sorted(before_its_end(link, f"t{n}")) == sorted([f"echo {n}", f"python {n}", f"raw {n}"])


def test_nobody_can_print_into_the_log_of_another_task(runner: Runner) -> None:
    """A stamp that user code makes up is text like any other, also if its author has read the source."""
    link = runner.start("""
        import os, sys
        def handler(n):
            os.write(1, b"\\0" + b"0" * 16 + b"t1 1\\nforged\\n")
            raw = sys.stdout.buffer.raw
            os.write(1, raw._stamps.mark + b"elsewhere 1\\nstolen\\n")
    """)
    link.run("t0", 0)
    link.run("t1", 1)
    for task in ("t0", "t1"):
        assert before_its_end(link, task)[1:] == ["forged", "stolen"]
    assert link.printed(ref("elsewhere")) == []


def test_an_exception_is_printed(runner: Runner) -> None:
    """With its traceback, as Python does; so is what cannot be a result."""
    link = runner.start("def handler(n):\n    if n:\n        raise ValueError('no')\n    return {1, 2}")
    link.run("t1", 1)
    assert before_its_end(link, "t1")[0] == "Traceback (most recent call last):"
    assert before_its_end(link, "t1")[-1] == "ValueError: no"
    link.run("t0", 0)
    assert "not JSON" in before_its_end(link, "t0")[0]


def test_a_death_is_told_after_the_last_line(runner: Runner) -> None:
    """What the process had printed until then, and a remark that says how it ended."""
    link = runner.start("import os\ndef handler():\n    print('before')\n    print('half', end='', flush=True)\n    os.kill(os.getpid(), 9)")
    assert link.run("t1").died is not None
    assert before_its_end(link, "t1") == ["before", "half", "killed by signal 9"]
    assert link.printed(ref("t1"))[-1].stream is Stream.NOTES


def test_a_timeout_is_told_after_the_last_line(runner: Runner) -> None:
    """The remark names the limit."""
    link = runner.start("import time\ndef handler():\n    print('before')\n    time.sleep(60)", config={"timeout": 1})
    assert link.run("t1").timed_out
    assert before_its_end(link, "t1") == ["before", "killed: timeout=1 s is over"]


def test_what_is_printed_at_the_start_is_the_containers(runner: Runner) -> None:
    """Of the import and of `on_start`, marked as such; of a later child it is not the start any more."""
    link = runner.start("""
        import os, sys
        from treadle import task_queue
        print("import")
        def start():
            print("on_start", file=sys.stderr)
        @task_queue(on_start=start)
        def handler():
            os._exit(3)
    """)
    assert link.prints("on_start")
    assert {m.starting for m in link.heard if isinstance(m, Lines)} == {True}
    link.run("t1")
    wait_until(lambda: texts(link.printed()).count("on_start") == 2, "the second child's start")
    assert [m.starting for m in link.heard if isinstance(m, Lines) and m.ref is None][-1] is False


def test_why_a_file_cannot_be_imported_is_printed(runner: Runner) -> None:
    """What it had printed, then the traceback, all before the failure is told."""
    runner.launch("print('half way')\nimport no_such_module\ndef handler(): pass")
    link = runner.server.accept()
    wait_until(lambda: any(isinstance(m, LoadFailed) for m in link.heard), "LoadFailed")
    first = next(n for n, m in enumerate(link.heard) if isinstance(m, LoadFailed))
    told = [line.text for m in link.heard[:first] if isinstance(m, Lines) for line in m.lines]
    assert "half way" in told
    assert "ModuleNotFoundError: No module named 'no_such_module'" in told


def test_what_a_task_leaves_behind_prints_for_the_container(runner: Runner) -> None:
    """A thread that outlives its task, while no other runs."""
    link = runner.start("""
        import threading, time
        def handler(file):
            def later():
                while not __import__("os").path.exists(file):
                    time.sleep(0.005)
                print("left behind")
            threading.Thread(target=later, daemon=True).start()
            print("mine")
    """)
    gate = runner.code / "gate"
    link.run("t1", str(gate))
    gate.touch()
    assert link.prints("left behind")
    assert before_its_end(link, "t1") == ["mine"]


def test_lines_are_kept_while_there_is_no_server(runner: Runner, server: Server) -> None:
    """They come first when there is one again, before the report of their attempt."""
    link = runner.start("""
        import time
        def handler(file):
            print("before")
            while not __import__("os").path.exists(file):
                time.sleep(0.005)
            print("meanwhile")
            open("printed", "w").close()
    """)
    gate = runner.code / "gate"
    task = link.work("t1", str(gate))
    link.prints("before", task)
    server.refuse_with = 503
    link.close()
    link.ended()
    gate.touch()
    wait_until((runner.code / "printed").exists, "the last line")
    server.refuse_with = None
    again = server.accept()
    assert again.next(Finished).ref == task
    assert before_its_end(again, "t1") == ["meanwhile"]


def test_a_progress_bar_is_seen_on_its_way_and_once_at_its_end(runner: Runner) -> None:
    """Its last state is a line; the states between do not fill the log."""
    link = runner.start("""
        import sys, time
        def handler(file):
            for n in range(50):
                sys.stderr.write(f"\\r{n:3}%")
                sys.stderr.flush()
            while not __import__("os").path.exists(file):
                time.sleep(0.005)
            sys.stderr.write("\\r100%\\n")
    """)
    gate = runner.code / "gate"
    task = link.work("t1", str(gate))
    assert link.prints("49%", task)
    gate.touch()
    link.next(Finished)
    assert before_its_end(link, "t1") == [" 49%", "100%"]


def test_binary_output_is_text_in_the_end(runner: Runner) -> None:
    """Bytes of any kind are lines with replacement characters, and characters cut by writes are whole."""
    link = runner.start("""
        import os, time
        def handler():
            os.write(1, bytes(range(256)) + b"\\n")
            for byte in "ä€\\U0001d11e\\n".encode():
                os.write(1, bytes([byte]))
                time.sleep(0.01)
    """)
    link.run("t1")
    told = before_its_end(link, "t1")
    assert told[-1] == "ä€\U0001d11e"
    assert "\N{REPLACEMENT CHARACTER}" in told[1]


FLOOD = """
    import os
    def handler(kind):
        if kind == "lines":
            for n in range(1_000_000):
                print("this line is number", n, "x" * 70)
            print("the last line")
        elif kind == "raw":
            for _ in range(1600):
                os.write(1, b"y\\n" * 32768)
        elif kind == "no end":
            for _ in range(1600):
                os.write(1, b"z" * 65536)
        return kind
"""


@pytest.mark.parametrize(("kind", "seconds"), [("lines", 60.0), ("raw", 30.0), ("no end", 30.0)])
def test_a_flood_harms_nobody(runner: Runner, kind: str, seconds: float) -> None:
    """100 MB: the parent's memory stays as it was, another child answers meanwhile, and little is kept."""
    link = runner.start(FLOOD, config={"workers": 2})
    link.run("warm", "none")
    parent = psutil.Process(runner.process.pid)
    before, most, slowest, number = parent.memory_info().rss, 0, 0.0, 0
    flood = link.work("flood", kind)
    deadline, over = time.monotonic() + seconds, False
    while not over:
        number += 1
        began = time.monotonic()
        small = link.work(f"small-{number}", "none")
        for _ in range(2):
            finished = link.next(Finished, deadline - time.monotonic())
            if finished.ref == small:
                break
            assert finished.ref == flood
            over = True
        slowest = max(slowest, time.monotonic() - began)
        most = max(most, parent.memory_info().rss)
        link.settle(small, flood)
    kept = link.printed(flood)
    assert most - before < 24 * MIB
    assert slowest < 10.0
    assert len(kept) <= KEPT_LINES + 10
    assert sum(len(line.text) for line in kept) <= KEPT_BYTES
    if kind == "lines":
        assert kept[-1].text == "the last line"
        assert any("lines left out" in line.text for line in kept)


def test_the_runners_log_file_does_not_grow(runner: Runner) -> None:
    """What children print is not in it."""
    link = runner.start("def handler():\n    print('x' * 10_000)")
    for n in range(20):
        link.run(f"t{n}")
    assert runner.log() == ""


def test_the_runners_own_words_are_the_containers(runner: Runner) -> None:
    """A process that dies between tasks is told in the container's log, and in the file that the agent reads."""
    link = runner.start("import os, threading\ndef handler():\n    threading.Timer(0.05, os._exit, (3,)).start()")
    link.run("t1")
    assert link.prints("a process ended between tasks: exit code 3")
    assert "treadle runner: a process ended between tasks" in runner.log()
