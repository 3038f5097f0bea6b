"""Damaged inputs: what a file becomes when bytes are lost, doubled, changed or mixed up."""

from __future__ import annotations

import random
from typing import Iterator, Sequence

SEED = 20161125


def mutations(
    corpus: Sequence[bytes], tokens: Sequence[bytes], count: int, seed: int = SEED
) -> Iterator[bytes]:
    """Yield so many damaged versions of a corpus, always the same ones for a seed.

    Args:
        corpus: sound inputs.
        tokens: pieces that a reader takes for something special.
        count: how many.
        seed: where the random numbers begin.
    """
    rng = random.Random(seed)
    for _ in range(count):
        content = bytearray(rng.choice(corpus))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _change(content, tokens, rng, corpus)
        yield bytes(content)


def _change(
    content: bytearray, tokens: Sequence[bytes], rng: random.Random, corpus: Sequence[bytes]
) -> None:
    at = rng.randrange(len(content) + 1)
    to = min(len(content), at + rng.choice((1, 2, 4, 8, 32, 256)))
    kind = rng.randrange(7)
    if kind == 0:
        del content[at:to]
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:at] = content[at:to]
    elif kind == 3:
        content[at:at] = rng.choice(tokens)
    elif kind == 4:
        content[at:to] = rng.choice(tokens)
    elif kind == 5 and content:
        content[min(at, len(content) - 1)] ^= 1 << rng.randrange(8)
    else:
        other = rng.choice(corpus)
        begin = rng.randrange(len(other) + 1)
        content[at:to] = other[begin : begin + rng.choice((1, 8, 64))]
