"""Exhibits of samples: sample grids, latents at every scale, most similar pairs, clusters and missed modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.exhibits.images import MAX_IMAGES, image_grid, scatter_plot
from gandiag.record import Exhibit
from gandiag.stats.cluster_separation import nearest_rows
from gandiag.stats.clustering import Clustering
from gandiag.stats.subset import SampleSubset, SubsetSpec

ValueRange = tuple[float, float] | None

N_COLUMNS = 8
MAX_CLUSTERS = 8  # rows of the cluster grid, the largest clusters first
N_EXAMPLES = 4  # per cluster: real ones on the left, as many generated ones on the right
MAX_MISSING_MODES = 8
MAX_SCALES = 10  # rows of the scale grid


@dataclass(frozen=True, slots=True)
class SamplesWithFeatures:
    """Some samples and their features: `samples` (k, *shape), `features` (k, D), row by row."""

    samples: Tensor
    features: Tensor

    @classmethod
    def from_subsets(cls, samples: SampleSubset, features: SampleSubset) -> SamplesWithFeatures:
        """The samples that both subsets contain. Subsets are nested, so this is the smaller one."""
        if not len(features.indices):
            return cls(samples.values[:0], features.values[:0])
        position = torch.searchsorted(features.indices, samples.indices).clamp(max=len(features.indices) - 1)
        in_both = features.indices[position] == samples.indices
        return cls(samples.values[in_both], features.values[position[in_both]])


@dataclass(frozen=True, slots=True)
class ClusterExamples:
    """Real and generated samples to show clusters with. `value_range`: the declared range of images, or None."""

    real: SamplesWithFeatures
    fake: SamplesWithFeatures
    value_range: ValueRange = None

    @property
    def has_images(self) -> bool:
        return self.real.samples.ndim == 4

    @property
    def shown_range(self) -> tuple[float, float]:
        """The declared range of images, or that of the real ones."""
        return self.value_range or _finite_range(self.real.samples)

    @classmethod
    def from_results(
        cls, results: Any, view: str, n: int, n_samples: int, value_range: ValueRange = None
    ) -> ClusterExamples | None:
        """From subsets kept in the engine's passes, or None unless the samples are images or 2-D points."""
        samples = SubsetSpec("samples", n_samples)
        real_subsets, fake_subsets = results["real"], results["fake"]
        real = SamplesWithFeatures.from_subsets(real_subsets[samples], real_subsets[SubsetSpec(view, 2 * n)])
        fake = SamplesWithFeatures.from_subsets(fake_subsets[samples], fake_subsets[SubsetSpec(view, n)])
        is_drawable = real.samples.ndim == 4 or (real.samples.ndim == 2 and real.samples.shape[1] == 2)
        return cls(real, fake, value_range) if is_drawable and len(real.samples) and len(fake.samples) else None


def sample_grid(samples: Tensor, value_range: ValueRange = None) -> Exhibit:
    """The first 64 samples, (N, C, H, W), in the order of their indices."""
    count = min(MAX_IMAGES, len(samples))
    caption = f"{count} generated samples, latents 0 to {count - 1}"
    return image_grid("samples", caption, samples[:MAX_IMAGES], value_range)


