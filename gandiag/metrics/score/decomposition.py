"""Decomposes the kept diversity into four factors: mode balance · coverage · width ratio · unique fraction.

The factors are measured in an order that counts no loss twice. Copies are weighted down first, and everything after
counts distinct outputs. *Mode balance* compares the shares of the modes; *width ratio* compares the spread inside each
mode. *Coverage* is measured on samples rescaled to the reference's width, against as many reference rows per mode as
there are samples. Narrowed or imbalanced modes, outliers and copies therefore do not affect it: it shows only parts of
a mode that are never generated. If samples are much wider than their mode, coverage within the mode is unknown and
assumed complete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandiag.metrics.score.bias_correction import bias_corrected_positive_part, unique_fraction
from gandiag.metrics.score.displaced_modes import find_displaced_rows
from gandiag.metrics.score.mode_partition import ModePartition
from gandiag.metrics.score.mode_width import (
    MIN_RATIO_ROWS,
    CenteredRows,
    ModeWidths,
    center_rows,
    has_width_ratio,
    rescale_to_reference,
    weight_per_mode,
)
from gandiag.metrics.score.neighborhoods import (
    TILE_SIZE,
    euclidean_distances,
    expected_coverage,
    nearest_in_matrix,
    neighbor_radius,
)
from gandiag.metrics.score.row_preparation import find_far_rows

DISTANCE_RATIO_QUANTILE = 0.2  # quantile used to estimate blur; robust to 80 % outliers
MANIFOLD_QUANTILE = 0.99  # fraction of the held-out reference that counts as on the manifold
MIN_WIDTH = 1e-6  # of the data's rms: narrower modes of the data are points, which nothing can be narrower than
MIN_KEPT_BALANCE = 0.05
REACHING_BALLS = 2  # reference balls that must reach a row
COPY_DISTANCE_RATIO = 0.1  # of the median distance to the nearest neighbor: nearer is a copy
# Width ratios between which the inside of a mode goes from fully measurable to unknown.
RELIABLE_WIDTH_RATIO, MAX_WIDTH_RATIO = 4.0, 8.0
# Coverage inside a mode counts fully up to 10 % of samples off the manifold and not at all from 50 %.
MAX_COVERAGE_INFIDELITY, COVERAGE_INFIDELITY_RANGE = 0.5, 0.4
MISSING_SHARE_RATIO = 0.1  # a mode with less than this fraction of its share is missing, otherwise imbalanced

SplitIndices = tuple[Tensor, Tensor, Tensor]  # row indices of reference, held-out and generated rows


@dataclass(frozen=True, slots=True)
class SplitDistances:
    """Computed once per split: modes, widths and distances of n reference, held-out and generated rows each."""

    mode_labels: tuple[Tensor, Tensor, Tensor]  # the mode of each reference, held-out and generated row: (n,)
    n_modes: int
    real_rows: CenteredRows  # reference and held-out rows together, 2n
    fake_rows: CenteredRows
    mode_confidence: Tensor  # (K,) in [0, 1]: 0 where samples are MAX_WIDTH_RATIO times as wide as the mode
    far: tuple[Tensor, ...]  # (n,) bool each, rows so far out that they were moved in
    beside_mode: Tensor  # (n,) bool, the samples that form a mode beside that of the data
    on_manifold: Tensor  # (n,) 1 for the samples on the manifold, without the farthest of them
    inliers: Tensor  # (n,) 1 for the MANIFOLD_QUANTILE of reference rows nearest to the rest, else 0
    neighbors: tuple[Tensor, Tensor]  # nearest reference rows of each reference row: distances, indices
    heldout_distances: Tensor  # (n, n) held-out → reference, the held-out modes rescaled like the generated ones
    fake_distances: Tensor  # (n, n) generated → reference
    rescaled_fake_distances: Tensor  # (n, n) generated → reference, every generated mode at the reference's width
    copy_matrix: Tensor  # (n, n) bool, which generated rows are copies of which
    reference_copies: Tensor  # (n, n) bool, the same for reference rows
    real_copies: Tensor  # (n,) reference rows that equal each generated row, at least 1

    def find_distinct_rows(self) -> Tensor:
        """Generated rows without their surplus copies, (m,) indices: as many of each as there are reference rows."""
        n_earlier = self.copy_matrix.tril(-1).sum(1)
        return (n_earlier < self.real_copies).nonzero().flatten()


@dataclass(frozen=True, slots=True)
class ScoreFactors:
    """Fractions of the diversity that are kept, each in [0, 1].

    `off_manifold`, `on_manifold` and `distance_ratio` describe fidelity.
    """

    mode_balance: float
    mode_presence: float  # the part of `mode_balance` that is not lost to modes that are absent altogether
    coverage: float
    width_ratio: float
    unique_fraction: float
    off_manifold: (
        float  # fraction of samples off the manifold at the reference's own resolution, in excess of real data
    )
    on_manifold: float  # fraction of the samples that count
    distance_ratio: float  # how much coarser the resolution must be before the samples pass for real
    unknown_fraction: (
        float  # share of the modes shown whose inside cannot be measured; `coverage` assumes them complete
    )

    @property
    def loss(self) -> float:
        """1 − the product of the factors, in [0, 1]."""
        return 1 - self.mode_balance * self.coverage * self.width_ratio * self.unique_fraction


def prepare_split(reference: Tensor, heldout: Tensor, fake: Tensor, partition: ModePartition) -> SplitDistances:
    """Widths and distances, given the modes of the real data.

    Costs five n × n × D products and holds three n × n float32 matrices.
    """
    reference_distances = euclidean_distances(reference, reference)
    neighbors, radius, reference_scale = _reference_neighbors(reference_distances)
    edge = reference_scale.quantile(MANIFOLD_QUANTILE)
    far = find_far_rows(reference, heldout, fake)
    inliers = ((reference_scale <= edge) & ~far[0]).float()
    copy_distance = COPY_DISTANCE_RATIO * float(neighbors[0][:, 0].median())
    fake_distances = euclidean_distances(fake, reference, min_distance=copy_distance)
    fake_scale = _scale_to_reach(fake_distances, radius)
    passes = fake_scale <= edge * _distance_ratio(fake_scale, reference_scale)
    labels = partition.assign_modes(reference), partition.assign_modes(heldout), partition.assign_modes(fake)
    beside_mode = find_displaced_rows(
        (torch.cat([reference, heldout]), torch.cat(labels[:2])), (fake, labels[2]), passes, partition.n_modes
    )
    near = fake_scale <= fake_scale.quantile(MANIFOLD_QUANTILE)
    on_manifold = (((passes & near) | beside_mode) & ~far[2]).float()
    real_rows = center_rows(
        torch.cat([reference, heldout]), torch.cat(labels[:2]), torch.ones(2 * len(heldout)), partition.n_modes
    )
    fake_rows = center_rows(fake, labels[2], on_manifold, partition.n_modes)
    zeros = torch.zeros(len(heldout))
    reference_widths = real_rows.mode_widths(torch.cat([inliers, zeros]))
    heldout_widths = real_rows.mode_widths(torch.cat([zeros, (~far[1]).float()]))
    fake_widths = fake_rows.mode_widths(on_manifold)

    rescaled_heldout, _ = rescale_to_reference(heldout, labels[1], heldout_widths, reference_widths)
    heldout_distances = euclidean_distances(rescaled_heldout, reference, min_distance=copy_distance)
    rescaled_fake, width_ratio = rescale_to_reference(fake, labels[2], fake_widths, reference_widths)
    copy_matrix = _find_copies(fake, copy_distance * width_ratio.clamp(max=1), copy_distance)
    return SplitDistances(
        mode_labels=labels,
        n_modes=partition.n_modes,
        real_rows=real_rows,
        fake_rows=fake_rows,
        mode_confidence=_mode_confidence(fake_widths, reference_widths),
        beside_mode=beside_mode,
        far=far,
        on_manifold=on_manifold,
        inliers=inliers,
        neighbors=neighbors,
        heldout_distances=heldout_distances,
        fake_distances=fake_distances,
        rescaled_fake_distances=euclidean_distances(rescaled_fake, reference, min_distance=copy_distance),
        copy_matrix=copy_matrix,
        reference_copies=(reference_distances <= copy_distance).fill_diagonal_(True),
        real_copies=(fake_distances <= copy_distance).sum(1).clamp(min=1).float(),
    )


def _reference_neighbors(distances: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Neighbors of the reference rows, their ball radii (n,), and how much balls must grow to reach each row (n,).

    Overwrites the diagonal of `distances` (n, n).
    """
    neighbors = nearest_in_matrix(distances)
    radius = neighbor_radius(neighbors, torch.arange(len(distances)))
    return neighbors, radius, _scale_to_reach(distances, radius)


