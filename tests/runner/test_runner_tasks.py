"""What a task sees and what it gives back: arguments, results, exceptions, context."""

from __future__ import annotations

import json

import pytest

from .running import Runner

pytestmark = pytest.mark.process

ECHO = """
def handler(value=None):
    return value
"""


def test_a_result_is_reported_and_the_child_is_free_again(runner: Runner) -> None:
    """The value returned is reported as raw JSON, with word that the child can take the next task."""
    link = runner.start("def handler(a, b=0):\n    return {'sum': a + b}")
    finished = link.run("t1", 2, b=3)
    assert json.loads(finished.result or b"") == {"sum": 5}
    assert finished.free


def test_falsy_results_are_results(runner: Runner) -> None:
    """None, False, zero and empty values come back as they are."""
    link = runner.start(ECHO)
    for number, value in enumerate([None, False, 0, 0.0, "", [], {}]):
        finished = link.run(f"t{number}", value)
        assert finished.result == json.dumps(value).encode()


def test_numbers_keep_their_value_and_type(runner: Runner) -> None:
    """Integers beyond 64 bits stay exact integers and floats stay floats, in both directions."""
    link = runner.start("def handler(*values):\n    return [[type(v).__name__, v] for v in values]")
    big = 2**200 + 1
    assert link.value("t1", big, -big, 1.0, 1) == [["int", big], ["int", -big], ["float", 1.0], ["int", 1]]


def test_an_exception_is_told_with_type_message_and_the_users_traceback(runner: Runner) -> None:
    """The report names the exception and shows the frames of user code, and none of the runner's."""
    link = runner.start("""
        def inner():
            raise KeyError("no such picture")

        def handler():
            inner()
    """)
    raised = link.run("t1").raised
    assert raised is not None
    assert (raised.type, raised.message, raised.retryable) == ("KeyError", "'no such picture'", True)
    assert 'File "app.py", line 3, in inner' in raised.traceback
    assert raised.traceback.splitlines()[-1] == "KeyError: 'no such picture'"
    assert "treadle/runner" not in raised.traceback


def test_a_call_that_does_not_fit_the_function_is_an_exception(runner: Runner) -> None:
    """Arguments that the function does not take fail the attempt with Python's own words."""
    raised = runner.start(ECHO).run("t1", nonsense=1).raised
    assert raised is not None
    assert raised.type == "TypeError"
    assert "nonsense" in raised.message


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
def test_an_exception_that_would_end_python_only_fails_the_attempt(runner: Runner, name: str) -> None:
    """SystemExit and KeyboardInterrupt from user code are failures, and the child lives on."""
    link = runner.start(f"import os\ndef handler(stop):\n    if stop: raise {name}(3)\n    return os.getpid()")
    pid = link.value("t1", False)
    raised = link.run("t2", True).raised
    assert raised is not None
    assert (raised.type, raised.message) == (name, "3")
    assert link.value("t3", False) == pid


def test_retry_for_takes_subclasses(runner: Runner) -> None:
    """With `retry_for`, those exceptions and their subclasses are worth another try, others are not."""
    link = runner.start("""
        class Queue:
            on_start = None
            retry_for = (OSError,)

            def __call__(self):
                raise RuntimeError("say .put()")

            @staticmethod
            def func(name):
                raise {"sub": ConnectionResetError, "other": ValueError}[name]("x")

        handler = Queue()
    """)
    sub, other = link.run("t1", "sub").raised, link.run("t2", "other").raised
    assert sub is not None
    assert other is not None
    assert (sub.retryable, other.retryable) == (True, False)


def test_async_handlers_are_awaited_on_one_loop(runner: Runner) -> None:
    """An `async def` handler is awaited, and every task of a child finds the same event loop."""
    link = runner.start("""
        import asyncio

        async def handler(fail=False):
            await asyncio.sleep(0)
            if fail:
                raise ValueError("later")
            return id(asyncio.get_running_loop())
    """)
    loop = link.value("t1")
    raised = link.run("t2", fail=True).raised
    assert raised is not None
    assert "asyncio" not in raised.traceback
    assert link.value("t3") == loop


def test_on_start_runs_once_and_its_value_is_in_the_context(runner: Runner) -> None:
    """`on_start` runs once in each child before its first task; a parameter named `context` gets its value."""
    link = runner.start(
        """
        import os

        calls = []

        class Queue:
            retry_for = ()

            def __call__(self):
                raise RuntimeError("say .put()")

            @staticmethod
            def on_start():
                calls.append(os.environ.get("TREADLE_IMPORTING_USER_CODE"))
                return "model"

            @staticmethod
            def func(context):
                return [
                    calls, context.on_start_value, context.task_id, context.container_id, context.stub_id,
                    context.timeout, context.callback_url, context.python_version,
                ]

        handler = Queue()
    """,
        config={"timeout": 60},
    )
    link.run("t1")
    assert link.value("t2") == [[None], "model", "t2", "taskqueue-d1-00000001", "d1", 60, None, "3.11.7"]


def test_the_environment_names_the_task_and_the_import(runner: Runner) -> None:
    """TASK_ID and TASK_ATTEMPT are set for each task; TREADLE_IMPORTING_USER_CODE only while importing."""
    link = runner.start("""
        import os

        NAMES = ["TASK_ID", "TASK_ATTEMPT", "TREADLE_IMPORTING_USER_CODE"]
        at_import = [os.environ.get(name) for name in NAMES]

        def handler():
            return at_import, [os.environ.get(name) for name in NAMES]
    """)
    assert link.value("t1", attempt=2) == [[None, None, "true"], ["t1", "2", None]]


def test_the_source_is_the_working_directory_and_importable(runner: Runner) -> None:
    """The handler runs in its copy of the source and can import its neighbours, also late."""
    link = runner.start("""
        import os
        from pathlib import Path

        Path("neighbour.py").write_text("VALUE = 7")

        def handler():
            import neighbour
            return neighbour.VALUE, os.getcwd()
    """)
    value, folder = link.value("t1")
    assert value == 7
    assert folder == str(runner.code)


def test_a_result_that_is_not_json_fails_with_its_type(runner: Runner) -> None:
    """A set is no JSON: the attempt fails, says so, and is not worth another try."""
    raised = runner.start("def handler():\n    return {'names': {'a'}}").run("t1").raised
    assert raised is not None
    assert raised.not_json
    assert not raised.retryable
    assert "object of type set is not JSON serializable" in raised.message
    assert "Return None" in raised.message


def test_a_fork_that_returns_into_the_handlers_caller_reports_nothing(runner: Runner) -> None:
    """User code that forks and lets the copy return gives one report, and the child goes on."""
    link = runner.start("import os\ndef handler():\n    os.fork()\n    return 'once'")
    assert link.value("t1") == "once"
    assert link.value("t2") == "once"


def test_a_large_payload_and_result_pass(runner: Runner) -> None:
    """Megabytes go through the link and the child's socket in both directions."""
    text = "ä" * 3_000_000
    assert runner.start(ECHO).value("t1", text) == text


def test_a_function_decorated_by_the_sdk_runs(runner: Runner) -> None:
    """The object that `@task_queue` makes is called by its function, with its `on_start` and `retry_for`."""
    link = runner.start("""
        from treadle import task_queue

        def start():
            return 40

        @task_queue(on_start=start, retry_for=[LookupError])
        def handler(n, context):
            return context.on_start_value + [2][n]
    """)
    assert link.value("t1", 0) == 42
    raised = link.run("t2", 1).raised
    assert raised is not None
    assert (raised.type, raised.retryable) == ("IndexError", True)
