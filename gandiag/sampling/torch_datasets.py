"""Reads map-style datasets: items are tensors, arrays or PIL images, alone, as (x, y) or in a dict."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Assumption, OutputSpec, SampleKind
from gandiag.sampling.image_folders import pil_to_tensor
from gandiag.sampling.latents import derive_seed
from gandiag.sampling.module_state import isolated_rng, tensor_to_bytes
from gandiag.sampling.preprocessing import infer_value_range, match_channels
from gandiag.sampling.stream_names import DATASET_ITEM

_RANGE_ITEMS = 256  # items that determine the range of float images
_IMAGE_KEYS = ("image", "img", "pixel_values", "x")
_CHANNEL_COUNTS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class DatasetReader:
    """Items by index. Random augmentation is seeded by the index, so an item is the same every time."""

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

    def match_output(self, output: OutputSpec) -> DatasetReader:
        return self

    def read(self, indices: Tensor) -> tuple[Tensor | list[Tensor], Tensor | None]:
        items = [read_item(self.dataset, index) for index in indices.tolist()]
        labels = self.labels[indices] if self.labels is not None else _item_labels([label for _, label in items])
        if self.kind != "image":
            return torch.stack([_as_tensor(value).float().reshape(-1) for value, _ in items]), labels
        return [self._read_image(value) for value, _ in items], labels

    def fingerprint(self, indices: Tensor) -> str:
        """A hash of the length and the contents of `indices`."""
        digest = hashlib.blake2b(f"{self.n}|{self.kind}|{self.shape}".encode(), digest_size=16)
        for index in indices.tolist():
            value, label = read_item(self.dataset, index)
            digest.update(tensor_to_bytes(_as_tensor(value)) + str(label).encode())
        return digest.hexdigest()

    def _read_image(self, value: Any) -> Tensor:
        if isinstance(value, Image.Image):
            return pil_to_tensor(value, self.channels)
        image = match_channels(to_channels_first(_as_tensor(value))[None], self.channels)[0]
        if image.dtype == torch.uint8 and self.range == (0.0, 255.0):
            return image
        low, high = self.range
        unit = image.float().sub(low).div(high - low)
        if not (float(unit.min()) >= -0.01 and float(unit.max()) <= 1.01):
            raise SourceError(
                f"{self.name}: some values are outside the range {low:g} to {high:g} of the others",
                "scale the images to [0, 1]",
            )
        return unit.clamp(0, 1)


def open_dataset(dataset: Any, name: str) -> DatasetReader:
    """Determine kind, shape, range and labels of a map-style dataset from up to 256 of its items."""
    try:
        n = len(dataset)
    except TypeError:
        raise SourceError(f"{name} has no length", "pass a map-style dataset, or save the samples as .npy") from None
    if not n:
        raise SourceError(f"{name} contains no samples", "pass at least 2")
    value, label = read_item(dataset, 0)
    names = getattr(dataset, "classes", None)
    class_names = tuple(map(str, names)) if isinstance(names, (list, tuple)) else None
    labels = _read_all_labels(dataset, n, label)
    if not isinstance(value, Image.Image) and _as_tensor(value).dim() < 2:
        return DatasetReader(dataset, name, "vector", (_as_tensor(value).numel(),), 0, (0.0, 1.0), labels, class_names)
    values = [read_item(dataset, index)[0] for index in range(0, n, max(1, -(-n // _RANGE_ITEMS)))]
    shapes = {_image_shape(value) for value in values}
    channels = max(shape[0] for shape in shapes)
    sizes = {shape[1:] for shape in shapes}
    shape = (channels, *next(iter(sizes))) if len(sizes) == 1 else None
    value_range = _find_value_range(values, name)
    note = Assumption("range_of_the_samples", value_range, "values")
    return DatasetReader(dataset, name, "image", shape, channels, value_range, labels, class_names, (note,))


def read_item(dataset: Any, index: int) -> tuple[Any, int | None]:
    """One item as (value, label or None). Global random numbers are seeded by the index."""
    with isolated_rng(derive_seed(index, DATASET_ITEM)):
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
        item = next((item[key] for key in _IMAGE_KEYS if key in item), item)
    elif isinstance(item, list) and all(isinstance(value, (int, float)) for value in item):
        item = np.asarray(item, dtype=np.float32)  # a row of numbers, not a pair of sample and label
    elif isinstance(item, (tuple, list)):
        label = item[1] if len(item) > 1 else None
        item = item[0]
    return item, _as_integer(label)


def to_channels_first(image: Tensor) -> Tensor:
    """(h, w), (h, w, C) or (C, h, w) -> (C, h, w); tensors are channels-first where both are possible."""
    if image.dim() == 2:
        return image[None]
    return image if image.shape[0] in _CHANNEL_COUNTS else image.permute(2, 0, 1)


def _as_integer(label: Any) -> int | None:
    """A class label as an int; None for anything else, such as floats and vectors."""
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
    """(1 or 3 channels, height, width) of an item."""
    if isinstance(value, Image.Image):
        is_gray = value.mode in ("1", "L", "LA", "F") or value.mode.startswith("I")
        return 1 if is_gray else 3, value.height, value.width
    tensor = _as_tensor(value)
    image = to_channels_first(tensor) if tensor.dim() in (2, 3) else tensor
    if image.dim() != 3 or image.shape[0] not in _CHANNEL_COUNTS:
        raise SourceError(
            f"the dataset's items have shape {tuple(tensor.shape)}", "yield (C, H, W) images or (D,) vectors"
        )
    return (1 if image.shape[0] == 1 else 3), image.shape[1], image.shape[2]


def _find_value_range(values: list[Any], name: str) -> tuple[float, float]:
    tensors = [_as_tensor(value) for value in values if not isinstance(value, Image.Image)]
    if not tensors:
        return 0.0, 255.0
    low, high = min(float(tensor.min()) for tensor in tensors), max(float(tensor.max()) for tensor in tensors)
    value_range = infer_value_range(low, high, tensors[0].dtype)
    if value_range is None:
        raise SourceError(
            f"{name}: image values run from {low:g} to {high:g}",
            "let the dataset yield [0, 1], [-1, 1] or 8-bit images",
        )
    return value_range


def _read_all_labels(dataset: Any, n: int, first_label: int | None) -> Tensor | None:
    """All labels, where they are known without reading every item: a TensorDataset's second tensor, or `targets`."""
    tensors = getattr(dataset, "tensors", None)
    has_label_tensor = first_label is not None and isinstance(tensors, tuple) and len(tensors) > 1
    stored = tensors[1] if has_label_tensor and tensors is not None else getattr(dataset, "targets", None)
    if stored is None or len(stored) != n:
        return None
    try:
        labels = torch.as_tensor(stored)
    except (TypeError, ValueError, RuntimeError):
        return None
    return labels.to("cpu", torch.int64) if labels.dim() == 1 and not labels.is_floating_point() else None


def _item_labels(labels: list[int | None]) -> Tensor | None:
    return None if not labels or any(label is None for label in labels) else torch.tensor(labels, dtype=torch.int64)
