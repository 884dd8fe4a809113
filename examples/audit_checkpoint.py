"""Audit a checkpoint against its training data, and write the record and the page.

python examples/audit_checkpoint.py netG.pth photos/
"""

from __future__ import annotations

import sys
from pathlib import Path

import gandiag
from gandiag.report.html_page import render_html


def main(checkpoint: str, real: str, n: int | None = None) -> gandiag.Record:
    record = gandiag.audit(checkpoint, real=real, n=n)
    print(record.summary())
    record.write("audit.json")
    Path("report.html").write_text(render_html(record), encoding="utf-8")
    return record


if __name__ == "__main__":
    main(*sys.argv[1:3])
