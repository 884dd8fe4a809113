"""What a generator keeps of the reference's variety: mass · cover · width · distinct outputs, each given the ones before.

The chain is built so that no loss is counted twice. Copies are weighted down first, and everything after counts distinct
outputs. *Mass* compares the shares of the modes; *width* compares the spread inside a mode; *cover* is then asked of samples
whose width has been put right, against as many reference rows a mode as there are samples, so that neither thin modes, nor
skewed ones, nor junk, nor copies can show in it: only a part of a mode that is never generated.
Where samples are many times as wide as their mode, nothing is known of its inside, and `cover` takes it for whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandiag.metrics.score.bias_correction import bias_corrected_positive_part, unique_fraction
from gandiag.metrics.score.mode_partition import ModePartition
from gandiag.metrics.score.mode_width import (
    CenteredRows,
    ModeWidths,
    center_rows,
    rescale_to_reference,
    weight_per_mode,
)
from gandiag.metrics.score.neighborhoods import (
    TILE_SIZE,
    euclidean_distances,
    expected_coverage,
    nearest_in_matrix,
    neighbor_distances,
    neighbor_radius,
)

DISTANCE_RATIO_QUANTILE = (
    0.2  # the quantile of need that tells how blurred the generator's own good samples are; it stands 80 % junk
)
MANIFOLD_QUANTILE = 0.99  # of the held-out reference counts as on the manifold
COPY_DISTANCE_RATIO = 0.1  # of the median distance to the nearest neighbour: nearer is a copy
RELIABLE_WIDTH_RATIO, MAX_WIDTH_RATIO = (
    4.0,
    8.0,
)  # times the reference's width: from the one to the other, the inside of a mode fades from view
MISSING_SHARE_RATIO = 0.1  # a mode with less than this part of its share is missing, else skewed

SplitIndices = tuple[Tensor, Tensor, Tensor]  # indices of the rows of A, B and F that are looked at


@dataclass(frozen=True, slots=True)
class SplitDistances:
    """Everything that is worked out once: rows, modes and distances of reference A, held-out reference B and generated F, n rows each."""

    mode_labels: tuple[Tensor, Tensor, Tensor]  # the mode of each row of A, B and F: (n,)
    n_modes: int
    real_rows: CenteredRows  # of A and B together, 2n rows
    fake_rows: CenteredRows
    mode_confidence: Tensor  # (K,) how far the inside of each mode can be judged, in [0, 1]: not where samples are WIDEST times as wide
    on_manifold: Tensor  # (n,) 1 for the samples on the manifold, without the farthest of them
    inliers: (
        Tensor  # (n,) 1 for the EDGE of A that lies nearest to the rest of A, else 0: outliers count on neither side
    )
    neighbors: tuple[Tensor, Tensor]  # nearest A of each A: distances, indices
    heldout_distances: Tensor  # (n, n) distances B → A, with B's modes given their widths like F's in `mended`
    fake_distances: Tensor  # (n, n) distances F → A
    rescaled_fake_distances: Tensor  # (n, n) distances F → A after every mode of F was given the width of A's
    copy_distance: float  # rows of A nearer than this are copies
    copy_matrix: Tensor  # (n, n) bool, which rows of F are copies of which


@dataclass(frozen=True, slots=True)
class ScoreFactors:
    """Shares of the variety that are kept. Noise can carry them a little above 1; `off_manifold`, `on` and `blur` are about fidelity."""

    mode_balance: float
    mode_presence: float  # the part of `mass` not lost to modes that are altogether absent
    coverage: float
    width_ratio: float
    unique_fraction: float
    off_manifold: (
        float  # share of the samples off the manifold at the reference's own resolution, beyond what real data have
    )
    on_manifold: float  # share of the samples that count
    distance_ratio: float  # how many times coarser one must look before the samples pass for real
    unknown_fraction: (
        float  # share of what is shown in modes whose inside cannot be judged: `cover` takes them for whole
    )

    @property
    def loss(self) -> float:
        """1 − everything kept: the score, not yet clipped to [0, 1]."""
        return 1 - max(self.mode_balance, 0.0) * self.coverage * max(self.width_ratio, 0.0) * self.unique_fraction


def prepare_split(reference: Tensor, heldout: Tensor, fake: Tensor, partition: ModePartition) -> SplitDistances:
    """Widths and distances, given the modes of the real data. Costs five n × n × D products and holds three n × n float32 matrices."""
    among = euclidean_distances(reference, reference)
    near = nearest_in_matrix(among)
    radius = neighbor_radius(near, torch.arange(len(reference)))
    own_need = _need(among, radius)
    del among
    inner = (own_need <= own_need.quantile(MANIFOLD_QUANTILE)).float()
    fine = COPY_DISTANCE_RATIO * float(near[0][:, 0].median())
    raw = euclidean_distances(fake, reference, min_distance=fine)
    need = _need(raw, radius)
    on = need <= own_need.quantile(MANIFOLD_QUANTILE) * _blur(need, own_need)
    labels = partition.assign_modes(reference), partition.assign_modes(heldout), partition.assign_modes(fake)
    good = (on & (need <= need.quantile(MANIFOLD_QUANTILE))).float()
    real = center_rows(
        torch.cat([reference, heldout]), torch.cat(labels[:2]), torch.ones(2 * len(heldout)), partition.n_modes
    )
    own = center_rows(fake, labels[2], good, partition.n_modes)
    nobody = torch.zeros(len(heldout))
    home = real.mode_widths(torch.cat([inner, nobody]))
    alike, _ = rescale_to_reference(heldout, labels[1], real.mode_widths(torch.cat([nobody, nobody + 1])), home)
    held_far = euclidean_distances(alike, reference, min_distance=fine)
    spread = own.mode_widths(good)
    alike, ratio = rescale_to_reference(fake, labels[2], spread, home)
    copies = _copies(fake, fine * ratio.clamp(max=1), fine)
    return SplitDistances(
        labels,
        partition.n_modes,
        real,
        own,
        _clear(spread, home),
        good,
        inner,
        near,
        held_far,
        raw,
        euclidean_distances(alike, reference, min_distance=fine),
        fine,
        copies,
    )


def with_fine_modes(
    split: SplitDistances, rows: tuple[Tensor, Tensor, Tensor], partition: ModePartition
) -> SplitDistances:
    """The same field with the modes told apart on weaker evidence; `rows` are A, B and F. Distances stay as they are."""
    reference, held, fake = (partition.fine_mode_of_cell[partition.assign_cells(side)] for side in rows)
    count = int(partition.fine_mode_of_cell.max()) + 1
    real = center_rows(torch.cat(rows[:2]), torch.cat([reference, held]), torch.ones(2 * len(rows[0])), count)
    own = center_rows(rows[2], fake, split.on_manifold, count)
    home = real.mode_widths(torch.cat([split.inliers, torch.zeros(len(held))]))
    return replace(
        split,
        mode_labels=(reference, held, fake),
        n_modes=count,
        real_rows=real,
        fake_rows=own,
        mode_confidence=_clear(own.mode_widths(split.on_manifold), home),
    )


def _clear(own: ModeWidths, home: ModeWidths) -> Tensor:
    """How far the inside of each mode can be judged, (K,): not at all where samples are so wide that putting it right would invent their shape."""
    ratio = torch.where(own.n_effective >= 5, own.width / home.width.clamp(min=1e-12), torch.ones(()))
    return ((MAX_WIDTH_RATIO - ratio) / (MAX_WIDTH_RATIO - RELIABLE_WIDTH_RATIO)).clamp(0, 1)


def compute_factors(split: SplitDistances, indices: SplitIndices) -> ScoreFactors:
    """What is kept, judged by the picked rows of A, B and F alone (indices); the partition and the widths put right stay as surveyed."""
    a, b, f = (mode[rows] for mode, rows in zip(split.mode_labels, indices, strict=True))
    radius = neighbor_radius(split.neighbors, indices[0]).clamp(min=1e-12)
    held = _block(split.heldout_distances, indices[1], indices[0]).div_(radius)  # (n, n)
    held_need, held_hits = held.amin(1), (held <= 1).sum(0).float()  # (n,)
    del held
    need = _block(split.fake_distances, indices[2], indices[0]).div_(radius).amin(1)
    edge = held_need.quantile(MANIFOLD_QUANTILE)
    on = need <= edge * _blur(need, held_need)
    copies = _count(split.copy_matrix, indices[2][on])
    weight = torch.zeros(len(f))
    weight[on] = 1 / copies
    own_copies = 1 + (neighbor_distances(split.neighbors, indices[0]) <= split.copy_distance).sum(1).float()
    real, fake = (
        weight_per_mode(torch.cat([a, b]), torch.ones(len(a) + len(b)), split.n_modes),
        weight_per_mode(f, weight, split.n_modes),
    )
    share, shown = real / real.sum(), fake / fake.sum().clamp(min=1e-9)
    mass, present = _mass(share, shown, float(real.sum()), float(fake.sum()))
    both = torch.minimum(share, shown)
    cover = _cover(split, indices, weight, radius, (held_need, held_hits), both)
    width = _width(split, indices, weight * (need <= need.quantile(MANIFOLD_QUANTILE)), (held_need <= edge).float())
    distinct = unique_fraction(copies) / max(unique_fraction(own_copies), 1e-9)
    off = 1 - float((need <= edge).float().mean()) / MANIFOLD_QUANTILE
    blind = float((both * (1 - split.mode_confidence)).sum() / both.sum().clamp(min=1e-9))
    return ScoreFactors(
        mass, present, cover, width, min(distinct, 1.0), off, float(on.float().mean()), _blur(need, held_need), blind
    )


def _blur(need: Tensor, held_need: Tensor) -> float:
    """How many times farther from the reference the generator's good samples lie than real rows do, at least 1."""
    return max(
        1.0,
        float(need.quantile(DISTANCE_RATIO_QUANTILE) / held_need.quantile(DISTANCE_RATIO_QUANTILE).clamp(min=1e-12)),
    )


