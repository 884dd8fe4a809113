"""Which of two checkpoints keeps more variety? The difference of the scores with its interval.

python examples/compare_checkpoints.py old.json new.json
"""

from __future__ import annotations

import sys

from gandiag.record import Record
from gandiag.verdict.compare import compare


def main(old: str, new: str) -> float:
    change = compare(Record.read(old), Record.read(new)).change("score")
    if change is None:
        raise SystemExit("one of the records has no score")
    print(f"score {change.delta:+.2f} [{change.low:+.2f}, {change.high:+.2f}]: {change.direction}")
    return change.delta


if __name__ == "__main__":
    main(*sys.argv[1:3])