def with_fine_modes(
    split: SplitDistances, rows: tuple[Tensor, Tensor, Tensor], partition: ModePartition
) -> SplitDistances:
    """The same split with modes separated on weaker evidence; distances stay unchanged.

    `rows`: reference, held-out and generated rows.
    """
    reference, heldout, fake = (partition.fine_mode_of_cell[partition.assign_cells(part)] for part in rows)
    n_modes = int(partition.fine_mode_of_cell.max()) + 1
    real_rows = center_rows(torch.cat(rows[:2]), torch.cat([reference, heldout]), torch.ones(2 * len(rows[0])), n_modes)
    fake_rows = center_rows(rows[2], fake, split.on_manifold, n_modes)
    reference_widths = real_rows.mode_widths(torch.cat([split.inliers, torch.zeros(len(heldout))]))
    return replace(
        split,
        mode_labels=(reference, heldout, fake),
        n_modes=n_modes,
        real_rows=real_rows,
        fake_rows=fake_rows,
        mode_confidence=_mode_confidence(fake_rows.mode_widths(split.on_manifold), reference_widths),
    )


def _mode_confidence(fake_widths: ModeWidths, reference_widths: ModeWidths) -> Tensor:
    """How far the inside of each mode can be measured, (K,) in [0, 1].

    0 where samples are so wide that rescaling them would invent their shape.
    """
    has_ratio = has_width_ratio(fake_widths, reference_widths)
    ratio = torch.where(has_ratio, fake_widths.width / reference_widths.width.clamp(min=1e-12), torch.ones(()))
    return ((MAX_WIDTH_RATIO - ratio) / (MAX_WIDTH_RATIO - RELIABLE_WIDTH_RATIO)).clamp(0, 1)


