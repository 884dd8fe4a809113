"""What the factors need to know of reference, held-out and generated rows, for the whole split and its half-samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandiag.metrics.score.displaced_modes import find_displaced_rows
from gandiag.metrics.score.mode_partition import ModePartition
from gandiag.metrics.score.mode_width import (
    CenteredRows,
    ModeWidths,
    center_rows,
    has_width_ratio,
    rescale_to_reference,
)
from gandiag.metrics.score.neighborhoods import DistanceTiles, nearest_in_tiles, neighbor_radius
from gandiag.metrics.score.radius_cap import find_manifold_edge
from gandiag.metrics.score.row_preparation import find_far_rows
from gandiag.metrics.score.subset_reach import (
    KEPT_FACTOR,
    SubsetBalls,
    count_copies,
    count_hits,
    hits_in_tile,
    hits_of_pairs,
    limit_widest_ball,
    make_balls,
    mark_members,
    measure_reach,
    reach_and_near_pairs,
    reach_in_tile,
)

DISTANCE_RATIO_QUANTILE = 0.2  # quantile used to estimate blur; robust to 80 % outliers
MANIFOLD_QUANTILE = 0.99  # fraction of the held-out reference that counts as on the manifold
COPY_DISTANCE_RATIO = 0.1  # of the median distance to the nearest neighbor: nearer is a copy
# Width ratios between which the inside of a mode goes from fully measurable to unknown.
RELIABLE_WIDTH_RATIO, MAX_WIDTH_RATIO = 4.0, 8.0

Rows = tuple[Tensor, Tensor, Tensor]  # reference, held-out and generated rows, (n, D) each
SplitIndices = tuple[Tensor, Tensor, Tensor]  # row indices of reference, held-out and generated rows


@dataclass(frozen=True, slots=True)
class SubsetNeighbors:
    """Neighbor statistics of R subsets, (R, n) each; only the entries of a subset's own rows have a meaning."""

    reference_copies: Tensor  # copies of each reference row, itself included
    heldout_reach: Tensor  # how much balls must grow to reach each held-out row, its modes rescaled like the generated
    heldout_hits: Tensor  # held-out rows in the ball of each reference row
    fake_reach: Tensor
    passes: Tensor  # bool, the samples that pass for real at the resolution of the generator's good samples
    fake_copies: Tensor  # copies of each sample among those that pass, itself included
    weight: Tensor  # of each sample: 0 where it does not pass, less than 1 for surplus copies
    fake_hits: Tensor  # weight of the samples in each reference ball, every generated mode at the reference's width


@dataclass(frozen=True, slots=True)
class SplitDistances:
    """Computed once per split of n reference, held-out and generated rows each: modes, widths and neighbors.

    `subsets`: the split itself, then its half-samples.
    """

    subsets: tuple[SplitIndices, ...]
    mode_labels: tuple[Tensor, Tensor, Tensor]  # the mode of each reference, held-out and generated row: (n,)
    n_modes: int
    real_rows: CenteredRows  # reference and held-out rows together, 2n
    fake_rows: CenteredRows
    mode_confidence: Tensor  # (K,) in [0, 1]: 0 where samples are MAX_WIDTH_RATIO times as wide as the mode
    far: tuple[Tensor, ...]  # (n,) bool each, rows so far out that they were moved in
    beside_mode: Tensor  # (n,) bool, the samples that form a mode beside that of the data
    on_manifold: Tensor  # (n,) 1 for the samples on the manifold, without the farthest of them
    inliers: Tensor  # (n,) 1 for the MANIFOLD_QUANTILE of reference rows nearest to the rest, else 0
    radius: Tensor  # (n,) the reference rows' balls
    neighbors: SubsetNeighbors
    n_earlier_copies: Tensor  # (n,) copies of each generated row among those before it
    real_copies: Tensor  # (n,) reference rows that equal each generated row, at least 1

    def find_distinct_rows(self) -> Tensor:
        """Generated rows without their surplus copies, (m,) indices: as many of each as there are reference rows."""
        return (self.n_earlier_copies < self.real_copies).nonzero().flatten()


@dataclass(frozen=True, slots=True)
class _Reference:
    """Reference rows with their balls and the distances that follow: `edge` of the manifold, nearer rows are copies."""

    rows: Tensor
    radius: Tensor
    balls: SubsetBalls
    copies: Tensor
    scale: Tensor
    edge: Tensor
    copy_distance: float

    def tiles(self, rows: Tensor, *, keep: bool = False) -> DistanceTiles:
        """Distances of other rows to the reference."""
        return DistanceTiles(rows, self.rows, self.copy_distance, kept={} if keep else None)


