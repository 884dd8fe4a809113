"""What samples alone show: one output and few outputs are seen, also under noise; honest repeats are not collapse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import gandiag
from gandiag.interfaces import OutputSpec, SampleKind
from gandiag.metrics.degeneracy import Repeats, find_repeats

N, SIDE, LIMIT = 200, 32, 0.15
World = Callable[[Generator], np.ndarray]


def search(samples: np.ndarray, kind: SampleKind = "vector", *, is_network: bool = False) -> Repeats:
    output = OutputSpec(kind, samples.shape[1:], (0.0, 1.0) if kind == "image" else None)
    return find_repeats(torch.from_numpy(samples).float(), output, is_network=is_network)


def draw_blocks(rng: Generator, n: int) -> np.ndarray:
    """Pictures of 8 x 8 random gray blocks."""
    return rng.random((n, 1, 8, 8)).repeat(4, 2).repeat(4, 3)


def draw_smooth(rng: Generator, n: int, sigma: float, side: int = SIDE) -> np.ndarray:
    fields = np.stack([gaussian_filter(rng.normal(size=(side, side)), sigma) for _ in range(n)])[:, None]
    return fields / fields.std()


def noise(rng: Generator, deviation: float, *shape: int) -> np.ndarray:
    return deviation * rng.normal(size=(N, *shape))


def draw_categories(rng: Generator) -> np.ndarray:
    laws = ([0.7, 0.2, 0.1], [0.9, 0.1], [0.5, 0.3, 0.15, 0.05])
    return np.concatenate([np.eye(len(p))[rng.choice(len(p), N, p=p)] for p in laws], 1)


def draw_masks(rng: Generator, empty: float = 0.0) -> np.ndarray:
    masks = np.zeros((N, 1, SIDE, SIDE))
    for mask, (y, x) in zip(masks, rng.integers(0, SIDE - 7, (N, 2)), strict=True):
        mask[0, y : y + 7, x : x + 7] = rng.random() >= empty
    return masks


def draw_waves(rng: Generator) -> np.ndarray:
    return np.sin(np.arange(128) / 7 + 2 * np.pi * rng.random((N, 1)))


def draw_dots(rng: Generator) -> np.ndarray:
    y, x = rng.uniform(4, SIDE - 4, (2, N, 1, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)[:, None]


def draw_shifted(rng: Generator, reach: int) -> np.ndarray:
    picture = 0.5 + 0.2 * draw_smooth(rng, 1, 2, SIDE + 2 * reach)[0]
    corners = rng.integers(0, 2 * reach + 1, (N, 2))
    return np.stack([picture[:, y : y + SIDE, x : x + SIDE] for y, x in corners])


def draw_saturated(rng: Generator) -> np.ndarray:
    return torch.softmax(torch.from_numpy(100 * rng.normal(size=(N, 20))), 1).numpy()


HONEST: dict[str, tuple[SampleKind, World]] = {
    "heavy tail": ("vector", lambda rng: rng.lognormal(0, 3, (N, 1))),
    "die": ("vector", lambda rng: rng.integers(1, 7, (N, 1))),
    "standardized dice": ("vector", lambda rng: (rng.integers(1, 7, (N, 2)) - 3.5) / 1.7),
    "categories": ("vector", draw_categories),
    "rare category": ("vector", lambda rng: np.eye(3)[rng.choice(3, N, p=[0.98, 0.01, 0.01])]),
    "many zeros": ("vector", lambda rng: np.where(rng.random((N, 1)) < 0.7, 0, rng.lognormal(5, 1, (N, 3)))),
    "rare counts": ("vector", lambda rng: rng.poisson(0.05, (N, 20))),
    "years": ("vector", lambda rng: np.stack([rng.integers(2005, 2015, N), rng.random(N), rng.random(N)], 1)),
    "temperatures in K": ("vector", lambda rng: 300 + noise(rng, 3, 64)),
    "far from the origin": ("vector", lambda rng: 1000 + noise(rng, 1, 8)),
    "normal": ("vector", lambda rng: noise(rng, 1, 64)),
    "mixture": ("vector", lambda rng: 3 * rng.normal(size=(10, 32))[rng.integers(0, 10, N)] + noise(rng, 0.5, 32)),
    "waves": ("vector", draw_waves),
    "saturated softmax": ("vector", draw_saturated),
    "waves as series": ("series", draw_waves),
    "white series": ("series", lambda rng: noise(rng, 0.01, 128)),
    "walks": ("series", lambda rng: noise(rng, 1, 128).cumsum(1)),
    "low contrast": ("image", lambda rng: 0.5 + 0.01 * draw_smooth(rng, N, 3)),
    "low contrast, common outline": (
        "image",
        lambda rng: 0.4 + 0.1 * draw_smooth(rng, 1, 6) + 0.01 * draw_smooth(rng, N, 3),
    ),
    "low contrast, noise": (
        "image",
        lambda rng: 0.5 + 0.01 * draw_smooth(rng, N, 3) + noise(rng, 0.02, 1, SIDE, SIDE),
    ),
    "masks": ("image", draw_masks),
    "empty masks": ("image", partial(draw_masks, empty=0.95)),
    "sparse masks": ("image", lambda rng: rng.random((N, 1, SIDE, SIDE)) < 0.003),
    "dots": ("image", draw_dots),
    "random pixels": ("image", lambda rng: rng.random((N, 1, SIDE, SIDE))),
}

DEGENERATE: dict[str, tuple[int, SampleKind, World]] = {
    "point, noise": (1, "vector", lambda rng: rng.normal(size=64) + noise(rng, 0.01, 64)),
    "point, relative noise": (1, "vector", lambda rng: rng.normal(size=64) * (1 + noise(rng, 0.01, 64))),
    "ten points, noise": (
        10,
        "vector",
        lambda rng: rng.normal(size=(10, 64))[np.arange(N) % 10] + noise(rng, 0.01, 64),
    ),
    "pool": (5, "vector", lambda rng: rng.normal(size=(5, 64))[np.arange(N) % 5]),
    "pool of integers": (5, "vector", lambda rng: rng.integers(0, 255, (5, 64))[np.arange(N) % 5]),
    "always three": (1, "vector", lambda rng: np.full((N, 1), 3)),
    "softmax, noise": (1, "vector", lambda rng: rng.dirichlet(np.ones(20)) + noise(rng, 0.0005, 20)),
    "wave, noise": (1, "series", lambda rng: np.sin(np.arange(128) / 7) + noise(rng, 0.03, 128)),
    "picture, noise": (1, "image", lambda rng: np.clip(draw_blocks(rng, 1) + noise(rng, 0.03, 1, SIDE, SIDE), 0, 1)),
    "gray, noise": (1, "image", lambda rng: 0.5 + noise(rng, 0.03, 1, SIDE, SIDE)),
    "ten pictures, noise": (
        10,
        "image",
        lambda rng: np.clip(draw_blocks(rng, 10)[np.arange(N) % 10] + noise(rng, 0.03, 1, SIDE, SIDE), 0, 1),
    ),
    "three pictures": (3, "image", lambda rng: draw_blocks(rng, 3)[np.arange(N) % 3]),
    "picture, shifted": (1, "image", partial(draw_shifted, reach=2)),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_outputs_are_not_called_degenerate(name: str) -> None:
    kind, draw = HONEST[name]
    repeats = search(draw(np.random.default_rng(7)).astype(np.float32), kind)
    assert repeats.loss.low < LIMIT
    assert repeats.loss.high < LIMIT or repeats.reason


def test_two_equal_masks_among_empty_ones_change_nothing() -> None:
    masks = draw_masks(np.random.default_rng(7)).astype(np.float32)
    masks[20:] = 0
    masks[1] = masks[0]
    assert "empty image" in search(masks, "image").reason
    masks[:20] = masks[0]  # but two outputs are two, whatever the data are
    assert search(masks, "image").loss.low > 0.95


@pytest.mark.parametrize("name", DEGENERATE)
def test_what_any_eye_calls_few_outputs_is_counted(name: str) -> None:
    distinct, kind, draw = DEGENERATE[name]
    repeats = search(draw(np.random.default_rng(7)).astype(np.float32), kind)
    assert repeats.observed.distinct == distinct and not repeats.reason
    assert repeats.loss.low > 0.85


@pytest.mark.parametrize("n", [300, 1000, 2000])
def test_the_share_of_blanks_does_not_depend_on_n(n: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
    rows[: n // 10] = 0
    repeats = search(rows)
    assert repeats.loss.value == pytest.approx(0.1, abs=0.004)
    assert repeats.loss.low < 0.1 < repeats.loss.high
    assert repeats.observed.largest == pytest.approx(0.1)


class Faint(nn.Module):
    """A network that moves by 0.3 % of its output, whatever z is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 64, generator=torch.Generator().manual_seed(1)))

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(1 + 1e-3 * z @ self.weight)


