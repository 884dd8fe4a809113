"""Samples that were written with torch.save: one tensor, or a mapping with `samples` and perhaps `labels`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.untrusted.files import open_regular

SAMPLE_KEYS = ("samples", "images", "fake", "x")
LABEL_KEYS = ("labels", "y")
MAX_STORAGES = 3  # in the file: a state dict has more, or its names say so
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError)


def is_saved_tensor(path: Path, names: Sequence[str]) -> bool:
    """Whether a PyTorch file with these zip entries is a set of samples; files of weights have more tensors."""
    storages = [name for name in names if name.rpartition("/")[0].endswith("/data") or name.startswith("data/")]
    if not 0 < len(storages) <= MAX_STORAGES or any("/code/" in name for name in names):
        return False
    try:
        return _find_samples(_load(path)) is not None
    except _UNREADABLE:
        return False


def read_saved_tensor(path: Path) -> tuple[Tensor, Tensor | None]:
    """The samples and labels. SourceError for any other PyTorch file; no code in it is executed."""
    try:
        content = _load(path)
    except _UNREADABLE:
        content = None
    found = _find_samples(content)
    if found is None:
        raise SourceError(
            f"{path} is a PyTorch file, not a set of samples", "save the samples alone: torch.save(samples, path)"
        )
    return found


def _load(path: Path) -> Any:
    with open_regular(path) as stream:
        return torch.load(stream, map_location="cpu", weights_only=True)


def _find_samples(content: Any) -> tuple[Tensor, Tensor | None] | None:
    if isinstance(content, np.ndarray):
        content = torch.from_numpy(content)
    if isinstance(content, Tensor):
        return (content.detach(), None) if content.ndim >= 2 else None
    if not isinstance(content, Mapping):
        return None
    names = [name for name in SAMPLE_KEYS if isinstance(content.get(name), Tensor)]
    others = set(content) - {*SAMPLE_KEYS, *LABEL_KEYS}
    if len(names) != 1 or others or content[names[0]].ndim < 2:
        return None
    labels = next((content[name] for name in LABEL_KEYS if isinstance(content.get(name), Tensor)), None)
    is_label = labels is not None and not labels.is_floating_point() and labels.shape == content[names[0]].shape[:1]
    return content[names[0]].detach(), labels.long() if is_label and labels is not None else None
