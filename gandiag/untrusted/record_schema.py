"""The shape of a record (schema gandiag.audit/1), checked where one is read. Torch-free.

Reports and gates rely on it: a field of another type is refused here, with its path, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.untrusted.schema import (
    SchemaError,
    anything,
    boolean,
    either,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    table,
    text,
)

_NUMBER = number(-1e150, 1e150)  # squares are still finite
_OPTIONAL = optional(_NUMBER)
_TEXT = optional(text())
_SCALAR = optional(either(text(), boolean, _NUMBER, due="a text or a number"))
_SHARE = optional(table({"value": _OPTIONAL, "low": _OPTIONAL, "high": _OPTIONAL}))
_COUNTED_SHARE = table({"value": number(0, 1), "low": number(0, 1), "high": number(0, 1)}, required=("value",))
_LINE = list_of(_OPTIONAL)
_POINTS = either(_LINE, mapping_of(_LINE), due="a list of numbers")

_SCORE = table(
    {
        "value": _OPTIONAL,
        "low": _OPTIONAL,
        "high": _OPTIONAL,
        "limit": number(0, 1),
        "basis": text("referenced", "degeneracy", "groups"),
        "power": _OPTIONAL,
        "n_fake": integer(0),
        "n_real": integer(0),
        "n_drawn": integer(0),
        "replicates": list_of(_NUMBER, longest=100_000),
    },
    required=("value", "low", "high"),
)
_MEASUREMENT = table(
    {
        "value": _OPTIONAL,
        "low": _OPTIONAL,
        "high": _OPTIONAL,
        "floor": _OPTIONAL,
        "unit": text(),
        "better": text("higher", "lower", "neither"),
        "n": integer(0),
        "status": text("ok", "not_measured", "error"),
        "reason": _TEXT,
    },
    required=("value",),
)
_MODES = table(
    {
        **dict.fromkeys(("found", "covered", "effective", "stability"), _OPTIONAL),
        "missed": optional(
            list_of(table({"mode": _SCALAR, "share_real": _OPTIONAL, "share_fake": _OPTIONAL, "exhibit": _TEXT}))
        ),
        "reason": _TEXT,
        "groups": optional(
            table(
                {
                    "kind": text("classes", "regions"),
                    "accuracy": _SHARE,
                    "left_out": _OPTIONAL,
                    "reason": _TEXT,
                    "rows": list_of(
                        table(
                            {
                                "name": _SCALAR,
                                "real": _COUNTED_SHARE,
                                "fake": _COUNTED_SHARE,
                                "p_value": _OPTIONAL,
                                "state": text("missing", "rare", "frequent", "even"),
                            },
                            required=("name", "real", "fake", "state"),
                        ),
                    ),
                },
                required=("kind", "rows"),
            )
        ),
    }
)
_CLASS = table(
    {
        "label": _SCALAR,
        "score": either(_OPTIONAL, _SHARE, due="a number"),
        **dict.fromkeys(("low", "high", "n", "n_fake", "n_real", "spread", "spread_low", "spread_high"), _OPTIONAL),
        "method": _TEXT,
    }
)
_EXHIBIT = table(
    {
        "id": text(),
        "kind": text("image", "series", "histogram"),
        "caption": text(),
        "data": table(
            {
                "png": text(),
                **dict.fromkeys(("columns", "rows", "tile", "group"), integer(0, 1 << 20)),
                "x": _POINTS,
                "lines": mapping_of(_POINTS),
                "edges": _LINE,
                "counts": mapping_of(_LINE),
            }
        ),
    },
    required=("id", "kind", "caption", "data"),
)
_FINDING = table(
    {
        "rule": text(),
        "level": text("error", "warning", "note"),
        "text": text(),
        "evidence": mapping_of(anything),
        "remedies": list_of(table(dict.fromkeys(("key", "title", "why", "source", "price"), _TEXT))),
    },
    required=("rule", "level", "text"),
)
_TRAINING = optional(
    table(
        {
            "verdict": _TEXT,
            "columns": optional(mapping_of(anything)),
            "oscillation": optional(mapping_of(anything)),
            "events": optional(list_of(table({"step": _OPTIONAL, "kind": text(), "evidence": _SCALAR}))),
            "read": optional(mapping_of(anything)),
        }
    )
)
_SUBJECT = table(
    {
        **dict.fromkeys(("path", "sha256", "loader", "weights"), _TEXT),
        "family": _TEXT,
        "parameters": _OPTIONAL,
        "latent": optional(
            table({"dim": _OPTIONAL, "prior": _TEXT, "scale": _OPTIONAL, "trained_scale": _SHARE}),
        ),
        "output": optional(
            table({"kind": _TEXT, "shape": optional(list_of(integer(0))), "range": optional(list_of(_NUMBER))})
        ),
        "classes": _OPTIONAL,
        "assumptions": optional(list_of(mapping_of(anything))),
        "notes": optional(list_of(text())),
    }
)
_PROVENANCE = table(
    {
        "versions": optional(mapping_of(_TEXT)),
        "device": _TEXT,
        "seed": optional(integer()),
        "config": optional(mapping_of(table({"source": _TEXT}))),
        "features": optional(mapping_of(_TEXT)),
        "seconds": optional(mapping_of(_OPTIONAL)),
        "doubts": optional(list_of(text())),
        "remarks": optional(list_of(text())),
    }
)
RECORD = table(
    {
        "schema": text(),
        "verdict": text("healthy", "collapsed", "inconclusive", "not_degenerate", "unrealistic", "memorised"),
        "kinds": list_of(text()),
        "score": _SCORE,
        "subject": _SUBJECT,
        "measurements": mapping_of(_MEASUREMENT),
        "profile": mapping_of(_SHARE),
        "aspects": mapping_of(_SHARE),
        "modes": _MODES,
        "classes": list_of(_CLASS),
        "response": table(
            {"axis": _TEXT, "reason": _TEXT, "points": optional(list_of(mapping_of(anything)))},
        ),
        "training": _TRAINING,
        "game": mapping_of(anything),
        "exhibits": list_of(_EXHIBIT),
        "findings": list_of(_FINDING),
        "policy": mapping_of(anything),
        "provenance": _PROVENANCE,
    },
    required=("verdict", "kinds", "score", "subject", "measurements"),
)


def check_record(document: Mapping[str, Any]) -> None:
    """SchemaError with the path of the first offending key of a record."""
    RECORD(document, "")
    _require_ordered(document["score"], "score")
    for name, entry in document["measurements"].items():
        _require_ordered(entry, f"measurements.{name}")


def _require_ordered(entry: Mapping[str, Any], path: str) -> None:
    """An interval that is none would pass every limit."""
    low, high = entry.get("low"), entry.get("high")
    if low is not None and high is not None and low > high:
        raise SchemaError(f"{path}.low is above {path}.high")