def compute_factors(split: SplitDistances, indices: SplitIndices) -> ScoreFactors:
    """The factors from a subset of the reference, held-out and generated rows.

    The partition and the rescaled widths stay those of the whole split.
    """
    reference_modes, heldout_modes, fake_modes = (
        modes[rows] for modes, rows in zip(split.mode_labels, indices, strict=True)
    )
    radius = neighbor_radius(split.neighbors, indices[0]).clamp(min=1e-12)
    heldout_scale, heldout_hits = _heldout_statistics(split, indices, radius)
    fake_scale = _smallest(_submatrix(split.fake_distances, indices[2], indices[0]).div_(radius))
    edge = heldout_scale.quantile(MANIFOLD_QUANTILE)
    distance_ratio = _distance_ratio(fake_scale, heldout_scale)
    passes = (fake_scale <= edge * distance_ratio) | split.beside_mode[indices[2]]
    copy_counts = _count_copies(split.copy_matrix, indices[2][passes])
    weight = torch.zeros(len(fake_modes))
    real_copies = split.real_copies[indices[2][passes]] * (len(indices[0]) / len(split.inliers))
    weight[passes] = (real_copies.clamp(min=1) / copy_counts).clamp(max=1)
    real_modes = torch.cat([reference_modes, heldout_modes])
    real_weight = weight_per_mode(real_modes, torch.ones(len(real_modes)), split.n_modes)
    fake_weight = weight_per_mode(fake_modes, weight, split.n_modes)
    real_share, fake_share = real_weight / real_weight.sum(), fake_weight / fake_weight.sum().clamp(min=1e-9)
    mode_balance, mode_presence = _balance_and_presence(
        real_share, fake_share, float(real_weight.sum()), float(fake_weight.sum())
    )
    kept_share = torch.minimum(real_share, fake_share)
    coverage = _coverage(split, indices, weight, radius, (heldout_scale, heldout_hits), kept_share)
    off_manifold = 1 - float((fake_scale <= edge).float().mean()) / MANIFOLD_QUANTILE
    coverage = 1 - (1 - coverage) * _clamp((MAX_COVERAGE_INFIDELITY - off_manifold) / COVERAGE_INFIDELITY_RANGE)
    near = fake_scale <= fake_scale.quantile(MANIFOLD_QUANTILE)
    inlier_weight = weight * (near | split.beside_mode[indices[2]])
    width_ratio = _mean_width_ratio(split, indices, inlier_weight, (heldout_scale <= edge).float())
    n_others = _count_copies(split.reference_copies, indices[0]) - 1
    # What is left of the data is drawn more often: as often as the missing share makes it.
    reference_copies = 1 + n_others / max(_clamp(mode_balance), MIN_KEPT_BALANCE)
    unique_ratio = unique_fraction(copy_counts) / max(unique_fraction(reference_copies), 1e-9)
    unknown = (kept_share * (1 - split.mode_confidence)).sum() / kept_share.sum().clamp(min=1e-9)
    return ScoreFactors(
        mode_balance=_clamp(mode_balance),
        mode_presence=_clamp(max(mode_presence, mode_balance)),
        coverage=_clamp(coverage),
        width_ratio=_clamp(width_ratio),
        unique_fraction=_clamp(unique_ratio),
        off_manifold=off_manifold,
        on_manifold=float(passes.float().mean()),
        distance_ratio=distance_ratio,
        unknown_fraction=float(unknown),
    )