def _mass(share: Tensor, shown: Tensor, n_real: float, n_fake: float) -> tuple[float, float]:
    """1 − total variation of the mode shares (K,), free of its bias; and 1 − the share of the modes that are absent."""
    if len(share) == 1:
        return 1.0, 1.0
    error = (share * (1 - share) / n_real + shown * (1 - shown) / max(n_fake, 1.0)).sqrt()
    return 1 - float(bias_corrected_positive_part(share - shown, error).sum()), 1 - float(
        share[shown < MISSING_SHARE_RATIO * share].sum()
    )


def _cover(
    field: SplitDistances,
    picked: SplitIndices,
    weight: Tensor,
    radius: Tensor,
    seen: tuple[Tensor, Tensor],
    kept: Tensor,
) -> float:
    """Reference rows with a sample in their ball over those with a held-out row in it, `seen`, at equal numbers in every mode."""
    a, b, f = (mode[rows] for mode, rows in zip(field.mode_labels, picked, strict=True))
    held_need, held_hits = seen
    fake = _block(field.rescaled_fake_distances, picked[2], picked[0]).div_(radius)  # (n, n)
    on = weight > 0
    blur = _blur(fake.amin(1)[on], held_need) if on.any() else 1.0
    hits = torch.zeros(len(radius))
    for start in range(0, len(fake), TILE_SIZE):
        hits += weight[start : start + TILE_SIZE] @ (fake[start : start + TILE_SIZE] <= blur).float()  # (n,)
    have, held_have = weight_per_mode(f, weight, field.n_modes), weight_per_mode(b, torch.ones(len(b)), field.n_modes)
    want = torch.minimum(have, held_have)[a]
    size_of = weight_per_mode(a, torch.ones(len(a)), field.n_modes).clamp(min=1)
    covered, possible = (
        kept / size_of * weight_per_mode(a, expected_coverage(h, n[a].clamp(min=1e-9), want), field.n_modes)
        for h, n in ((hits, have), (held_hits, held_have))
    )  # (K,) each
    whole = float(possible.sum())
    return (
        float((field.mode_confidence * covered + (1 - field.mode_confidence) * possible).sum()) / whole
        if whole
        else 0.0
    )


