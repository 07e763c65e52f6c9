"""What crosses on the way between parent, template and child, in each order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from treadle.model.wire import AttemptRef, Cancel, Finished, Hello, Ready, Recall, Returned, Work
from treadle.runner.dealing import LARGE, PORTION
from treadle.runner.frames import Loaded

from .played import Played, played

Play = Callable[[Callable[[Played], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a scene with a parent of one child."""

    def run(scene: Callable[[Played], Awaitable[None]]) -> None:
        async def stage() -> None:
            async with played(tmp_path, monkeypatch) as it:
                await scene(it)

        asyncio.run(stage())

    return run


def test_a_cancel_hears_what_ended_before_it(play: Play) -> None:
    """A report on its way when the next task is cancelled is heard before its child is killed."""

    async def scene(it: Played) -> None:
        a, b, c = it.work("a", "b", "c")
        (child,) = it.children
        assert child.begin() == a
        child.end(a)
        assert child.begin() == b
        it.link.receive([Cancel(b)])
        await it.turn()
        assert it.killed == [child.number]
        it.bury(child)
        await it.turn()
        assert [(report.ref, report.result) for report in it.take(Finished)] == [(a, b"1")]
        assert it.children[0].begin() == c
        assert [ready.free for ready in it.take(Ready)] == [1]

    play(scene)


def test_a_cancel_of_what_has_just_ended_kills_nothing(play: Play) -> None:
    """A task whose report is on its way counts as ended: its child lives, and goes on with what it has."""

    async def scene(it: Played) -> None:
        a, b = it.work("a", "b")
        (child,) = it.children
        child.begin()
        child.end(a)
        it.link.receive([Cancel(a)])
        await it.turn()
        assert it.killed == []
        assert [report.ref for report in it.take(Finished)] == [a]
        assert child.begin() == b

    play(scene)


def test_a_report_that_is_read_after_the_death_counts(play: Play) -> None:
    """The end of a child is known before its last report is read: that one is told, the task after it has died."""

    async def scene(it: Played) -> None:
        a, b, c = it.work("a", "b", "c")
        (child,) = it.children
        assert child.begin() == a
        it.bury(child)
        child.end(a)
        assert child.begin() == b
        await it.turn()
        first, second = it.take(Finished)
        assert (first.ref, first.result, first.free) == (a, b"1", True)
        assert (second.ref, second.died and second.died.status, second.free) == (b, -9, False)
        assert it.children[0].begin() == c

    play(scene)


def test_a_death_between_tasks_is_charged_to_none(play: Play) -> None:
    """A child that has reported and not taken the next token was running nothing; its place was free already."""

    async def scene(it: Played) -> None:
        a, b = it.work("a", "b")
        (child,) = it.children
        child.begin()
        it.bury(child)
        child.end(a)
        await it.turn()
        assert [(report.ref, report.died) for report in it.take(Finished)] == [(a, None)]
        assert it.children[0].begin() == b
        assert it.take(Ready) == []

    play(scene)


def test_a_token_that_is_taken_has_begun(play: Play) -> None:
    """A child that dies with a token in its hand, before the first line of user code, is charged with that task."""

    async def scene(it: Played) -> None:
        a, b = it.work("a", "b")
        (child,) = it.children
        child.take_token()
        it.bury(child)
        await it.turn()
        assert [report.ref for report in it.take(Finished) if report.died] == [a]
        assert it.children[0].begin() == b

    play(scene)


def test_what_was_taken_back_is_skipped_by_the_child(play: Play) -> None:
    """After a recall the frames of what was returned still lie in the child's socket: the next token passes them."""

    async def scene(it: Played) -> None:
        a, b, c = it.work("a", "b", "c")
        (child,) = it.children
        assert child.begin() == a
        it.link.receive([Recall(), Work(AttemptRef("d", 1), b"{}")])
        assert [returned.refs for returned in it.take(Returned)] == [[b, c]]
        assert child.begin() == AttemptRef("d", 1)

    play(scene)


def test_all_that_is_held_is_named_wherever_it_is(play: Play) -> None:
    """Hello names what runs, what lies in the child, what waits here and what is not settled."""

    async def scene(it: Played) -> None:
        refs = it.work(*(f"t{n}" for n in range(PORTION + 10)))
        (child,) = it.children
        child.begin()
        child.end(refs[0])
        await it.turn()
        hello = it.link.greet()[0]
        assert isinstance(hello, Hello)
        assert set(hello.held) == set(refs)
        assert hello.free == 1 - (len(refs) - 1)

    play(scene)


def test_a_large_payload_waits_for_a_child_that_can_begin_it(play: Play) -> None:
    """What is large is not copied to a child that is busy, and what comes after it keeps its place."""

    async def scene(it: Played) -> None:
        a, large, b = (AttemptRef(name, 1) for name in ("a", "large", "b"))
        it.link.receive([Work(a, b"{}"), Work(large, b" " * (LARGE + 1)), Work(b, b"{}")])
        (child,) = it.children
        assert child.begin() == a
        assert not child.waits()
        child.end(a)
        await it.turn()
        assert child.begin() == large
        assert child.begin() == b

    play(scene)


@pytest.mark.parametrize("trouble", ["", "a thread is left"])
def test_a_checkpoint_that_dies_as_it_has_loaded_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Its last words, read when it is dead, ask nothing of it: another child is made, and works."""

    async def stage() -> None:
        async with played(tmp_path, monkeypatch, checkpoint_enabled=True) as it:
            (checkpoint,) = it.children
            it.bury(checkpoint)  # first, so that this is what the parent reads first
            checkpoint.say(Loaded(trouble))
            await it.turn()
            (another,) = it.children
            assert another.number != checkpoint.number

    asyncio.run(stage())
