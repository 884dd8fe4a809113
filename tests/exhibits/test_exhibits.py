"""Exhibits show what their captions state, pixel by pixel, within the size limits of a record."""

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
    with Image.open(io.BytesIO(base64.b64decode(exhibit.data["png"]))) as image:
        return np.asarray(image)


def tile(exhibit: Exhibit, row: int, column: int) -> np.ndarray:
    """One tile of a grid without groups."""
    step = exhibit.data["tile"] + TILE_GAP
    return page(exhibit)[TILE_GAP + row * step : (row + 1) * step, TILE_GAP + column * step : (column + 1) * step]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_small_images_are_enlarged_exactly(channels: int, size: int) -> None:
    images = noise(10, channels, size, size)
    exhibit = image_grid("x", "", images * 2 - 1, (-1.0, 1.0))
    factor = TILE_SIZE // size
    assert (exhibit.data["columns"], exhibit.data["rows"], exhibit.data["tile"]) == (8, 2, size * factor)
    third = tile(exhibit, 1, 1)[::factor, ::factor]
    expected = (images[9] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert (
        np.abs(third.reshape(expected.shape).astype(int) - expected).max() <= 1
    )  # -1 … 1 and back in float32 may change the rounding


def test_large_images_are_averaged_down() -> None:
    exhibit = image_grid("x", "", noise(4, 3, 16, 16).repeat_interleave(16, 2).repeat_interleave(16, 3), (0.0, 1.0))
    assert exhibit.data["tile"] == TILE_SIZE and exhibit.data["columns"] == 4
    assert (
        np.abs(
            tile(exhibit, 0, 0)[::4, ::4].astype(float) / 255 - noise(4, 3, 16, 16)[0].permute(1, 2, 0).numpy()
        ).max()
        < 0.01
    )


def test_gray_stays_gray_and_other_channel_counts_are_drawn() -> None:
    assert page(image_grid("x", "", noise(3, 1, 8, 8), (0.0, 1.0))).ndim == 2
    assert page(image_grid("x", "", noise(3, 2, 8, 8), (0.0, 1.0))).ndim == 2
    assert page(image_grid("x", "", noise(3, 4, 8, 8), (0.0, 1.0))).shape[2] == 3


def test_values_outside_the_range_are_clipped_and_nan_is_background() -> None:
    images = torch.stack([torch.full((1, 64, 64), value) for value in (-9.0, 0.0, 9.0, float("nan"))])
    exhibit = image_grid("x", "", images, (-1.0, 1.0))
    assert [int(tile(exhibit, 0, column)[5, 5]) for column in range(4)] == [0, 128, 255, 255]


def test_grids_have_at_most_64_tiles_and_accept_flat_or_narrow_images() -> None:
    exhibit = image_grid("x", "", noise(200, 1, 4, 4), None)
    assert exhibit.data["columns"] * exhibit.data["rows"] == 64
    assert image_grid("x", "", torch.zeros(3, 1, 4, 4), None).data["columns"] == 3
    assert image_grid("x", "", noise(2, 1, 1, 300), (0.0, 1.0)).data["tile"] == TILE_SIZE
    assert image_grid("x", "", noise(0, 3, 8, 8), (0.0, 1.0)).data["rows"] == 1


def test_groups_are_separated() -> None:
    wide, plain_ = (page(image_grid("x", "", noise(8, 1, 64, 64), (0.0, 1.0), group_size=group)) for group in (2, 0))
    assert wide.shape[1] - plain_.shape[1] == 3 * GROUP_GAP


def test_total_size_is_limited_and_order_kept() -> None:
    grids = [image_grid(f"s{i}", "", noise(64, 3, 64, 64, seed=i), (0.0, 1.0)) for i in range(5)]
    line = line_plot("line", "", [0.0, 1.0], {"y": [1.0, 2.0]})
    kept = limit_total_size([*grids, line])
    assert sum(len(json.dumps(to_json_value(exhibit))) for exhibit in kept) <= 2_000_000
    assert [exhibit.id for exhibit in kept] == ["s0", "s1", "s2", "s3", "s4", "line"]
    assert page(kept[0]).shape[0] == page(grids[0]).shape[0] // 2 and kept[0].data["tile"] == 32
    assert limit_total_size([line]) == (line,)
    assert [exhibit.id for exhibit in limit_total_size([*grids, line], max_chars=5_000)] == ["line"]


def test_curves_and_point_clouds_have_at_most_2000_points() -> None:
    curve = line_plot("c", "", list(range(9_001)), {"y": [float(i) for i in range(9_001)]})
    assert len(curve.data["x"]) <= MAX_POINTS and len(curve.data["lines"]["y"]) == len(curve.data["x"])
    cloud = scatter_plot("scatter", "", {"real": noise(5_000, 2), "fake": torch.full((5_000, 2), float("nan"))})
    assert len(cloud.data["lines"]["real"]["x"]) == MAX_POINTS // 2 and cloud.data["lines"]["fake"]["x"] == []


def test_histogram_shares_sum_to_one() -> None:
    exhibit = histogram_plot("h", "", {"real": noise(100), "fake": noise(50) + 0.5})
    assert len(exhibit.data["edges"]) == 41 and all(
        sum(counts) == pytest.approx(1.0) for counts in exhibit.data["counts"].values()
    )
    assert histogram_plot("h", "", {"real": torch.zeros(3)}).data["edges"][0] == 0.0
    json.dumps(to_json_value(histogram_plot("h", "", {"real": torch.zeros(0)})), allow_nan=False)


def test_scale_rows_are_sorted_and_show_scale_one() -> None:
    scales = (4.0, 0.02, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
    exhibit = scale_grid({scale: torch.full((9, 1, 64, 64), scale / 4) for scale in scales}, (0.0, 1.0))
    listed = [float(text) for text in exhibit.caption.split("rows: ")[1].split(", ")]
    assert listed == sorted(listed) and len(listed) == 10 and {0.02, 1.0, 4.0} <= set(listed)
    assert [int(tile(exhibit, row, 0)[0, 0]) for row in range(10)] == [round(scale / 4 * 255) for scale in listed]


def test_similar_pairs_show_the_planted_pair_first_and_repeat_no_sample() -> None:
    images, features = noise(60, 1, 64, 64), noise(60, 5) * 10
    images[41], features[41] = images[7], features[7] + 1e-4
    exhibit = similar_pairs_grid(images, features, (0.0, 1.0), count=4)
    assert exhibit.data["columns"] * exhibit.data["rows"] == 8
    step = TILE_SIZE + TILE_GAP
    first, second = (
        page(exhibit)[TILE_GAP : TILE_GAP + TILE_SIZE, TILE_GAP + i * step : TILE_GAP + i * step + TILE_SIZE]
        for i in range(2)
    )
    assert (first == second).all()
    same = similar_pairs_grid(noise(1, 1, 8, 8).expand(30, 1, 8, 8), torch.zeros(30, 3), (0.0, 1.0))
    assert same.data["columns"] * same.data["rows"] <= 30


def test_samples_are_paired_with_their_own_features() -> None:
    samples = SampleSubset(torch.tensor([[3.0], [8.0], [11.0]]), torch.tensor([3, 8, 11]), None)
    features = SampleSubset(torch.tensor([[30.0], [50.0], [80.0]]), torch.tensor([3, 5, 8]), None)
    paired = SamplesWithFeatures.from_subsets(samples, features)
    assert paired.samples.tolist() == [[3.0], [8.0]] and paired.features.tolist() == [[30.0], [80.0]]


def test_cluster_grid_has_real_left_and_generated_right() -> None:
    mode = torch.arange(200) % 2
    features = mode[:, None] * 20.0 + torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    real = SamplesWithFeatures(torch.full((200, 1, 64, 64), 0.25), features)
    fake = SamplesWithFeatures(torch.full((100, 1, 64, 64), 0.75), features[mode == 0])
    clusters = find_clusters(features, seed=0)
    absent = int(clusters.labels[1])
    grids = {
        exhibit.id: exhibit for exhibit in cluster_exhibits(ClusterExamples(real, fake, (0.0, 1.0)), clusters, [absent])
    }
    assert set(grids) == {"clusters", "missed"}
    pixels, step = page(grids["clusters"]), TILE_SIZE + TILE_GAP
    shades = [
        [int(pixels[row * step + 20, column * step + 20 + (GROUP_GAP if column > 3 else 0)]) for column in (0, 4)]
        for row in range(2)
    ]
    assert shades[absent] == [64, 255] and shades[1 - absent] == [64, 191]  # background where the generator has nothing
    assert (tile(grids["missed"], 0, 0) == 64).all()


def test_grid_shows_the_first_samples_in_order() -> None:
    images = (torch.arange(100) / 100)[:, None, None, None].expand(100, 1, 64, 64)
    exhibit = sample_grid(images, (0.0, 1.0))
    assert int(tile(exhibit, 7, 7)[0, 0]) == round(0.63 * 255) and "64 generated" in exhibit.caption
