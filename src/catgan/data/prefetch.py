"""Work ahead of whoever waits for it: a map in threads, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(
    function: Callable[[In], Out], inputs: Iterable[In], threads: int, depth: int
) -> Generator[Out, None, None]:
    """Yield function(i) for i in inputs, in order; up to `depth` of them are computed in threads before they are asked for.

    The results are those of a plain map, so `function` must not depend on what ran before. With 0 threads it is one.
    What a call raises is raised here, at its turn. Closing the generator drops what nobody has started and waits
    for the rest.
    """
    if threads == 0:
        for value in inputs:
            yield function(value)
        return
    torch.get_num_threads()  # settles this thread's number, which `use_one_thread` would set otherwise
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch", initializer=use_one_thread) as pool:
        try:
            for value in inputs:
                waiting.append(pool.submit(function, value))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def use_one_thread() -> None:
    """Keep a reading thread from starting OpenMP threads of its own: with more of them than cores, OpenMP puts those of
    the thread that trains to sleep between any two operations, which made small networks train at half the speed."""
    torch.set_num_threads(1)  # of the thread that calls it
