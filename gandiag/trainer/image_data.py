"""Image data: scikit-learn's digits, three of them stacked, folders, and torchvision's sets where their files are. All in [-1, 1].

`stacked-digits` has 1,000 modes, needs no download, and is read by the classifier in gandiag/data (see `reader.py`).
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
DATA_ROOT_VARIABLE = "GANDIAG_DATA"  # where torchvision's files are looked for


def load_digits_dataset() -> Dataset:
    """1,797 handwritten digits, (1, 8, 8): ten modes. Source: scikit-learn's copy of the UCI test set of optical digits."""
    images = load_digit_images()[0]
    return Dataset("digits", _output(images), _from(images), assign_digit_modes, 10)


def load_stacked_digits() -> Dataset:
    """Three digits as the channels of one image, (3, 8, 8): 1,000 modes, as stacked MNIST at a tenth of the size."""
    images = load_digit_images()[0]
    return Dataset(
        "stacked-digits", OutputSpec("image", (3, 8, 8), (-1.0, 1.0)), _stacked(images), assign_stacked_modes, 1_000
    )


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [-1, 1] and labels (1797,)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).float().div(8).sub(1)  # 0 … 16 -> -1 … 1
    return images[:, None], torch.from_numpy(found.target).long()


def load_dataset(path: str, output: OutputSpec | None = None) -> Dataset:
    """Any samples that `gandiag audit --real` reads, brought to `output`. SourceError names the file that is broken."""
    found = open_samples(path, output=output)
    batches = [batch.samples for batch in found.iter_batches(256, output=output, limit=min(found.n, MAX_IMAGES))]
    samples = torch.cat(batches)
    kind = OutputSpec(found.kind, tuple(samples.shape[1:]), None if output is None else output.range)
    return Dataset(Path(path).name, kind, _from(samples))


def load_mnist() -> Dataset:
    """60,000 digits, padded to (1, 32, 32)."""
    images = _torchvision("MNIST")
    return Dataset("mnist", _output(images), _from(images))


def load_stacked_mnist() -> Dataset:
    """Three of MNIST's digits as channels, (3, 32, 32). Modes are not read: no classifier for it is shipped."""
    images = _torchvision("MNIST")
    return Dataset("stacked-mnist", OutputSpec("image", (3, 32, 32), (-1.0, 1.0)), _stacked(images))


def load_cifar10() -> Dataset:
    """50,000 photographs, (3, 32, 32)."""
    images = _torchvision("CIFAR10")
    return Dataset("cifar10", _output(images), _from(images))


def _torchvision(name: str) -> Tensor:
    import torchvision

    root = os.environ.get(DATA_ROOT_VARIABLE, "data")
    try:
        found = getattr(torchvision.datasets, name)(root, train=True, download=False)
    except RuntimeError:
        hint = f"put torchvision's files there (torchvision.datasets.{name}({root!r}, download=True) fetches them), or set {DATA_ROOT_VARIABLE}"
        raise SourceError(f"the files of {name} are not in {root}", hint) from None
    images = torch.as_tensor(found.data).float().div(127.5).sub(1)  # (N, 28, 28) or (N, 32, 32, 3)
    return (
        images.permute(0, 3, 1, 2)
        if images.ndim == 4
        else torch.nn.functional.pad(images[:, None], (2, 2, 2, 2), value=-1.0)
    )


def _output(images: Tensor) -> OutputSpec:
    return OutputSpec("image", tuple(images.shape[1:]), (-1.0, 1.0))


def _from(samples: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: samples[torch.randint(len(samples), (n,), generator=rng)]


def _stacked(images: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: images[torch.randint(len(images), (n, 3), generator=rng), 0]  # (n, 3, H, W)
