"""Detects mode collapse in GAN generators.

    record = gandiag.audit("generator.pt", real="photos/")
    print(record.summary())

Public names are imported on first use, so `import gandiag` is fast.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gandiag import _moved

__version__ = "0.1.0"

_HOMES = {
    "audit": "gandiag.api",
    "compare": "gandiag.verdict.compare",
    "gate": "gandiag.verdict.gate",
    "load": "gandiag.api",
    "losses": "gandiag.training_logs.analysis",
    "Losses": "gandiag.training_logs.analysis",
    "AuditConfig": "gandiag.config",
    "ExitCode": "gandiag.errors",
    "GandiagError": "gandiag.errors",
    "Monitor": "gandiag.monitor.monitor",
    "Record": "gandiag.record",
}

__all__ = [
    "AuditConfig",
    "ExitCode",
    "GandiagError",
    "Losses",
    "Monitor",
    "Record",
    "audit",
    "compare",
    "gate",
    "load",
    "losses",
]

if TYPE_CHECKING:
    from gandiag.api import audit as audit
    from gandiag.api import load as load
    from gandiag.config import AuditConfig as AuditConfig
    from gandiag.errors import ExitCode as ExitCode
    from gandiag.errors import GandiagError as GandiagError
    from gandiag.monitor.monitor import Monitor as Monitor
    from gandiag.record import Record as Record
    from gandiag.training_logs.analysis import Losses as Losses
    from gandiag.training_logs.analysis import losses as losses
    from gandiag.verdict.compare import compare as compare
    from gandiag.verdict.gate import gate as gate

# In a checkout, ./gandiag shadows an installed wheel and has no `cli` subpackage, which is next to it.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "cli" / "main.py").is_file() and (_ROOT / "pyproject.toml").is_file():
    __path__.append(str(_ROOT))


_moved.install()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in ("metrics", "errors"):  # so that gandiag.metrics.coverage(real, fake) works after `import gandiag`
        return import_module(f"gandiag.{name}")
    raise AttributeError(f"module 'gandiag' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
