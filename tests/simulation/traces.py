"""What attempts leave behind them: outputs, lines and webhooks, held against what the world knows of them."""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from treadle.engine.webhooks import Send
from treadle.model.log import unpack
from treadle.model.task import FINAL, Delivery, DeliveryStatus, TaskStatus
from treadle.store.ids import unpack_id

from .rows import Row, truth

OUTPUTS = "SELECT output.id, task.id, output.attempt FROM output JOIN task ON task.seq = output.task_seq"
LINES = """SELECT log.seq, task.id, log.attempt, container.id, log.body FROM log JOIN task ON task.seq = log.task_seq
    LEFT JOIN container ON container.seq = log.container_seq WHERE log.seq > ? ORDER BY log.seq"""


def printed(container_id: str, task_id: str, attempt: int) -> str:
    """The line that an attempt prints in this world."""
    return f"{task_id}/{attempt} in {container_id}"


class Traces:
    """As of the last commit."""

    def __init__(self) -> None:
        self._outputs: dict[str, str] = {}  # output -> its task
        self._last_line = 0
        self._sent: dict[str, tuple[str, bytes, str]] = {}  # webhook -> task, body and status as first told
        self._delivered: set[str] = set()

    def check(self, connection: apsw.Connection, before: Mapping[str, Row], rows: Mapping[str, Row]) -> None:
        self._check_outputs(connection, before, rows)
        self._check_lines(connection, before)

    def _check_outputs(self, connection: apsw.Connection, before: Mapping[str, Row], rows: Mapping[str, Row]) -> None:
        """Each was saved by the attempt that ran, and stays for as long as its task."""
        there = {key: (unpack_id(task_id), attempt) for key, task_id, attempt in connection.execute(OUTPUTS)}
        lost = [key for key, task_id in self._outputs.items() if key not in there and task_id in rows]
        assert not lost, f"saved and lost: {lost}"
        for key, (task_id, attempt) in there.items():
            if key not in self._outputs:
                ran = any(row is not None and row.runs(attempt) for row in (before.get(task_id), rows[task_id]))
                assert ran, f"output {key} was saved by attempt {attempt} of {rows[task_id]}"
        self._outputs = {key: task_id for key, (task_id, _) in there.items()}

    def _check_lines(self, connection: apsw.Connection, before: Mapping[str, Row]) -> None:
        """Each was printed by the attempt it stands at, which ran there."""
        for seq, packed, attempt, container_id, body in connection.execute(LINES, (self._last_line,)):
            task_id, self._last_line = unpack_id(packed), seq
            row = before.get(task_id)
            ran = row is not None and row.runs(attempt) and row.container_id == container_id
            assert ran, f"a line of attempt {attempt} in {container_id} was kept: {row}"
            (line,) = unpack(body)
            assert line.text == printed(container_id, task_id, attempt)

    def sent(self, send: Send, row: Row | None) -> None:
        """A webhook goes out: it tells the final state, the same whenever it is tried, and never once it was taken."""
        key = send.delivery.id
        told = send.delivery.task_id, send.body, send.headers["X-Task-Status"]
        assert key not in self._delivered, f"{key} is sent again"
        assert self._sent.setdefault(key, told) == told, f"{key} tells another thing now: {told}"
        if row is not None:
            data = truth(row.id, row.attempts) if row.status is TaskStatus.COMPLETE else b"{}"
            assert row.status in FINAL and told == (row.id, b'{"data": ' + data + b"}", row.status), f"{told}: {row}"

    def tried(self, delivery: Delivery) -> None:
        """What came of it is written down."""
        if delivery.status is DeliveryStatus.DELIVERED:
            self._delivered.add(delivery.id)
