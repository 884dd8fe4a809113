"""Deals the batches of a pass to shards: shard k of W takes the batches k, k + W, k + 2 W …

Whole batches are dealt, not single samples: matrix products round by the size of the batch, networks that draw noise
and BatchNorm in batch mode depend on the whole batch. A batch of a shard is so the very one of the undivided audit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gandiag.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

MAX_SHARDS = 100_000
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    def choose(self, batches: Sequence[T]) -> Sequence[T]:
        """The batches of this shard, in order."""
        return batches[self.number - 1 :: self.count]

    def choose_rows(self, rows: Tensor, batch_size: int) -> Tensor:
        """The rows (N, …) of this shard: cut into runs of `batch_size`, they are its batches."""
        starts = range(0, len(rows), batch_size)
        positions = [row for start in self.choose(starts) for row in range(start, min(start + batch_size, len(rows)))]
        return rows if self.is_whole else rows[positions]


WHOLE = Shard()


def parse_shard(text: str) -> Shard:
    """ "3/64" as a Shard. ConfigError for anything but K/W with 1 <= K <= W."""
    found = _SHARD.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--shard is {text[:40]!r}", "write number/count, from 1: --shard 3/64")
    number, count = int(found[1]), int(found[2])
    if not 1 <= number <= count:
        hint = f"choose a number from 1 to {count}" if count else "give at least one shard: --shard 1/1"
        raise ConfigError(f"--shard is {text.strip()}, and there is no shard {number} of {count}", hint)
    if count > MAX_SHARDS:
        raise ConfigError(f"--shard is {text.strip()}", f"divide into at most {MAX_SHARDS:,} shards")
    return Shard(number, count)
