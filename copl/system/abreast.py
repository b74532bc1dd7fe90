"""Work in parts that run side by side, each on one processor, for threads that are to compute so.

Torch divides each product among all processors, and then they wait for one another, a hundred times in a pass over some
texts. Where something else takes one of them for a moment, as a service that answers requests does all the time, the
others wait too. Parts that have nothing to do with one another wait for nobody.

The number of threads of a product belongs to the whole process (torch has no other), so it is 1 for everybody while
parts are computed. Only a thread that asks for it computes so: the one of `copl serve`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar, final

S = TypeVar("S")
T = TypeVar("T")


@final
class _Own(threading.local):
    """What one thread has: whether it computes so, and the threads that help it, with its own priority."""

    def __init__(self) -> None:
        self.asked = False
        self.pool: ThreadPoolExecutor | None = None


_OWN = _Own()


def compute_abreast() -> None:
    """Have what this thread computes in parts from now on, wherever there are such, run side by side."""
    _OWN.asked = True


def abreast(work: Callable[[S], T], parts: Sequence[S]) -> Iterator[T]:
    """Yield what becomes of each part, in order; one after the other, unless this thread computes side by side.

    Args:
        work: makes something of a part; is called by several threads at once, without gradients.
        parts: the parts.
    """
    import torch

    num_threads = torch.get_num_threads()
    if not _OWN.asked or len(parts) < 2 or num_threads < 2:
        yield from map(work, parts)
        return
    if _OWN.pool is None:
        _OWN.pool = ThreadPoolExecutor(num_threads, thread_name_prefix="copl-abreast")
    futures: list[Future[T]] = []
    torch.set_num_threads(1)
    try:
        futures += [_OWN.pool.submit(torch.no_grad()(work), part) for part in parts]
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(num_threads)
