"""Sheets hold what they say, pixel by pixel, and never more than the record allows."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gandiag.exhibits.images import (
    GROUP_GAP,
    MAX_POINTS,
    TILE_GAP,
    TILE_SIZE,
    histogram_plot,
    image_grid,
    limit_total_size,
    line_plot,
    scatter_plot,
)
from gandiag.exhibits.samples import (
    ClusterExamples,
    SamplesWithFeatures,
    cluster_exhibits,
    sample_grid,
    scale_grid,
    similar_pairs_grid,
)
from gandiag.record import Exhibit, to_json_value
from gandiag.stats.clustering import find_clusters
from gandiag.stats.subset import SampleSubset


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def page(exhibit: Exhibit) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(exhibit.data["png"]))) as opened:
        return np.asarray(opened)


def tile(exhibit: Exhibit, row: int, column: int) -> np.ndarray:
    """One tile of a sheet without groups."""
    step = exhibit.data["tile"] + TILE_GAP
    return page(exhibit)[TILE_GAP + row * step : (row + 1) * step, TILE_GAP + column * step : (column + 1) * step]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_small_images_are_enlarged_exactly(channels: int, side: int) -> None:
    images = noise(10, channels, side, side)
    shown = image_grid("x", "", images * 2 - 1, (-1.0, 1.0))
    factor = TILE_SIZE // side
    assert (shown.data["columns"], shown.data["rows"], shown.data["tile"]) == (8, 2, side * factor)
    third = tile(shown, 1, 1)[::factor, ::factor]
    expected = (images[9] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert (
        np.abs(third.reshape(expected.shape).astype(int) - expected).max() <= 1
    )  # -1 … 1 and back in float32 may round the other way


def test_large_images_are_averaged_down() -> None:
    shown = image_grid("x", "", noise(4, 3, 16, 16).repeat_interleave(16, 2).repeat_interleave(16, 3), (0.0, 1.0))
    assert shown.data["tile"] == TILE_SIZE and shown.data["columns"] == 4
    assert (
        np.abs(tile(shown, 0, 0)[::4, ::4].astype(float) / 255 - noise(4, 3, 16, 16)[0].permute(1, 2, 0).numpy()).max()
        < 0.01
    )


def test_grey_stays_grey_and_odd_channels_are_drawn() -> None:
    assert page(image_grid("x", "", noise(3, 1, 8, 8), (0.0, 1.0))).ndim == 2
    assert page(image_grid("x", "", noise(3, 2, 8, 8), (0.0, 1.0))).ndim == 2
    assert page(image_grid("x", "", noise(3, 4, 8, 8), (0.0, 1.0))).shape[2] == 3


def test_values_outside_the_range_are_clipped_and_none_is_paper() -> None:
    images = torch.stack([torch.full((1, 64, 64), value) for value in (-9.0, 0.0, 9.0, float("nan"))])
    shown = image_grid("x", "", images, (-1.0, 1.0))
    assert [int(tile(shown, 0, column)[5, 5]) for column in range(4)] == [0, 128, 255, 255]


def test_a_sheet_never_has_more_than_64_tiles_nor_fails_on_flat_or_narrow_ones() -> None:
    shown = image_grid("x", "", noise(200, 1, 4, 4), None)
    assert shown.data["columns"] * shown.data["rows"] == 64
    assert image_grid("x", "", torch.zeros(3, 1, 4, 4), None).data["columns"] == 3
    assert image_grid("x", "", noise(2, 1, 1, 300), (0.0, 1.0)).data["tile"] == TILE_SIZE
    assert image_grid("x", "", noise(0, 3, 8, 8), (0.0, 1.0)).data["rows"] == 1


def test_groups_stand_apart() -> None:
    wide, plain_ = (page(image_grid("x", "", noise(8, 1, 64, 64), (0.0, 1.0), group_size=group)) for group in (2, 0))
    assert wide.shape[1] - plain_.shape[1] == 3 * GROUP_GAP


def test_capped_keeps_within_the_limit_and_in_order() -> None:
    sheets = [image_grid(f"s{at}", "", noise(64, 3, 64, 64, seed=at), (0.0, 1.0)) for at in range(5)]
    line = line_plot("line", "", [0.0, 1.0], {"y": [1.0, 2.0]})
    kept = limit_total_size([*sheets, line])
    assert sum(len(json.dumps(to_json_value(exhibit))) for exhibit in kept) <= 2_000_000
    assert [exhibit.id for exhibit in kept] == ["s0", "s1", "s2", "s3", "s4", "line"]
    assert page(kept[0]).shape[0] == page(sheets[0]).shape[0] // 2 and kept[0].data["tile"] == 32
    assert limit_total_size([line]) == (line,)
    assert [exhibit.id for exhibit in limit_total_size([*sheets, line], max_chars=5_000)] == ["line"]


def test_curves_and_clouds_hold_at_most_2000_points() -> None:
    curve = line_plot("c", "", list(range(9_001)), {"y": [float(at) for at in range(9_001)]})
    assert len(curve.data["x"]) <= MAX_POINTS and len(curve.data["lines"]["y"]) == len(curve.data["x"])
    cloud = scatter_plot("scatter", "", {"real": noise(5_000, 2), "fake": torch.full((5_000, 2), float("nan"))})
    assert len(cloud.data["lines"]["real"]["x"]) == MAX_POINTS // 2 and cloud.data["lines"]["fake"]["x"] == []


def test_histogram_shares_sum_to_one() -> None:
    shown = histogram_plot("h", "", {"real": noise(100), "fake": noise(50) + 0.5})
    assert len(shown.data["edges"]) == 41 and all(
        sum(counts) == pytest.approx(1.0) for counts in shown.data["counts"].values()
    )
    assert histogram_plot("h", "", {"real": torch.zeros(3)}).data["edges"][0] == 0.0
    json.dumps(to_json_value(histogram_plot("h", "", {"real": torch.zeros(0)})), allow_nan=False)


def test_scale_rows_are_sorted_and_show_scale_one() -> None:
    scales = (4.0, 0.02, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
    shown = scale_grid({scale: torch.full((9, 1, 64, 64), scale / 4) for scale in scales}, (0.0, 1.0))
    named = [float(text) for text in shown.caption.split("rows: ")[1].split(", ")]
    assert named == sorted(named) and len(named) == 10 and {0.02, 1.0, 4.0} <= set(named)
    assert [int(tile(shown, row, 0)[0, 0]) for row in range(10)] == [round(scale / 4 * 255) for scale in named]


def test_similar_pairs_finds_the_planted_pair_first_and_repeats_nobody() -> None:
    images, features = noise(60, 1, 64, 64), noise(60, 5) * 10
    images[41], features[41] = images[7], features[7] + 1e-4
    shown = similar_pairs_grid(images, features, (0.0, 1.0), count=4)
    assert shown.data["columns"] * shown.data["rows"] == 8
    step = TILE_SIZE + TILE_GAP
    first, second = (
        page(shown)[TILE_GAP : TILE_GAP + TILE_SIZE, TILE_GAP + at * step : TILE_GAP + at * step + TILE_SIZE]
        for at in range(2)
    )
    assert (first == second).all()
    same = similar_pairs_grid(noise(1, 1, 8, 8).expand(30, 1, 8, 8), torch.zeros(30, 3), (0.0, 1.0))
    assert same.data["columns"] * same.data["rows"] <= 30


def test_shown_pairs_samples_with_their_own_features() -> None:
    samples = SampleSubset(torch.tensor([[3.0], [8.0], [11.0]]), torch.tensor([3, 8, 11]), None)
    features = SampleSubset(torch.tensor([[30.0], [50.0], [80.0]]), torch.tensor([3, 5, 8]), None)
    shown = SamplesWithFeatures.from_subsets(samples, features)
    assert shown.samples.tolist() == [[3.0], [8.0]] and shown.features.tolist() == [[30.0], [80.0]]


def test_cluster_sheet_has_real_left_and_generated_right() -> None:
    mode = torch.arange(200) % 2
    features = mode[:, None] * 20.0 + torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    real = SamplesWithFeatures(torch.full((200, 1, 64, 64), 0.25), features)
    fake = SamplesWithFeatures(torch.full((100, 1, 64, 64), 0.75), features[mode == 0])
    clusters = find_clusters(features, seed=0)
    absent = int(clusters.labels[1])
    sheets = {
        shown.id: shown for shown in cluster_exhibits(ClusterExamples(real, fake, (0.0, 1.0)), clusters, [absent])
    }
    assert set(sheets) == {"clusters", "missed"}
    picture, step = page(sheets["clusters"]), TILE_SIZE + TILE_GAP
    shades = [
        [int(picture[row * step + 20, column * step + 20 + (GROUP_GAP if column > 3 else 0)]) for column in (0, 4)]
        for row in range(2)
    ]
    assert shades[absent] == [64, 255] and shades[1 - absent] == [64, 191]  # paper where the generator has nothing
    assert (tile(sheets["missed"], 0, 0) == 64).all()


def test_grid_shows_the_first_samples_in_order() -> None:
    images = (torch.arange(100) / 100)[:, None, None, None].expand(100, 1, 64, 64)
    shown = sample_grid(images, (0.0, 1.0))
    assert int(tile(shown, 7, 7)[0, 0]) == round(0.63 * 255) and "64 generated" in shown.caption