def _width(field: SplitDistances, picked: SplitIndices, weight: Tensor, held_weight: Tensor) -> float:
    """Mean over the samples of min(1, rms width of their mode over the reference's), free of its bias."""
    n = len(field.mode_labels[0])
    real, fake = torch.zeros(2 * n), torch.zeros(n)
    real[picked[0]], real[n + picked[1]], fake[picked[2]] = field.inliers[picked[0]], held_weight, weight
    wide, thin = field.real_rows.mode_widths(real), field.fake_rows.mode_widths(fake)
    seen = thin.n_effective >= 1.5
    if not seen.any():
        return 0.0
    ratio, error = (
        (thin.width / wide.width.clamp(min=1e-12))[seen],
        (wide.squared_relative_error + thin.squared_relative_error).sqrt()[seen],
    )
    share = weight_per_mode(field.mode_labels[2], fake, field.n_modes)[seen]
    return 1 - float((bias_corrected_positive_part(1 - ratio, ratio * error) * share).sum() / share.sum())


def _need(far: Tensor, radius: Tensor) -> Tensor:
    """How much the reference's balls must grow until one reaches each row, (n,). `far` (n, n), `radius` (n,)."""
    return torch.cat([(far[start : start + TILE_SIZE] / radius).amin(1) for start in range(0, len(far), TILE_SIZE)])


def _block(far: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The picked rows and columns of a matrix, copied once."""
    return far[rows[:, None], columns]


def _copies(rows: Tensor, limit: Tensor, fine: float) -> Tensor:
    """Which rows are copies of which: within row i's limit, itself included, (n, n) bool."""
    return (euclidean_distances(rows, rows, min_distance=fine) <= limit[:, None]).fill_diagonal_(True)


def _count(copies: Tensor, picked: Tensor) -> Tensor:
    """How many of the picked rows are copies of each picked row, itself included, (n,) ≥ 1."""
    return copies[picked][:, picked].sum(1).float()
