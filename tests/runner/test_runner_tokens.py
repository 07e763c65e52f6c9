"""The pipe from which parent and child take the right to begin a task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from treadle.runner.tokens import Tokens, Turnstile


@contextmanager
def pipe() -> Iterator[tuple[Tokens, Turnstile]]:
    """The two ends, the child's in this process too. The test closes the parent's."""
    tokens = Tokens()
    end = os.dup(tokens.end)
    yield tokens, Turnstile(end)
    os.close(end)


def test_tokens_are_taken_in_the_order_they_were_put() -> None:
    """The child gets each number once, first in first out."""
    with pipe() as (tokens, turnstile):
        tokens.put([1, 2])
        tokens.put([3, 2**32 - 1])
        assert [turnstile.wait() for _ in range(4)] == [1, 2, 3, 2**32 - 1]
        tokens.close()


def test_what_is_taken_back_is_gone() -> None:
    """Taking back answers how many were left, and leaves none; of none it answers at once."""
    with pipe() as (tokens, turnstile):
        tokens.put([1, 2, 3])
        assert turnstile.wait() == 1
        assert tokens.take_back() == 2
        assert tokens.take_back() == 0
        tokens.put([4])
        assert turnstile.wait() == 4
        tokens.close()


def test_the_end_of_the_parent_is_the_end_of_waiting() -> None:
    """A child that waits for a token when the pipe closes is told so."""
    with pipe() as (tokens, turnstile), ThreadPoolExecutor(1) as thread:
        told = thread.submit(turnstile.wait)
        tokens.close()
        assert told.result(10) is None


def test_each_token_goes_to_one_of_the_two() -> None:
    """Two that take from one pipe at the same time never get a token both, and none is lost."""
    with pipe() as (tokens, turnstile):
        total = 20_000

        def begin() -> int:
            count = 0
            while turnstile.wait() is not None:
                count += 1
            return count

        with ThreadPoolExecutor(1) as thread:
            begun = thread.submit(begin)
            back = 0
            for first in range(0, total, 100):
                tokens.put(list(range(first, first + 100)))
                back += tokens.take_back()
            tokens.put([total])
            back += tokens.take_back()
            tokens.close()
            assert begun.result(10) + back == total + 1