def _clamp(fraction: float) -> float:
    return min(1.0, max(0.0, fraction))


def _heldout_statistics(split: SplitDistances, indices: SplitIndices, radius: Tensor) -> tuple[Tensor, Tensor]:
    """How much balls must grow to reach each held-out row, and held-out rows in each reference ball, (n,) each."""
    scaled = _submatrix(split.heldout_distances, indices[1], indices[0]).div_(radius)  # (n, n)
    return _smallest(scaled), (scaled <= 1).sum(0).float()


def _distance_ratio(fake_scale: Tensor, real_scale: Tensor) -> float:
    """How many times farther from the reference the generator's good samples lie than real rows do, at least 1."""
    real_quantile = real_scale.quantile(DISTANCE_RATIO_QUANTILE).clamp(min=1e-12)
    return max(1.0, float(fake_scale.quantile(DISTANCE_RATIO_QUANTILE) / real_quantile))


def _balance_and_presence(real_share: Tensor, fake_share: Tensor, n_real: float, n_fake: float) -> tuple[float, float]:
    """1 − bias-corrected total variation of the mode shares (K,), and 1 − the share of the modes that are absent."""
    if len(real_share) == 1:
        return 1.0, 1.0
    error = (real_share * (1 - real_share) / n_real + fake_share * (1 - fake_share) / max(n_fake, 1.0)).sqrt()
    is_absent = fake_share < MISSING_SHARE_RATIO * real_share
    balance = 1 - float(bias_corrected_positive_part(real_share - fake_share, error).sum())
    return balance, 1 - float(real_share[is_absent].sum())


