"""What to look at: samples, the same latents at every scale, the most similar pairs, clusters and what is missing from them."""

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
MAX_CLUSTERS = 8  # rows of the cluster sheet, the largest clusters first
N_EXAMPLES = 4  # a side: real on the left, generated on the right
MAX_MISSING_MODES = 8


@dataclass(frozen=True, slots=True)
class SamplesWithFeatures:
    """Some samples as they are, and the features of the same ones: `samples` (k, *shape), `features` (k, D), row by row."""

    samples: Tensor
    features: Tensor

    @classmethod
    def from_subsets(cls, samples: SampleSubset, features: SampleSubset) -> SamplesWithFeatures:
        """The samples that both keep. Kept subsets are nested, so this is the smaller one."""
        at = torch.searchsorted(features.indices, samples.indices).clamp(max=max(0, len(features.indices) - 1))
        both = (
            features.indices[at] == samples.indices
            if len(features.indices)
            else torch.zeros(len(samples.indices), dtype=torch.bool)
        )
        return cls(samples.values[both], features.values[at[both]])


@dataclass(frozen=True, slots=True)
class ClusterExamples:
    """Real and generated samples to take exemplars from. `span`: the declared range of images, or None."""

    real: SamplesWithFeatures
    fake: SamplesWithFeatures
    value_range: ValueRange = None

    @classmethod
    def from_results(
        cls, results: Any, view: str, n: int, n_samples: int, value_range: ValueRange = None
    ) -> ClusterExamples | None:
        """From kept samples of the engine's passes, or None where they are neither images nor 2-D points."""
        real = SamplesWithFeatures.from_subsets(
            results["real"][SubsetSpec("samples", n_samples)], results["real"][SubsetSpec(view, 2 * n)]
        )
        fake = SamplesWithFeatures.from_subsets(
            results["fake"][SubsetSpec("samples", n_samples)], results["fake"][SubsetSpec(view, n)]
        )
        drawable = real.samples.ndim == 4 or (real.samples.ndim == 2 and real.samples.shape[1] == 2)
        return cls(real, fake, value_range) if drawable and len(real.samples) and len(fake.samples) else None


def sample_grid(samples: Tensor, value_range: ValueRange = None) -> Exhibit:
    """The first 64 samples, (N, C, H, W), in the order of their indices."""
    count = min(64, len(samples))
    return image_grid("samples", f"{count} generated samples, latents 0 to {count - 1}", samples[:64], value_range)


