"""Logs: chunks of lines found again by task, container and deployment, in the order of arrival."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from treadle.model.container import Container, ContainerStatus
from treadle.model.log import Chunk, Extent, Line, NewChunk, Stream, pack
from treadle.model.task import TaskStatus
from treadle.store.base import Reader, Store

from .making import NOW, claim, ended, insert, task, write

SOME = Extent(1, 10)


def line(text: str) -> Line:
    return Line(NOW, Stream.STDOUT, text)


def chunk(container_id: str, text: str, task_seq: int | None = None, *, starting: bool = False, upto: Extent = SOME) -> NewChunk:
    return NewChunk(container_id, task_seq, 1 if task_seq else 0, starting, upto, pack([line(text)]))


def keep(store: Store, *chunks: NewChunk) -> None:
    with store.transaction():
        store.insert_logs(chunks)


def containers(store: Store, *ids: str, for_task: str = "") -> None:
    with store.transaction():
        for name in ids:
            row = Container(name, 1, f"deployment of {name}", "agent", ContainerStatus.RUNNING, f"hash of {name}", NOW, NOW)
            store.insert_container(replace(row, for_task=for_task))


def texts(chunks: list[Chunk]) -> list[str]:
    return [one.text for each in chunks for one in each.lines]


def seq_of(store: Store, name: str) -> int:
    found = store.task(name)
    assert found is not None
    return found.seq


def test_a_chunk_comes_back_as_it_was(store: Store, reader: Reader) -> None:
    """With its lines, its task, attempt and container."""
    containers(store, "c")
    insert(store, task("t"))
    lines = [Line(NOW, Stream.STDOUT, "häh"), Line(NOW + 1, Stream.STDERR, "\x00\x1b[0m")]
    keep(store, NewChunk("c", seq_of(store, "t"), 2, False, SOME, pack(lines)))
    (found,) = reader.task_log("t", 0, 10)
    assert (found.task_id, found.attempt, found.container_id, found.lines) == ("t", 2, "c", lines)


def test_logs_are_told_apart(store: Store, reader: Reader) -> None:
    """A task has its own lines, a container and a deployment those of all their tasks and their own."""
    containers(store, "c", "other")
    insert(store, task("t"), task("u"))
    t, u = seq_of(store, "t"), seq_of(store, "u")
    keep(store, chunk("c", "1", t), chunk("c", "2"), chunk("other", "3", u), chunk("c", "4", u), chunk("other", "5"))
    assert texts(reader.task_log("t", 0, 10)) == ["1"]
    assert texts(reader.task_log("u", 0, 10)) == ["3", "4"]
    assert texts(reader.container_log("c", 0, 10)) == ["1", "2", "4"]
    assert texts(reader.deployment_log("deployment of other", 0, 10)) == ["3", "5"]
    assert [found.task_id for found in reader.container_log("c", 0, 10)] == ["t", "", "u"]


def test_reading_goes_on_from_a_number(store: Store, reader: Reader) -> None:
    """Chunks from that number on, at most as many as asked for."""
    containers(store, "c")
    insert(store, task("t"))
    keep(store, *(chunk("c", str(n), seq_of(store, "t")) for n in range(5)))
    first = reader.task_log("t", 0, 2)
    assert texts(first) == ["0", "1"]
    assert texts(reader.task_log("t", first[-1].seq + 1, 10)) == ["2", "3", "4"]
    assert texts(reader.container_log("c", first[-1].seq, 2)) == ["1", "2"]


def test_a_task_has_what_its_container_said_while_it_started(store: Store, reader: Reader) -> None:
    """The container that was started for it, and what it said until it was ready; in the order of arrival."""
    containers(store, "c", for_task="t")
    containers(store, "d", for_task="u")
    insert(store, task("t"))
    keep(store, chunk("c", "starts", starting=True), chunk("c", "runs", seq_of(store, "t")), chunk("c", "later"))
    keep(store, chunk("d", "not mine", starting=True))
    assert texts(reader.task_log("t", 0, 10)) == ["starts", "runs"]


def test_how_much_was_kept_is_known(store: Store) -> None:
    """Of the latest attempt of a task, and of a container's own words."""
    containers(store, "c")
    insert(store, task("t"))
    seq = seq_of(store, "t")
    assert (store.log_end(seq, 1), store.own_log_end("c")) == (Extent(), Extent())
    keep(store, chunk("c", "a", seq, upto=Extent(1, 10)), chunk("c", "b", seq, upto=Extent(2, 20)))
    keep(store, chunk("c", "c", upto=Extent(7, 70)))
    assert (store.log_end(seq, 1), store.log_end(seq, 2)) == (Extent(2, 20), Extent())
    assert store.own_log_end("c") == Extent(7, 70)