def prepare_split(rows: Rows, partition: ModePartition, subsets: Sequence[SplitIndices]) -> SplitDistances:
    """Widths and neighbors of reference, held-out and generated rows, given the modes of the real data.

    `subsets`: the first one is the split itself. Costs five n × n × D products, seven above 5,792 rows; holds tiles.
    """
    references, heldouts, fakes = ([subset[part] for subset in subsets] for part in range(3))
    reference, heldout, fake = rows
    n = len(reference)
    known = _prepare_reference(reference, references)
    far = find_far_rows(*rows)
    inliers = ((known.scale <= known.edge) & ~far[0]).float()
    members = mark_members(fakes, n)
    whole_reach, fake_reach, real_copies = _reach_fake(known, fake, members)
    passes = whole_reach <= known.edge * distance_ratio(whole_reach, known.scale)
    labels = partition.assign_modes(reference), partition.assign_modes(heldout), partition.assign_modes(fake)
    real, real_labels = torch.cat([reference, heldout]), torch.cat(labels[:2])
    beside_mode = find_displaced_rows((real, real_labels), (fake, labels[2]), passes, partition.n_modes)
    near = whole_reach <= whole_reach.quantile(MANIFOLD_QUANTILE)
    on_manifold = (((passes & near) | beside_mode) & ~far[2]).float()
    real_rows = center_rows(real, real_labels, torch.ones_like(inliers).repeat(2), partition.n_modes)
    del real
    fake_rows = center_rows(fake, labels[2], on_manifold, partition.n_modes)
    zeros = torch.zeros_like(inliers)
    reference_widths = real_rows.mode_widths(torch.cat([inliers, zeros]))
    heldout_widths = real_rows.mode_widths(torch.cat([zeros, (~far[1]).float()]))
    fake_widths = fake_rows.mode_widths(on_manifold)

    rescaled_heldout, _ = rescale_to_reference(heldout, labels[1], heldout_widths, reference_widths)
    heldout_reach, heldout_hits = _reach_heldout(known, rescaled_heldout, mark_members(heldouts, n))
    subset_passes = _find_passing(subsets, fake_reach, heldout_reach, beside_mode)
    rescaled_fake, width_ratio = rescale_to_reference(fake, labels[2], fake_widths, reference_widths)
    fake_tiles = DistanceTiles(fake, fake, known.copy_distance, skip_self=True)
    copies, n_earlier = count_copies(fake_tiles, known.copy_distance * width_ratio.clamp(max=1), subset_passes)
    shares = torch.tensor([len(part) / n for part in references], device=fake.device)[:, None]
    weight = ((real_copies * shares).clamp(min=1) / copies).clamp(max=1) * subset_passes
    neighbors = SubsetNeighbors(
        reference_copies=known.copies,
        heldout_reach=heldout_reach,
        heldout_hits=heldout_hits,
        fake_reach=fake_reach,
        passes=subset_passes,
        fake_copies=copies,
        weight=weight,
        fake_hits=_hit_by_fake(
            known, rescaled_fake, weight, [heldout_reach[i, part] for i, part in enumerate(heldouts)]
        ),
    )
    return SplitDistances(
        subsets=tuple(subsets),
        mode_labels=labels,
        n_modes=partition.n_modes,
        real_rows=real_rows,
        fake_rows=fake_rows,
        mode_confidence=_mode_confidence(fake_widths, reference_widths),
        far=far,
        beside_mode=beside_mode,
        on_manifold=on_manifold,
        inliers=inliers,
        radius=known.radius,
        neighbors=neighbors,
        n_earlier_copies=n_earlier,
        real_copies=real_copies,
    )


def _prepare_reference(rows: Tensor, subsets: Sequence[Tensor]) -> _Reference:
    tiles = DistanceTiles(rows, rows, skip_self=True, kept={})
    neighbors = nearest_in_tiles(tiles)
    radius = neighbor_radius(neighbors, subsets[0])
    copy_distance = COPY_DISTANCE_RATIO * float(neighbors[0][:, 0].median())
    members = mark_members(subsets, len(rows))
    copies, _ = count_copies(tiles, torch.full_like(radius, copy_distance), members)
    scale = measure_reach(tiles, SubsetBalls(radius[None]), members[:1])[0]
    edge = scale.quantile(MANIFOLD_QUANTILE)
    return _Reference(rows, radius, make_balls(neighbors, subsets), copies, scale, edge, copy_distance)