def scale_grid(
    samples_by_scale: Mapping[float, Tensor], value_range: ValueRange = None, axis: str = "scale"
) -> Exhibit:
    """The same latents at every scale (or truncation psi, see `axis`): scale -> (N, C, H, W).

    One row per scale, from the smallest, at most eight latents each. Of more than ten scales, ten are shown, evenly
    chosen, the first, the last and 1 among them.
    """
    scales = _choose_scales(sorted(samples_by_scale))
    columns = min([N_COLUMNS, max(1, MAX_IMAGES // len(scales)), *(len(samples_by_scale[scale]) for scale in scales)])
    tiles = torch.cat([samples_by_scale[scale][:columns] for scale in scales])  # (S * columns, C, H, W)
    rows = ", ".join(f"{scale:g}" for scale in scales)
    caption = f"The same {columns} latents at every {axis}; rows: {rows}"
    return image_grid("scales", caption, tiles, value_range, columns)


def _choose_scales(scales: list[float]) -> list[float]:
    """At most MAX_SCALES of the scales, evenly spaced, always including the first, the last and 1."""
    last = len(scales) - 1
    if last < MAX_SCALES:
        return scales
    chosen = {round(i * last / (MAX_SCALES - 1)) for i in range(MAX_SCALES)}
    if 1.0 in scales and scales.index(1.0) not in chosen:
        unit_index = scales.index(1.0)
        chosen.remove(min(chosen - {0, last}, key=lambda i: abs(i - unit_index)))
        chosen.add(unit_index)
    return [scales[i] for i in sorted(chosen)]


def similar_pairs_grid(samples: Tensor, features: Tensor, value_range: ValueRange = None, count: int = 16) -> Exhibit:
    """The `count` most similar pairs of samples, side by side.

    `samples` (N, C, H, W), `features` (N, D) of the same rows. No sample appears in two pairs, so one repeated output
    cannot fill the grid.
    """
    distances, neighbors = nearest_rows(features, features, skip_self=True)
    used: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for i in torch.argsort(distances, stable=True).tolist():
        pair = (i, int(neighbors[i]))
        if len(pairs) < count and not used & set(pair):
            pairs.append(pair)
            used |= set(pair)
    tiles = samples[torch.tensor(pairs, dtype=torch.int64).reshape(-1)]
    caption = f"The {len(pairs)} most similar pairs of {len(samples)} generated samples, side by side"
    return image_grid("pairs", caption, tiles, value_range, group_size=2)


def cluster_exhibits(
    examples: ClusterExamples, clustering: Clustering, missing_modes: Sequence[int]
) -> tuple[Exhibit, ...]:
    """Examples of each cluster, and real samples of the missing modes; 2-D data as a scatter plot."""
    if examples.real.samples.ndim != 4:
        points = {"real": examples.real.samples, "fake": examples.fake.samples}
        return (scatter_plot("scatter", "Real and generated points", points),)
    value_range = examples.shown_range
    real_examples, fake_examples = (_examples_per_cluster(part, clustering) for part in (examples.real, examples.fake))
    exhibits = []
    if clustering.n_clusters > 1:
        exhibits.append(_cluster_grid(real_examples, fake_examples, clustering, value_range))
    missed = {mode: real_examples[mode] for mode in missing_modes if len(real_examples[mode])}
    if missed:
        exhibits.append(_missed_grid(dict(list(missed.items())[:MAX_MISSING_MODES]), value_range))
    return tuple(exhibits)


def _finite_range(samples: Tensor) -> tuple[float, float]:
    finite = samples[torch.isfinite(samples)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _examples_per_cluster(part: SamplesWithFeatures, clustering: Clustering) -> list[Tensor]:
    """For each cluster, samples near the reference, those nearest to their mean first: (k, C, H, W)."""
    assignment = clustering.assign(part.features)
    examples = []
    for cluster in range(clustering.n_clusters):
        members = (assignment.label == cluster) & assignment.nearest_is_close
        features, samples = part.features[members], part.samples[members]
        if len(features):
            samples = samples[(features - features.mean(0)).norm(dim=1).argsort(stable=True)[:N_COLUMNS]]
        examples.append(samples)
    return examples


def pad_row(images: Tensor, count: int) -> Tensor:
    """`count` tiles; NaN, drawn as background, where there are too few."""
    padded = torch.full((count, *images.shape[1:]), float("nan"))
    padded[: min(count, len(images))] = images[:count]
    return padded


def _cluster_grid(real: list[Tensor], fake: list[Tensor], clustering: Clustering, value_range: ValueRange) -> Exhibit:
    n_clusters = clustering.n_clusters
    rows = min(MAX_CLUSTERS, n_clusters)
    sizes = torch.bincount(clustering.labels, minlength=n_clusters).double()
    shares = sizes / max(1, len(clustering.labels))
    tiles = torch.cat([pad_row(part[row], N_EXAMPLES) for row in range(rows) for part in (real, fake)])
    listed = ", ".join(f"{float(shares[row]):.0%}" for row in range(rows))
    omitted = "" if rows == n_clusters else f" (the largest {rows} of {n_clusters})"
    caption = (
        f"Clusters by share of the real data: {listed}{omitted}; one row each, real on the left, generated on the right"
    )
    return image_grid("clusters", caption, tiles, value_range, group_size=N_EXAMPLES)


def _missed_grid(examples: Mapping[int, Tensor], value_range: ValueRange) -> Exhibit:
    tiles = torch.cat([pad_row(images, N_COLUMNS) for images in examples.values()])
    modes = ", ".join(str(mode) for mode in examples)
    caption = f"Real samples of modes that the generator misses; one row each: {modes}"
    return image_grid("missed", caption, tiles, value_range)