def test_a_containers_first_words_can_be_forgotten(store: Store, reader: Reader) -> None:
    """Those that lie before a number of lines or bytes; what tasks printed stays."""
    containers(store, "c")
    insert(store, task("t"))
    keep(store, chunk("c", "task", seq_of(store, "t"), upto=Extent(1, 1)))
    keep(store, *(chunk("c", str(n), upto=Extent(n, n * 10)) for n in (1, 2, 3, 4)))
    with store.transaction():
        store.trim_own_log("c", Extent(1, 0))
        store.trim_own_log("c", Extent(0, 25))
    assert texts(reader.container_log("c", 0, 10)) == ["task", "3", "4"]
    assert store.own_log_end("c") == Extent(4, 40)


def test_logs_go_with_their_tasks_and_containers(store: Store, reader: Reader) -> None:
    """A forgotten task takes its lines along, a forgotten container its own, and neither the other's."""
    containers(store, "c")
    insert(store, task("t"), task("kept"))
    for name in ("t", "kept"):
        keep(store, chunk("c", name, seq_of(store, name)))
    keep(store, chunk("c", "own"))
    with store.transaction():
        store.forget_tasks([seq_of(store, "t")])
    assert texts(reader.container_log("c", 0, 10)) == ["kept", "own"]
    row = store.container("c")
    assert row is not None
    with store.transaction():
        store.update_container(Container(row.id, 1, "d", "a", ContainerStatus.STOPPED, "h", NOW, NOW, NOW, NOW + 1))
        store.forget_containers(NOW + 2, 10)
    assert texts(reader.task_log("kept", 0, 10)) == ["kept"]
    containers(store, "next")
    assert reader.container_log("next", 0, 10) == []


def test_numbers_go_on_after_a_restart(store: Store, open_store: object) -> None:
    """Chunks and containers of a store that is opened again come after those before."""
    containers(store, "c")
    keep(store, chunk("c", "1"))
    last = store.container_log("c", 0, 10)[-1].seq
    store.close()
    again: Store = open_store()  # type: ignore[operator]
    containers(again, "d")
    keep(again, chunk("d", "2"), chunk("c", "3"))
    assert texts(again.container_log("d", 0, 10)) == ["2"]
    assert [found.seq for found in again.container_log("c", 0, 10)] == [last, last + 2]


def test_the_next_waiting_tasks_are_known_by_place(store: Store) -> None:
    """In the order in which they will be claimed; "" past the last one."""
    insert(store, task("late", due=NOW + 1), task("a"), task("b"))
    assert [store.waiting_at("deployment-1", NOW, place) for place in (0, 1, 2)] == ["a", "b", ""]


def test_containers_of_a_workspace(store: Store, reader: Reader) -> None:
    """Those that are not stopped, newest first, or the newest of all."""
    containers(store, "a", "b", "c")
    row = store.container("b")
    assert row is not None
    with store.transaction():
        store.update_container(Container("b", 1, "d", "a", ContainerStatus.STOPPED, "h", NOW, NOW, NOW, NOW + 1))
    assert {each.id for each in reader.containers(1)} == {"a", "c"}
    assert [each.id for each in reader.containers(1, ended=2)] == ["c", "b"]
    assert reader.containers(2) == []


def test_what_runs_in_a_container_can_be_asked_by_readers(store: Store, reader: Reader) -> None:
    """Running tasks, not those that have ended."""
    insert(store, task("t"), task("u"))
    running = claim(store, "t", "c")
    claim(store, "u", "c")
    write(store, ended(running, TaskStatus.COMPLETE, NOW + 5))
    assert [each.id for each in reader.running_in("c")] == ["u"]


def test_what_all_logs_take_is_known_whatever_becomes_of_them(store: Store) -> None:
    """Through insertion, trimming, the end of a task and of a transaction that fails."""
    containers(store, "c")
    insert(store, task("t"))
    assert store.log_bytes() == 0
    size = len(chunk("c", "x" * 100).body)
    keep(store, chunk("c", "x" * 100, upto=Extent(1, 100)), chunk("c", "y" * 100, upto=Extent(2, 200)))
    keep(store, chunk("c", "z" * 100, seq_of(store, "t")))
    assert store.log_bytes() == 3 * size
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.insert_logs([chunk("c", "never")])
        raise ZeroDivisionError
    assert store.log_bytes() == 3 * size
    with store.transaction():
        store.trim_own_log("c", Extent(1, 100))
    assert store.log_bytes() == 2 * size
    with store.transaction():
        store.forget_tasks([seq_of(store, "t")])
    assert store.log_bytes() == size


def test_the_oldest_logs_go_first(store: Store, reader: Reader) -> None:
    """By their arrival, whosever they are: at most so many, and no more than there is too much."""
    containers(store, "c")
    insert(store, task("t"))
    keep(store, *(chunk("c", text, seq_of(store, "t")) for text in "abcde"))
    with store.transaction():
        store.forget_oldest_logs(10_000, 2)
    assert texts(reader.task_log("t", 0, 10)) == ["c", "d", "e"]
    size = len(chunk("c", "c").body)
    with store.transaction():
        store.forget_oldest_logs(size, 10)
    assert texts(reader.task_log("t", 0, 10)) == ["d", "e"]
    with store.transaction():
        store.forget_oldest_logs(size + 1, 10)
    assert texts(reader.task_log("t", 0, 10)) == []