def _reach_fake(known: _Reference, fake: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How much balls must grow to reach each sample, (n,) in the split and (R, n); and its copies in the reference."""
    # Balls without a radius do not count at first: growth has no meaning for them.
    tiles = known.tiles(fake, keep=True)
    factor = limit_widest_ball(tiles, known.radius, float(known.edge))
    balls = SubsetBalls(torch.cat([known.radius[None], known.balls.radius]) * factor)
    reach, copies = [], []
    for rows, tile in tiles:
        reach.append(reach_in_tile(tile, balls, torch.cat([members[:1, rows], members[:, rows]])))
        has_copy = tile.amin(1) <= known.copy_distance
        copies.append(has_copy.long())
        copies[-1][has_copy] = (tile[has_copy] <= known.copy_distance).sum(1)
    together = torch.cat(reach, 1)
    return together[0], together[1:], torch.cat(copies).clamp(min=1).float()


def _reach_heldout(known: _Reference, heldout: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """How much balls must grow to reach each held-out row, and held-out rows in each reference ball, (R, n) each."""
    reach, hits = [], torch.zeros_like(known.balls.radius)
    unit = torch.ones(len(members), device=heldout.device)
    for rows, tile in known.tiles(heldout):
        reach.append(reach_in_tile(tile, known.balls, members[:, rows]))
        hits += hits_in_tile(tile, known.balls, members[:, rows].float(), unit)
    return torch.cat(reach, 1), hits


def _find_passing(
    subsets: Sequence[SplitIndices], fake_reach: Tensor, heldout_reach: Tensor, beside_mode: Tensor
) -> Tensor:
    """The samples of each subset that pass for real, (R, n) bool."""
    passes = torch.zeros_like(fake_reach, dtype=torch.bool)
    for number, (_, heldout, fake) in enumerate(subsets):
        own, real = fake_reach[number, fake], heldout_reach[number, heldout]
        limit = find_manifold_edge(real, MANIFOLD_QUANTILE) * distance_ratio(own, real)
        passes[number, fake] = (own <= limit) | beside_mode[fake]
    return passes


def _hit_by_fake(known: _Reference, rescaled: Tensor, weight: Tensor, heldout_reach: Sequence[Tensor]) -> Tensor:
    """Weight of the rescaled samples in each reference ball, (R, n).

    Balls grow as far as the samples lie farther out than held-out rows do.
    """
    tiles, counts = known.tiles(rescaled, keep=True), weight > 0
    reach, pairs = reach_and_near_pairs(tiles, known.balls, counts)
    growth = torch.ones(len(weight), device=weight.device)
    for number, real in enumerate(heldout_reach):
        if counts[number].any():
            growth[number] = distance_ratio(reach[number, counts[number]], real)
    if pairs is not None and float(growth.max()) < KEPT_FACTOR:
        return hits_of_pairs(pairs, known.balls, weight, growth)
    return count_hits(tiles, known.balls, weight, growth)


def with_fine_modes(split: SplitDistances, rows: Rows, partition: ModePartition) -> SplitDistances:
    """The same split with modes separated on weaker evidence; distances stay unchanged.

    `rows`: reference, held-out and generated rows.
    """
    reference, heldout, fake = (partition.fine_mode_of_cell[partition.assign_cells(part)] for part in rows)
    n_modes = int(partition.fine_mode_of_cell.max()) + 1
    ones = torch.ones_like(split.inliers).repeat(2)
    real_rows = center_rows(torch.cat(rows[:2]), torch.cat([reference, heldout]), ones, n_modes)
    fake_rows = center_rows(rows[2], fake, split.on_manifold, n_modes)
    reference_widths = real_rows.mode_widths(torch.cat([split.inliers, torch.zeros_like(split.inliers)]))
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
    ratio = fake_widths.width / reference_widths.width.clamp(min=1e-12)
    ratio = torch.where(has_ratio, ratio, torch.ones_like(ratio))
    return ((MAX_WIDTH_RATIO - ratio) / (MAX_WIDTH_RATIO - RELIABLE_WIDTH_RATIO)).clamp(0, 1)


def distance_ratio(fake_reach: Tensor, real_reach: Tensor) -> float:
    """How many times farther from the reference the generator's good samples lie than real rows do, at least 1."""
    real_quantile = real_reach.quantile(DISTANCE_RATIO_QUANTILE).clamp(min=1e-12)
    return max(1.0, float(fake_reach.quantile(DISTANCE_RATIO_QUANTILE) / real_quantile))