def test_a_network_has_a_natural_origin_and_a_table_has_not() -> None:
    z = torch.randn(N, 32, generator=torch.Generator().manual_seed(0))
    outputs = Faint()(z).detach().numpy()
    assert search(outputs, is_network=True).loss.low > 0.95
    alone = search(outputs)
    assert alone.loss.low == 0 and "one point" in alone.reason


def test_the_texts_name_what_repeats() -> None:
    faint = gandiag.audit(Faint(), latent_dim=32, n=N, exhibits=False)
    assert faint.verdict == "collapsed" and faint.findings[0].rule == "GD101"
    assert "every latent gives the same output apart from differences" in faint.findings[0].text
    pictures = draw_blocks(np.random.default_rng(0), 3)[np.arange(N) % 3].astype(np.float32)
    few = gandiag.audit(pictures, n=N, exhibits=False)
    assert few.verdict == "collapsed" and few.findings[0].rule == "GD108" and few.kinds == ("partial",)
    assert "3 different outputs among 200; 34 % of the outputs are one" in few.findings[0].text
    rare = gandiag.audit(HONEST["rare category"][1](np.random.default_rng(0)).astype(np.float32), n=N, exhibits=False)
    assert rare.verdict == "inconclusive"
    assert "cannot be known without --real" in {entry.rule: entry.text for entry in rare.findings}["GD502"]


def test_small_real_images_are_not_called_noise() -> None:
    """8 × 8 pixels are too few to tell structure from noise: all digits are different."""
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().images[:300]).float()[:, None] / 16
    repeats = find_repeats(images, OutputSpec("image", (1, 8, 8), (0.0, 1.0)))
    assert repeats.loss.value == 0


def test_rows_of_a_table_are_compared_for_equality() -> None:
    rows = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    assert find_repeats(rows, OutputSpec("table", (5,))).loss.value == 0
    assert find_repeats(rows[:1].expand(300, 5), OutputSpec("table", (5,))).observed.repeated > 0.95
