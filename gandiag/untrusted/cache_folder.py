"""Where gandiag keeps what it would otherwise compute again. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_cache_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """$GANDIAG_CACHE ("off" disables it: None), else $XDG_CACHE_HOME/gandiag, else ~/.cache/gandiag."""
    environ = os.environ if environ is None else environ
    setting = environ.get("GANDIAG_CACHE", "")
    if setting.lower() == "off":
        return None
    if setting:
        return Path(setting).expanduser()
    try:
        parent = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # there is no home folder
        return None
    return Path(parent) / "gandiag"
