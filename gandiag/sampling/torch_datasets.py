"""Anything with a length and items: torch Datasets of tensors, PIL images or arrays, alone or as (x, y)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Assumption, SampleKind
from gandiag.sampling.image_folders import pil_to_tensor
from gandiag.sampling.latents import derive_seed
from gandiag.sampling.module_state import isolated_rng, tensor_to_bytes
from gandiag.sampling.preprocessing import infer_value_range, match_channels

_LOOKED_AT = 256  # items that settle the range of float images
_KEYS = ("image", "img", "pixel_values", "x")
_COLOURS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class DatasetReader:
    """Items by index. Random augmentation is drawn from the index, so that an item is the same every time."""

    dataset: Any
    name: str
    kind: SampleKind
    shape: tuple[int, ...] | None
    channels: int
    range: tuple[float, float]
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    notes: tuple[Assumption, ...] = ()

    @property
    def n(self) -> int:
        return len(self.dataset)

    def match_output(self, output: Any) -> DatasetReader:
        return self

    def read(self, indices: Tensor) -> tuple[Tensor | list[Tensor], Tensor | None]:
        items = [read_item(self.dataset, index) for index in indices.tolist()]
        labels = self.labels[indices] if self.labels is not None else _item_labels([label for _, label in items])
        if self.kind != "image":
            return torch.stack([_as_tensor(value).float().reshape(-1) for value, _ in items]), labels
        return [self._image(value) for value, _ in items], labels

    def fingerprint(self, indices: Tensor) -> str:
        """Length, and the contents of `indices`."""
        digest = hashlib.blake2b(f"{self.n}|{self.kind}|{self.shape}".encode(), digest_size=16)
        for index in indices.tolist():
            value, label = read_item(self.dataset, index)
            digest.update(tensor_to_bytes(_as_tensor(value)) + str(label).encode())
        return digest.hexdigest()

    def _image(self, value: Any) -> Tensor:
        if isinstance(value, Image.Image):
            return pil_to_tensor(value, self.channels)
        image = match_channels(to_channels_first(_as_tensor(value))[None], self.channels)[0]
        if image.dtype == torch.uint8 and self.range == (0.0, 255.0):
            return image
        low, high = self.range
        unit = image.float().sub(low).div(high - low)
        if not (float(unit.min()) >= -0.01 and float(unit.max()) <= 1.01):
            raise SourceError(
                f"{self.name}: values leave the range {low:g} to {high:g} that most items keep",
                "scale the images to [0, 1]",
            )
        return unit.clamp(0, 1)


def open_dataset(dataset: Any, name: str) -> DatasetReader:
    """Look at a few items of a map-style dataset: kind, shape, range, labels."""
    try:
        n = len(dataset)
    except TypeError:
        raise SourceError(f"{name} has no length", "pass a map-style dataset, or save the samples as .npy") from None
    if not n:
        raise SourceError(f"{name} holds no samples", "pass at least 2")
    value, label = read_item(dataset, 0)
    names = getattr(dataset, "classes", None)
    class_names = tuple(str(each) for each in names) if isinstance(names, (list, tuple)) else None
    labels = _all_labels(dataset, n, label)
    if not isinstance(value, Image.Image) and _as_tensor(value).dim() < 2:
        return DatasetReader(dataset, name, "vector", (_as_tensor(value).numel(),), 0, (0.0, 1.0), labels, class_names)
    looked = [read_item(dataset, index)[0] for index in range(0, n, max(1, -(-n // _LOOKED_AT)))]
    shapes = {_image_shape(each) for each in looked}
    channels = max(shape[0] for shape in shapes)
    shape = (channels, *next(iter(shapes))[1:]) if len({each[1:] for each in shapes}) == 1 else None
    found = _range(looked, name)
    note = Assumption("range of the samples", f"{found[0]:g},{found[1]:g}", "values")
    return DatasetReader(dataset, name, "image", shape, channels, found, labels, class_names, (note,))


def read_item(dataset: Any, index: int) -> tuple[Any, int | None]:
    """One item as (value, label or None), with the random numbers of its index."""
    with isolated_rng(derive_seed(index, "dataset item")):
        try:
            item = dataset[index]
        except Exception as problem:
            raise SourceError(
                f"item {index} of the dataset cannot be read: {type(problem).__name__}: {problem}",
                "repair or remove it",
            ) from problem
    label = None
    if isinstance(item, dict):
        label = item.get("label", item.get("labels"))
        item = next((item[key] for key in _KEYS if key in item), item)
    elif isinstance(item, (tuple, list)):
        label = item[1] if len(item) > 1 else None
        item = item[0]
    return item, _whole(label)


def to_channels_first(image: Tensor) -> Tensor:
    """(h, w), (h, w, C) or (C, h, w) -> (C, h, w); tensors are channels-first where both are possible."""
    if image.dim() == 2:
        return image[None]
    return image if image.shape[0] in _COLOURS else image.permute(2, 0, 1)


def _whole(label: Any) -> int | None:
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, (Tensor, np.ndarray)) and label.ndim == 0 and not torch.as_tensor(label).is_floating_point():
        return int(label)
    return None


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Image.Image):
        value = np.array(value)
    if not isinstance(value, (Tensor, np.ndarray, int, float)):
        raise SourceError(
            f"the dataset's items are of type {type(value).__name__}",
            "yield tensors, arrays or PIL images, alone or as (x, y)",
        )
    return torch.as_tensor(value).detach().cpu()


def _image_shape(value: Any) -> tuple[int, int, int]:
    if isinstance(value, Image.Image):
        return (
            (1 if value.mode in ("1", "L", "LA", "F") or value.mode.startswith("I") else 3),
            value.height,
            value.width,
        )
    tensor = _as_tensor(value)
    found = to_channels_first(tensor) if tensor.dim() in (2, 3) else tensor
    if found.dim() != 3 or found.shape[0] not in _COLOURS:
        raise SourceError(
            f"the dataset's items have the shape {tuple(tensor.shape)}", "yield (C, H, W) images or (D,) vectors"
        )
    return (1 if found.shape[0] == 1 else 3), found.shape[1], found.shape[2]


def _range(looked: list[Any], name: str) -> tuple[float, float]:
    tensors = [_as_tensor(value) for value in looked if not isinstance(value, Image.Image)]
    if not tensors:
        return 0.0, 255.0
    low, high = min(float(each.min()) for each in tensors), max(float(each.max()) for each in tensors)
    found = infer_value_range(low, high, tensors[0].dtype)
    if found is None:
        raise SourceError(
            f"{name}: image values run from {low:g} to {high:g}",
            "let the dataset yield [0, 1], [-1, 1] or 8-bit images",
        )
    return found


def _all_labels(dataset: Any, n: int, first: int | None) -> Tensor | None:
    """Labels that are known without reading every item."""
    tensors = getattr(dataset, "tensors", None)
    known = (
        tensors[1]
        if first is not None and isinstance(tensors, tuple) and len(tensors) > 1
        else getattr(dataset, "targets", None)
    )
    if known is None or len(known) != n:
        return None
    try:
        found = torch.as_tensor(known)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found.to("cpu", torch.int64) if found.dim() == 1 and not found.is_floating_point() else None


def _item_labels(labels: list[int | None]) -> Tensor | None:
    return None if not labels or any(label is None for label in labels) else torch.tensor(labels, dtype=torch.int64)
