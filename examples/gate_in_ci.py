"""Fail a build where the generator has collapsed or got worse: what `gandiag gate` does, from Python.

python examples/gate_in_ci.py audit.json last.json
"""

from __future__ import annotations

import sys

from gandiag.report.gate_text import render_gate_text
from gandiag.verdict.gate import gate


def main(record: str, baseline: str | None = None) -> int:
    result = gate(record, {"max-score": 0.2}, baseline=baseline)
    print(render_gate_text([result]), end="")
    return int(result.code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