def scale_grid(
    samples_by_scale: Mapping[float, Tensor], value_range: ValueRange = None, axis: str = "scale"
) -> Exhibit:
    """The same latents at every scale (or psi, as `axis` says): scale -> (N, C, H, W); one row a scale, from the smallest, at most eight latents each.

    More than ten scales: ten of them, evenly chosen, the first, the last and 1 among them.
    """
    scales = _chosen(sorted(samples_by_scale))
    columns = min([N_COLUMNS, max(1, MAX_IMAGES // len(scales)), *(len(samples_by_scale[scale]) for scale in scales)])
    tiles = torch.cat([samples_by_scale[scale][:columns] for scale in scales])  # (S * 8, C, H, W)
    named = ", ".join(f"{scale:g}" for scale in scales)
    return image_grid(
        "scales", f"The same {columns} latents at every {axis}; rows: {named}", tiles, value_range, columns
    )


def _chosen(scales: list[float], most: int = 10) -> list[float]:
    if len(scales) <= most:
        return scales
    chosen = {round(at * (len(scales) - 1) / (most - 1)) for at in range(most)}
    one = next((at for at, scale in enumerate(scales) if scale == 1.0), None)
    if one is not None and one not in chosen:
        chosen.remove(min(chosen - {0, len(scales) - 1}, key=lambda at: abs(at - one)))
        chosen.add(one)
    return [scales[at] for at in sorted(chosen)]


def similar_pairs_grid(samples: Tensor, features: Tensor, value_range: ValueRange = None, count: int = 16) -> Exhibit:
    """The `count` most similar pairs from different latents, side by side. `samples` (N, C, H, W), `features` (N, D) of the same rows.

    No sample is shown in two pairs, so that one repeated output does not fill the sheet.
    """
    distance, other = nearest_rows(features, features, skip_self=True)
    taken: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for at in torch.argsort(distance, stable=True).tolist():
        pair = (at, int(other[at]))
        if len(pairs) < count and not taken & set(pair):
            pairs.append(pair)
            taken |= set(pair)
    chosen = samples[torch.tensor(pairs, dtype=torch.int64).reshape(-1)]
    return image_grid(
        "pairs",
        f"The {len(pairs)} most similar pairs of {len(samples)} generated samples, side by side",
        chosen,
        value_range,
        group_size=2,
    )


def cluster_exhibits(
    examples: ClusterExamples, clustering: Clustering, missing_modes: Sequence[int]
) -> tuple[Exhibit, ...]:
    """Clusters with exemplars (real on the left, generated on the right), and real samples of the `missed` modes; points for 2-D data."""
    if examples.real.samples.ndim != 4:
        return (
            scatter_plot(
                "scatter", "Real and generated points", {"real": examples.real.samples, "fake": examples.fake.samples}
            ),
        )
    span = examples.value_range or _span(examples.real.samples)
    sides = [(side, clustering.assign(side.features)) for side in (examples.real, examples.fake)]
    members = [
        [
            _nearest_to_middle(side, (where.label == mode) & where.nearest_is_close)
            for mode in range(clustering.n_clusters)
        ]
        for side, where in sides
    ]
    exhibits = [_cluster_sheet(members[0], members[1], clustering, span)] if clustering.n_clusters > 1 else []
    found = [(mode, members[0][mode]) for mode in missing_modes if len(members[0][mode])][:MAX_MISSING_MODES]
    return (*exhibits, *([_missed_sheet(found, span)] if found else []))


def _span(samples: Tensor) -> tuple[float, float]:
    finite = samples[torch.isfinite(samples)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _nearest_to_middle(side: SamplesWithFeatures, chosen: Tensor) -> Tensor:
    """The samples of one mode, nearest to their mean first: (k, C, H, W)."""
    features, samples = side.features[chosen], side.samples[chosen]
    if not len(features):
        return samples
    return samples[(features - features.mean(0)).norm(dim=1).argsort(stable=True)[:N_COLUMNS]]


def _row(images: Tensor, count: int) -> Tensor:
    """`count` tiles; NaN, which is drawn as paper, where there are too few."""
    padded = torch.full((count, *images.shape[1:]), float("nan"))
    padded[: min(count, len(images))] = images[:count]
    return padded


def _cluster_sheet(real: list[Tensor], fake: list[Tensor], clusters: Clustering, span: ValueRange) -> Exhibit:
    rows = min(MAX_CLUSTERS, clusters.n_clusters)
    shares = torch.bincount(clusters.labels, minlength=clusters.n_clusters).double() / max(1, len(clusters.labels))
    tiles = torch.cat([torch.cat([_row(real[mode], N_EXAMPLES), _row(fake[mode], N_EXAMPLES)]) for mode in range(rows)])
    named = ", ".join(f"{float(shares[mode]):.0%}" for mode in range(rows))
    more = "" if rows == clusters.n_clusters else f" (the largest {rows} of {clusters.n_clusters})"
    caption = (
        f"Clusters by share of the real data: {named}{more}; one row each, real on the left, generated on the right"
    )
    return image_grid("clusters", caption, tiles, span, group_size=N_EXAMPLES)


def _missed_sheet(found: list[tuple[int, Tensor]], span: ValueRange) -> Exhibit:
    tiles = torch.cat([_row(images, N_COLUMNS) for _, images in found])
    named = ", ".join(str(mode) for mode, _ in found)
    return image_grid("missed", f"Real samples of modes that the generator misses; one row each: {named}", tiles, span)
