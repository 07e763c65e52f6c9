"""Who reads a log as it grows, and what commits have to tell them."""

from __future__ import annotations

import asyncio
from collections import deque

from treadle.engine.effects import Printed, Served, TaskEnded

NOTES = 1000


class Follower:
    """`news` is set when there may be more of the log, or when a task followed is final.

    Followers of a deployment are also told what else happens: kinds and texts, the last NOTES of them.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._notes: deque[tuple[str, str]] = deque(maxlen=NOTES)

    def note(self, kind: str, text: str) -> None:
        self._notes.append((kind, text))
        self.news.set()

    def take_notes(self) -> list[tuple[str, str]]:
        taken = list(self._notes)
        self._notes.clear()
        return taken


class Followers:
    """By the id of the task, container or deployment that they follow; no two of these have the same."""

    def __init__(self) -> None:
        self._by_id: dict[str, set[Follower]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, topic: str) -> Follower:
        """Follow what has this id; to be handed back to `remove`."""
        follower = Follower()
        self._by_id.setdefault(topic, set()).add(follower)
        return follower

    def remove(self, topic: str, follower: Follower) -> None:
        followers = self._by_id[topic]
        followers.discard(follower)
        if not followers:
            del self._by_id[topic]

    def tell(self, effect: Printed | Served | TaskEnded) -> None:
        """Wake those whom this concerns."""
        if not self._by_id:
            return
        match effect:
            case Printed(ids):
                for topic in ids:
                    self._wake(topic)
            case TaskEnded(task_id, deployment_id):
                self._wake(task_id)
                self._note(deployment_id, "task", task_id)
            case Served(deployment_id, kind, text):
                self._note(deployment_id, kind, text)

    def _wake(self, topic: str) -> None:
        for follower in self._by_id.get(topic, ()):
            follower.news.set()

    def _note(self, topic: str, kind: str, text: str) -> None:
        for follower in self._by_id.get(topic, ()):
            follower.note(kind, text)
