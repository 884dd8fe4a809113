"""Wholes of right parts in a wrong arrangement open the gap; damage that patches show, and lost variety, do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from gandiag.interfaces import OutputSpec
from gandiag.metrics.structure_gap import Structure
from gandiag.record import MIN_STRUCTURE_GAP, Measurement
from gandiag.stats.subset import SampleSubset, SubsetSpec

N, SIDE = 150, 48
EYES, MOUTH = ((-0.3, -0.45), (-0.3, 0.45)), (0.5, 0.0)
Damage = Callable[[Generator], np.ndarray]


def draw_faces(
    rng: Generator, n: int = N, *, parts: tuple[tuple[float, float], ...] = (*EYES, MOUTH), big: bool = True
) -> np.ndarray:
    """Disc-like faces with dark parts at places relative to the face, on smooth backgrounds, (n, 3, 48, 48)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    images = rng.random((n, 3, 1, 1)) * 0.5 + rng.random((n, 3, 1, 1)) * 0.4 * y / SIDE
    images = images + 0.2 * gaussian_filter(rng.normal(size=(n, 1, SIDE, SIDE)), (0, 0, 2, 2))
    center = 24 + 2 * rng.normal(size=(2, n, 1, 1, 1))
    height = rng.uniform(12, 18 if big else 14, (n, 1, 1, 1))
    width = rng.uniform(9, 14 if big else 11, (n, 1, 1, 1))
    distance = ((y - center[0]) / height) ** 2 + ((x - center[1]) / width) ** 2
    inside = 1 / (1 + np.exp(np.minimum(12 * (distance - 1), 50)))
    color = np.array([0.5, 0.3, 0.2])[:, None, None] + 0.5 * rng.random((n, 3, 1, 1))
    images = images * (1 - inside) + color * inside
    for down, right in parts:
        place = ((y - center[0] - down * height) / 2.2) ** 2 + ((x - center[1] - right * width) / 3) ** 2
        images = images * (1 - np.exp(-place)) + 0.05 * np.exp(-place)
    return np.clip(images, 0, 1)


def swap_quarters(rng: Generator) -> np.ndarray:
    return np.roll(draw_faces(rng), (SIDE // 2, SIDE // 2), (2, 3))


def shear(rng: Generator) -> np.ndarray:
    images = torch.from_numpy(draw_faces(rng)).float()
    matrix = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.0, 0.0]]).expand(N, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).numpy()


WRONG_WHOLES: dict[str, Damage] = {
    "quarters swapped": swap_quarters,
    "doubled eyes": lambda rng: draw_faces(rng, parts=(*EYES, MOUTH, (0.15, -0.45), (0.15, 0.45))),
    "missing eye": lambda rng: draw_faces(rng, parts=(EYES[0], MOUTH)),
    "sheared": shear,
}
OTHER_DAMAGE: dict[str, Damage] = {
    "none": draw_faces,
    "blur": lambda rng: gaussian_filter(draw_faces(rng), (0, 0, 1.5, 1.5)),
    "noise": lambda rng: np.clip(draw_faces(rng) + rng.normal(0, 0.03, (N, 3, SIDE, SIDE)), 0, 1),
    "exposure": lambda rng: np.clip(1.3 * draw_faces(rng), 0, 1),
    "lost sizes": lambda rng: draw_faces(rng, big=False),
    "gray": lambda rng: draw_faces(rng).mean(1, keepdims=True).repeat(3, 1),
}


def measure(fake: np.ndarray, seed: int) -> tuple[dict[str, Measurement], int]:
    real = torch.from_numpy(draw_faces(np.random.default_rng(seed + 1), 2 * N)).float()
    metric = Structure(N, OutputSpec("image", (3, SIDE, SIDE), (0.0, 1.0)))
    results: dict[str, Any] = {
        "real": {SubsetSpec("samples", 2 * N): keep(real)},
        "fake": {SubsetSpec("samples", N): keep(torch.from_numpy(np.asarray(fake)).float())},
    }
    result = metric.measure(results)
    return dict(result.measurements), len(result.exhibits)


def keep(values: Tensor) -> SampleSubset:
    return SampleSubset(values, torch.arange(len(values)), None)


@pytest.mark.parametrize("name", WRONG_WHOLES)
def test_wrong_arrangement_opens_the_gap(name: str) -> None:
    found, n_exhibits = measure(WRONG_WHOLES[name](np.random.default_rng(100)), 100)
    assert found["structure_gap"].low >= MIN_STRUCTURE_GAP and n_exhibits == 1
    assert found["structure_gap"].floor < 0.1 and found["patch_distance"].value < found["unreal_wholes"].value


@pytest.mark.parametrize("name", OTHER_DAMAGE)
def test_damage_to_parts_and_lost_variety_do_not(name: str) -> None:
    found, n_exhibits = measure(OTHER_DAMAGE[name](np.random.default_rng(200)), 200)
    assert found["structure_gap"].low < MIN_STRUCTURE_GAP and n_exhibits == 0
    assert found["structure_gap"].value < 0.25


def test_few_different_images_are_not_measured() -> None:
    """A classifier would know each repeated image by heart."""
    found, _ = measure(draw_faces(np.random.default_rng(0), 15).repeat(10, 0), 0)
    assert found["structure_gap"].value is None and "15 different images" in found["structure_gap"].reason
