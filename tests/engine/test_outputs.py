"""Saved files: whose, and under what names."""

from __future__ import annotations

import pytest

from treadle.engine.outputs import SaveOutput, blob_key, check_output_name, source_key
from treadle.model.errors import Conflict, InvalidInput

from .making import NOW, Desk


def test_the_attempt_that_runs_may_save(desk: Desk) -> None:
    """Several files, also two of one name."""
    desk.agent()
    deployment = desk.deploy()
    desk.started(deployment)
    task_id = desk.submit(deployment)
    for output_id in ("o1", "o2"):
        saved = desk.ask(desk.engine.outputs.save, SaveOutput(output_id, task_id, 1, "a.png", 5, f"outputs/{output_id}"))
        assert (saved.id, saved.created_at) == (output_id, NOW)
    assert [output.id for output in desk.store.outputs(task_id)] == ["o1", "o2"]


def test_no_other_attempt_may(desk: Desk) -> None:
    """One that is over, one that never was, an unknown task; the others of the batch are saved."""
    desk.agent()
    deployment = desk.deploy(retry_delay=0.0)
    container, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.fail(container, link, task_id)
    asked = [(task_id, 1), (task_id, 2), (task_id, 3), ("unknown", 1)]
    answers = desk.run(
        *((desk.engine.outputs.save, SaveOutput(f"o{n}", t, a, "a", 1, f"k{n}")) for n, (t, a) in enumerate(asked))
    )
    assert [isinstance(answer, Conflict) for answer in answers] == [True, False, True, True]
    assert [output.id for output in desk.store.outputs(task_id)] == ["o1"]
    desk.finish(container, link, task_id, 2)
    with pytest.raises(Conflict, match=f"Attempt 2 of task {task_id}"):
        desk.ask(desk.engine.outputs.save, SaveOutput("o9", task_id, 2, "a", 1, "k9"))


@pytest.mark.parametrize("name", ["a.png", "no extension", "ü✓.txt", "...", ".hidden", "a" * 255, "ä" * 127, "a:b", "%2e%2e"])
def test_names_of_files(name: str) -> None:
    """Anything a file can be called."""
    assert check_output_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a\\b", "a\0", "a\n", "\x7f", "\x1b[0m", "a" * 256, "ä" * 128, "\ud800"]
)
def test_names_that_are_none(name: str) -> None:
    """No paths, no control characters, nothing that a file system could not hold."""
    with pytest.raises(InvalidInput) as error:
        check_output_name(name)
    assert error.value.advice
    error.value.message.encode()


def test_bytes_are_kept_under_ids_alone() -> None:
    """A name given by a user is no part of a key."""
    assert blob_key("t", "o") == "outputs/t/o"
    assert source_key("s") == "sources/s.zip"