def _coverage(
    split: SplitDistances,
    indices: SplitIndices,
    weight: Tensor,
    radius: Tensor,
    heldout: tuple[Tensor, Tensor],
    kept_share: Tensor,
) -> float:
    """Reference rows with a sample in their ball over those with a held-out row in it, at equal numbers in every mode.

    `heldout`: the result of `_heldout_statistics`.
    """
    reference_modes, heldout_modes, fake_modes = (
        modes[rows] for modes, rows in zip(split.mode_labels, indices, strict=True)
    )
    heldout_scale, heldout_hits = heldout
    scaled = _submatrix(split.rescaled_fake_distances, indices[2], indices[0]).div_(radius)  # (n, n)
    counts = weight > 0
    distance_ratio = _distance_ratio(_smallest(scaled)[counts], heldout_scale) if counts.any() else 1.0
    hits = torch.zeros(len(radius))
    for start in range(0, len(scaled), TILE_SIZE):
        tile = slice(start, start + TILE_SIZE)
        hits += weight[tile] @ (scaled[tile] <= distance_ratio).float()  # (n,)
    n_fake = weight_per_mode(fake_modes, weight, split.n_modes)  # (K,) each
    n_heldout = weight_per_mode(heldout_modes, torch.ones(len(heldout_modes)), split.n_modes)
    n_target = torch.minimum(n_fake, n_heldout)[reference_modes]
    n_reference = weight_per_mode(reference_modes, torch.ones(len(reference_modes)), split.n_modes).clamp(min=1)

    def covered_per_mode(ball_hits: Tensor, n_rows: Tensor) -> Tensor:
        covered = expected_coverage(ball_hits, n_rows[reference_modes].clamp(min=1e-9), n_target)
        return kept_share / n_reference * weight_per_mode(reference_modes, covered, split.n_modes)

    covered, possible = covered_per_mode(hits, n_fake), covered_per_mode(heldout_hits, n_heldout)  # (K,) each
    total = float(possible.sum())
    if not total:
        return 0.0
    return float((split.mode_confidence * covered + (1 - split.mode_confidence) * possible).sum()) / total


def _mean_width_ratio(split: SplitDistances, indices: SplitIndices, weight: Tensor, heldout_weight: Tensor) -> float:
    """Mean over the samples of min(1, rms width of their mode over the reference's), bias-corrected."""
    n = len(split.mode_labels[0])
    real_weight, fake_weight = torch.zeros(2 * n), torch.zeros(n)
    real_weight[indices[0]] = split.inliers[indices[0]]
    real_weight[n + indices[1]] = heldout_weight * ~split.far[1][indices[1]]
    fake_weight[indices[2]] = weight * ~split.far[2][indices[2]]
    real, fake = split.real_rows.mode_widths(real_weight), split.fake_rows.mode_widths(fake_weight)
    has_width = (fake.n_effective >= 1.5) & (real.n_effective >= MIN_RATIO_ROWS) & (real.width > MIN_WIDTH)
    if not has_width.any():
        return 0.0 if not (fake.n_effective >= 1.5).any() else 1.0
    ratio = (fake.width / real.width.clamp(min=1e-12))[has_width].clamp(max=MAX_WIDTH_RATIO)
    error = ratio * (real.squared_relative_error + fake.squared_relative_error).sqrt()[has_width]
    # Few or discrete rows can be one point by chance, with no spread to estimate an error from.
    null_error = (real.squared_relative_error * (1 + real.n_effective / fake.n_effective)).sqrt()[has_width]
    error = torch.maximum(error, null_error)
    share = weight_per_mode(split.mode_labels[2], fake_weight, split.n_modes)[has_width]
    return 1 - float((bias_corrected_positive_part(1 - ratio, error) * share).sum() / share.sum())


def _scale_to_reach(distances: Tensor, radius: Tensor) -> Tensor:
    """How much the reference's balls must grow until REACHING_BALLS of them reach each row, (n,).

    `distances` (n, n), `radius` (n,). More than one, so that the large ball of a single outlier decides nothing.
    """
    starts = range(0, len(distances), TILE_SIZE)
    return torch.cat([_smallest(distances[start : start + TILE_SIZE] / radius) for start in starts])


def _smallest(rows: Tensor) -> Tensor:
    """The REACHING_BALLS-th smallest value of each row, (n,)."""
    return rows.topk(min(REACHING_BALLS, rows.shape[1]), largest=False).values[:, -1]


def _submatrix(distances: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A copy of the selected rows and columns of a matrix."""
    return distances[rows[:, None], columns]


def _find_copies(rows: Tensor, max_distance: Tensor, min_distance: float) -> Tensor:
    """Which rows are copies of which: within row i's `max_distance` (n,), itself included, (n, n) bool."""
    distances = euclidean_distances(rows, rows, min_distance=min_distance)
    return (distances <= max_distance[:, None]).fill_diagonal_(True)


def _count_copies(copy_matrix: Tensor, subset: Tensor) -> Tensor:
    """Copies of each subset row within the subset, itself included, (n,) ≥ 1."""
    return copy_matrix[subset][:, subset].sum(1).float()
