"""What is measured, in which unit, and how far it shall reach."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """One number of one run."""

    name: str
    value: float
    unit: str
    note: str = ""


class Reach(NamedTuple):
    """What a median shall be: at least or at most so much."""

    sign: str
    bound: float

    def met(self, value: float) -> bool:
        return value >= self.bound if self.sign == "≥" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.sign} {shown(self.bound)}"


REACHES = {
    "accept + run + result durable, 64 connections": Reach("≥", 10_000),
    "accept + run + result durable, 64 connections, batches of 100": Reach("≥", 30_000),
    "drain": Reach("≥", 10_400),
    "end to end, one producer": Reach("≥", 3_500),
    "idle: enqueue to first line, p50": Reach("≤", 1.0),
    "idle: enqueue to first line, p99": Reach("≤", 3.0),
    "idle: put() to result in hand, p50": Reach("≤", 2.0),
    "put() in a loop": Reach("≥", 2_300),
    "put_many(1000)": Reach("≥", 58_000),
    "cold: enqueue to first line, p50": Reach("≤", 50.0),
    "crash to the retry's first line, p50": Reach("≤", 100.0),
    "1 000 000 finished: accept + run, cost": Reach("≤", 1.2),
    "1 000 000 finished: drain, cost": Reach("≤", 1.2),
    "1 000 000 finished: GET task, cost": Reach("≤", 1.2),
    "1 000 000 finished: list, cost": Reach("≤", 1.2),
    "pruning: accept p99, cost": Reach("≤", 1.2),
    "crowd: beside a flood of 429s, p50, cost": Reach("≤", 2.0),
    "crowd: beside a flood of 429s, p90, cost": Reach("≤", 2.0),
    "crowd: beside 10000 open long polls and event streams, p50, cost": Reach("≤", 2.0),
    "crowd: beside 10000 open long polls and event streams, p90, cost": Reach("≤", 2.0),
    "crowd: beside 100000 waiting tasks, p50, cost": Reach("≤", 2.0),
    "crowd: beside 100000 waiting tasks, p90, cost": Reach("≤", 2.0),
    "memory, all processes": Reach("≤", 90.0),
    "idle CPU of server and agent": Reach("≤", 0.5),
}


class Row(NamedTuple):
    """A figure over all runs."""

    name: str
    unit: str
    runs: list[float]
    note: str

    @property
    def median(self) -> float:
        return median(self.runs)

    @property
    def reach(self) -> Reach | None:
        return REACHES.get(self.name)

    @property
    def verdict(self) -> str:
        """"yes", "no", or nothing where no mark is set."""
        return "" if self.reach is None else ("yes" if self.reach.met(self.median) else "no")


def gather(runs: list[list[Figure]]) -> list[Row]:
    """The figures of all runs, in the order in which they first came."""
    rows: dict[str, Row] = {}
    for figure in (figure for run in runs for figure in run):
        row = rows.setdefault(figure.name, Row(figure.name, figure.unit, [], figure.note))
        row.runs.append(figure.value)
    return list(rows.values())


def shown(value: float) -> str:
    """A number with about three digits that matter, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"
