"""Samples that were written with torch.save: one tensor, or a mapping with `samples` and perhaps `labels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gandiag.checkpoints.file_type import detect_file_type
from gandiag.checkpoints.readers import read_pickled
from gandiag.checkpoints.tensor_checks import check_tensors
from gandiag.errors import LoadError, SourceError

SAMPLE_KEYS = ("samples", "images", "fake", "x")
LABEL_KEYS = ("labels", "y")
MAX_STORAGES = 3  # in the file: a state dict has more, or its names say so
MAX_TENSOR_BYTES = 4 * 2**30  # samples are read into memory as a whole


def is_saved_tensor(path: Path, names: Sequence[str]) -> bool:
    """Whether a PyTorch file with these zip entries is a set of samples; files of weights have more tensors."""
    storages = [name for name in names if name.rpartition("/")[0].endswith("/data") or name.startswith("data/")]
    if not 0 < len(storages) <= MAX_STORAGES or any("/code/" in name for name in names):
        return False
    try:
        return _find_samples(_read(path)) is not None
    except LoadError:
        return False


def read_saved_tensor(path: Path) -> tuple[Tensor, Tensor | None]:
    """The samples and labels. SourceError for any other PyTorch file; nothing in it is executed."""
    try:
        found = _find_samples(_read(path))
    except LoadError as broken:
        raise SourceError(f"{path} cannot be read: {broken.message}", broken.hint) from None
    if found is None:
        raise SourceError(
            f"{path} is a PyTorch file, not a set of samples", "save the samples alone: torch.save(samples, path)"
        )
    samples, labels = found
    if samples.nbytes > MAX_TENSOR_BYTES:
        raise SourceError(f"{path} holds {samples.nbytes:,} bytes, more than fit into memory", "save it as .npy")
    return samples.clone(), None if labels is None else labels.clone()  # no views: the file may be cut short


def _read(path: Path) -> Any:
    """What the file holds, read as a checkpoint is: within one budget, and no tensor larger than its bytes."""
    file_info = detect_file_type(path)
    if file_info.kind != "torch-zip":
        return None
    contents = read_pickled(file_info, trust=False, sha256="")
    check_tensors(contents.tree, file_info.size)
    return None if contents.notes else contents.tree


def _find_samples(content: Any) -> tuple[Tensor, Tensor | None] | None:
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
