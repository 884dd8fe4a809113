"""Small classifier for 8 x 8 digits, trained by `fixtures/digits_reader.py` and shipped with its accuracy."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

from gandiag.trainer.toy_data import ModeAssignment

WEIGHTS_FILE = "digits_reader.safetensors"
BATCH_SIZE = 2_000


def make_digit_classifier() -> nn.Sequential:
    """Return an untrained classifier of images (B, 1, 8, 8) in [-1, 1], with logits (B, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(192, 10),
    )


@cache
def load_classifier() -> nn.Sequential:
    """Return the shipped classifier, in eval mode."""
    from safetensors.torch import load_file

    with torch.random.fork_rng(devices=[]):
        net = make_digit_classifier()
    with as_file(files("gandiag.data").joinpath(WEIGHTS_FILE)) as path:
        net.load_state_dict(load_file(path))
    return net.eval().requires_grad_(False)


@cache
def validation_accuracy() -> float:
    """Return the accuracy on held-out digits, mean of five folds. The shipped weights were trained on all five."""
    from safetensors import safe_open

    with as_file(files("gandiag.data").joinpath(WEIGHTS_FILE)) as path, safe_open(path, "pt") as file:
        return float(json.loads(file.metadata()["accuracy"])["value"])


def predict_digits(images: Tensor) -> Tensor:
    """Return the digits (B,) of images (B, 1, 8, 8)."""
    return torch.cat([load_classifier()(part).argmax(1) for part in torch.split(images, BATCH_SIZE)])


def assign_digit_modes(samples: Tensor) -> ModeAssignment:
    """Assign each image to its digit; every sample counts as high quality, as in the papers."""
    mode = predict_digits(samples)
    return ModeAssignment(mode, torch.ones_like(mode, dtype=torch.bool))


def assign_stacked_modes(samples: Tensor) -> ModeAssignment:
    """Assign images (N, 3, 8, 8) to modes 0 to 999, one digit per channel; every sample counts as high quality."""
    digits = predict_digits(samples.reshape(-1, 1, *samples.shape[2:])).reshape(-1, 3)
    mode = digits @ torch.tensor([100, 10, 1])
    return ModeAssignment(mode, torch.ones_like(mode, dtype=torch.bool))
