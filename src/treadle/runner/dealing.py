"""Deals work to the children: who gets how much ahead, and how what has not begun comes back.

All that has not begun has one way back: into the backlog, at its front, in order. From there it is dealt again, given
back to the server or dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from treadle.model.wire import AttemptRef, Work
from treadle.runner.pool import Child

LOW = 32  # tasks in a child's hands: with no more it gets some ahead, so that it need not wait for this process
PORTION = 32  # tasks a child gets at once: what is sent together costs little more than one
LARGE = 32 * 1024  # bytes: a larger payload is in memory once only, and goes to a child that can begin it


class Dealer:
    """The attempts that have not ended: waiting here, or in the hands of a child, whose first has begun."""

    def __init__(self) -> None:
        self._children: list[Child] = []  # that have loaded the handler, and live as far as is known
        self._backlog: deque[Work] = deque()
        self._holders: dict[AttemptRef, Child | None] = {}  # None: the backlog

    def join(self, child: Child) -> None:
        """This child has loaded the handler."""
        self._children.append(child)

    def leave(self, child: Child) -> AttemptRef | None:
        """Deal this child out; answers what it had begun and not ended. What it had not begun waits here again."""
        self.take_back(child)
        if child in self._children:
            self._children.remove(child)
        ref = None
        while child.hand:  # one at most: it reports a task before it begins the next
            ref = child.hand.popleft().ref
            del self._holders[ref]
        return ref

    def add(self, work: Work) -> None:
        self._holders[work.ref] = None
        self._backlog.append(work)

    def ended(self, child: Child, ref: AttemptRef, now: float) -> None:
        """The first task in this child's hands has ended, so it has begun the next."""
        assert child.hand[0].ref == ref, (child.number, ref)
        child.hand.popleft()
        del self._holders[ref]
        child.since = now if child.hand else None

    def drop(self, ref: AttemptRef) -> bool:
        """Forget an attempt that waits in the backlog. False when it does not wait there."""
        if ref not in self._holders or self._holders[ref] is not None:
            return False
        del self._holders[ref]
        self._backlog = deque(work for work in self._backlog if work.ref != ref)
        return True

    def take_back(self, child: Child) -> None:
        """Take what this child has not begun back into the backlog. Its last reports may still be on their way."""
        for work in child.take_back():
            self._holders[work.ref] = None
            self._backlog.appendleft(work)
        if not child.hand:
            child.since = None

    def take_all_back(self) -> None:
        """Take back what no child has begun."""
        for child in reversed(self._children):
            self.take_back(child)

    def empty(self) -> list[AttemptRef]:
        """Forget the backlog; answers what was in it."""
        refs = [work.ref for work in self._backlog]
        self._backlog.clear()
        for ref in refs:
            del self._holders[ref]
        return refs

    def deal(self, now: float) -> None:
        """Give children work: first those that have none, then some ahead to those that have little.

        When the backlog is empty and a child has nothing to do, it gets half of what another has not begun.
        """
        if not self._backlog and len(self._holders) > 1:
            self._even_out()
        if not self._backlog:
            return
        takers = [child for child in self._children if child.fate is None and len(child.hand) <= LOW]
        takers.sort(key=_held)
        for number, works in enumerate(self._shares(takers)):
            self._give(takers[number], works, now)

    def _shares(self, takers: list[Child]) -> list[list[Work]]:
        """Take from the backlog what these children get, the first ones first."""
        if not takers:
            return []
        idle = sum(not child.hand for child in takers)
        count = 0
        for work in islice(self._backlog, PORTION * len(takers)):
            if count >= idle and len(work.payload) > LARGE:
                break
            count += 1
        works = [self._backlog.popleft() for _ in range(count)]
        return [works[first :: len(takers)] for first in range(min(len(takers), count))]

    def _give(self, child: Child, works: list[Work], now: float) -> None:
        for work in works:
            self._holders[work.ref] = child
        if not child.hand:
            child.since = now
        child.give(works)

    def _even_out(self) -> None:
        if any(child.fate is None and not child.hand for child in self._children):
            busiest = max(self._children, key=_held)
            if len(busiest.hand) > 1:
                self.take_back(busiest)

    def __contains__(self, ref: AttemptRef) -> bool:
        return ref in self._holders

    def __len__(self) -> int:
        return len(self._holders)

    def __iter__(self) -> Iterator[AttemptRef]:
        return iter(self._holders)

    def holder(self, ref: AttemptRef) -> Child | None:
        """The child that has this attempt in its hands; None where none has."""
        return self._holders.get(ref)

    def free(self) -> int:
        """Children ready for work, less the work that waits for one."""
        return len(self._children) - len(self._holders)

    def busy(self) -> bool:
        """Whether there is more work than children, so that another report is near."""
        return len(self._holders) > len(self._children)

    def alone(self, child: Child) -> bool:
        """Whether no other child is at work."""
        return all(other is child for _, other in self.since())

    def since(self) -> list[tuple[float, Child]]:
        """Since when each working child has run what it runs; of those that were not killed for it."""
        return [(c.since, c) for c in self._children if c.since is not None and c.fate is None]


def _held(child: Child) -> int:
    return len(child.hand)
