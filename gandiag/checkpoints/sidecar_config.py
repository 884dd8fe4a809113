"""Settings that lie beside a checkpoint: config.json, .config.json. Data only; a name of code in them is never followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAMES = ("config.json", ".config.json")
_LONGEST = 1 << 20
_PLAIN = (bool, int, float, str)


def read_checkpoint_config(path: Path) -> Mapping[str, Any]:
    """The settings of the first such file in the checkpoint's folder that is one; nothing for links, long files and damage."""
    return next((found for name in _NAMES if (found := read_json_object(path.parent / name))), {})


def read_json_object(path: Path) -> Mapping[str, Any]:
    """A JSON object in a plain file; nothing for links out of its folder, long files, damage and other JSON."""
    try:
        if path.is_file() and _own(path) and path.stat().st_size <= _LONGEST:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        pass
    return {}


def _own(file: Path) -> bool:
    """A file itself, or a link of the Hub's cache: from <repository>/snapshots/<commit>/ into <repository>/blobs/."""
    if not file.is_symlink():
        return True
    target, folder = file.resolve(), file.parent.resolve()
    return target.parent.name == "blobs" and any(
        above.name == "snapshots" and above.parent == target.parent.parent for above in folder.parents
    )
