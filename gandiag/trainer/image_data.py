"""Image datasets in [-1, 1]: scikit-learn's digits, three of them stacked, folders, and torchvision's sets.

`stacked-digits` has 1,000 modes, needs no download, and its modes are assigned by the classifier in gandiag/data (see
`digit_classifier.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import OutputSpec
from gandiag.sampling.sources import open_samples
from gandiag.trainer.digit_classifier import assign_digit_modes, assign_stacked_modes
from gandiag.trainer.toy_data import Dataset

MAX_IMAGES = 50_000  # images of a folder that are kept in memory
DATA_ROOT_VARIABLE = "GANDIAG_DATA"  # environment variable: the folder that holds torchvision's files


def load_digits_dataset() -> Dataset:
    """1,797 handwritten digits, (1, 8, 8): ten modes.

    Source: scikit-learn's copy of the UCI test set of optical digits.
    """
    images = load_digit_images()[0]
    return Dataset("digits", _image_output(images), _draw_from(images), assign_digit_modes, 10)


def load_stacked_digits() -> Dataset:
    """Three digits as the channels of one image, (3, 8, 8): 1,000 modes, like stacked MNIST at a tenth of the size."""
    images = load_digit_images()[0]
    output = OutputSpec("image", (3, 8, 8), (-1.0, 1.0))
    return Dataset("stacked-digits", output, _draw_stacked(images), assign_stacked_modes, 1_000)


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """Return images (1797, 1, 8, 8) in [-1, 1] and labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(8).sub(1)  # 0 … 16 -> -1 … 1
    return images[:, None], torch.from_numpy(digits.target).long()


def load_dataset(path: str, output: OutputSpec | None = None) -> Dataset:
    """Load any samples that `gandiag audit --real` reads, converted to `output`.

    Raises SourceError with the name of a file that cannot be read.
    """
    source = open_samples(path, output=output)
    batches = [batch.samples for batch in source.iter_batches(256, output=output, limit=min(source.n, MAX_IMAGES))]
    samples = torch.cat(batches)
    loaded_output = OutputSpec(source.kind, tuple(samples.shape[1:]), None if output is None else output.range)
    return Dataset(Path(path).name, loaded_output, _draw_from(samples))


def load_mnist() -> Dataset:
    """60,000 digits, padded to (1, 32, 32)."""
    images = _load_torchvision("MNIST")
    return Dataset("mnist", _image_output(images), _draw_from(images))


def load_stacked_mnist() -> Dataset:
    """Three MNIST digits as channels, (3, 32, 32). Modes are not assigned: no classifier for MNIST is shipped."""
    images = _load_torchvision("MNIST")
    return Dataset("stacked-mnist", OutputSpec("image", (3, 32, 32), (-1.0, 1.0)), _draw_stacked(images))


def load_cifar10() -> Dataset:
    """50,000 photographs, (3, 32, 32)."""
    images = _load_torchvision("CIFAR10")
    return Dataset("cifar10", _image_output(images), _draw_from(images))


def _load_torchvision(name: str) -> Tensor:
    import torchvision

    root = os.environ.get(DATA_ROOT_VARIABLE, "data")
    try:
        dataset = getattr(torchvision.datasets, name)(root, train=True, download=False)
    except RuntimeError:
        hint = (
            f"download them with torchvision.datasets.{name}({root!r}, download=True), "
            f"or set {DATA_ROOT_VARIABLE} to the folder that holds them"
        )
        raise SourceError(f"the files of {name} are not in {root}", hint) from None
    images = torch.as_tensor(dataset.data).float().div(127.5).sub(1)  # (N, 28, 28) or (N, 32, 32, 3)
    if images.ndim == 4:
        return images.permute(0, 3, 1, 2)
    return torch.nn.functional.pad(images[:, None], (2, 2, 2, 2), value=-1.0)


def _image_output(images: Tensor) -> OutputSpec:
    return OutputSpec("image", tuple(images.shape[1:]), (-1.0, 1.0))


def _draw_from(samples: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: samples[torch.randint(len(samples), (n,), generator=rng)]


def _draw_stacked(images: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: images[torch.randint(len(images), (n, 3), generator=rng), 0]  # (n, 3, H, W)
