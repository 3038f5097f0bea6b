"""Taking turns: everybody once in each round, under the same conditions."""

from __future__ import annotations

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import numpy as np

from caffe_pysgd.update.fused.update import thread_count

# For 2^28 ticks, OpenBLAS's threads spin in wait of more work: at the expense of who comes next.
PAUSE = 0.15

Series = Dict[str, List[float]]


class Contestant(NamedTuple):
    """Somebody whose update is timed.

    Attributes:
        name: what the tables call it.
        fill: lets it have fresh gradients, untimed.
        update: does one update; returns its seconds.
        rested: whether it waits until the BLAS's threads sleep, which it is not given in training.
    """

    name: str
    fill: Callable[[], None]
    update: Callable[[], float]
    rested: bool = False


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def take_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    advance: Callable[[], None] = lambda: None,
    backward: Callable[[], None] = lambda: None,
    pause: float = PAUSE,
) -> Dict[str, Series]:
    """Let everybody update once in each round, in any order.

    Before each turn the gradients are fresh, a copy on all cores sweeps the caches, and a backward
    pass leaves the BLAS as training does: with threads that spin.

    Args:
        contestants: who takes turns.
        rounds: how many count, after one that does not: it finds memory that was never used.
        advance: is called after each round.
        backward: a backward pass in the BLAS that Caffe has.
        pause: the seconds in which those threads come to rest.

    Returns:
        Under ``seconds`` those of each contestant's updates, under ``bandwidth`` the bytes per
        second of the copy before each.
    """
    copy = the_copy()
    seconds: Series = {contestant.name: [] for contestant in contestants}
    bandwidth: Series = {contestant.name: [] for contestant in contestants}
    for number in range(rounds + 1):
        order = random.Random(number).sample(contestants, len(contestants))
        for name, fill, update, rested in order:
            fill()
            time.sleep(pause)  # for the copy, too
            bandwidth[name].append(copy.bandwidth())
            backward()
            time.sleep(pause if rested else 0)
            seconds[name].append(update())
        advance()
    return {"seconds": _that_count(seconds), "bandwidth": _that_count(bandwidth)}


def _that_count(series: Series) -> Series:
    return {name: [float(f"{figure:.4g}") for figure in all_[1:]] for name, all_ in series.items()}


@cache
def the_copy() -> Copy:
    """Return the copy that is made before each turn."""
    return Copy()


class Copy:
    """A copy in memory on all cores: what the machine's bandwidth is, and a sweep of the caches."""

    values = 1 << 25  # 128 MB from here to there: more than any cache

    def __init__(self) -> None:
        self._source = np.ones(self.values, np.float32)
        self._target = np.zeros(self.values, np.float32)
        threads = thread_count()
        self._pool = ThreadPoolExecutor(threads)
        bounds = [self.values * number // threads for number in range(threads + 1)]
        self._parts = [slice(first, past) for first, past in zip(bounds, bounds[1:])]

        # A memcpy of so much goes past the caches: on some machines that is faster than a loop, on
        # some it is half as fast.
        self._ways = (np.copyto, lambda target, source: np.add(source, np.float32(0), target))
        self._way = min(self._ways, key=self._seconds)

    def bandwidth(self) -> float:
        """Copy; return how many bytes were read and written in a second."""
        return 2 * 4 * self.values / timed(lambda: self._copy(self._way))

    def _seconds(self, way: Callable[..., Any]) -> float:
        return statistics.median(timed(lambda: self._copy(way)) for _ in range(5))

    def _copy(self, way: Callable[..., Any]) -> None:
        wait(
            [self._pool.submit(way, self._target[part], self._source[part]) for part in self._parts]
        )
