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

from gandiag.stats.cells import Modes
from gandiag.stats.matching import TILE, distances, expected_cover, nearest_within, neighbours, radii
from gandiag.stats.shortfall import distinct_share, shortfall
from gandiag.stats.widths import Spread, Widths, mended, totals, widths

LOW = 0.2  # the quantile of need that tells how blurred the generator's own good samples are; it stands 80 % junk
EDGE = 0.99  # of the held-out reference counts as on the manifold
COPY = 0.1  # of the median distance to the nearest neighbour: nearer is a copy
WIDE, WIDEST = 4.0, 8.0  # times the reference's width: from the one to the other, the inside of a mode fades from view
ABSENT = 0.1  # a mode with less than this part of its share is missing, else skewed

Picked = tuple[Tensor, Tensor, Tensor]  # indices of the rows of A, B and F that are looked at


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that is worked out once: rows, modes and distances of reference A, held-out reference B and generated F, n rows each."""

    modes: tuple[Tensor, Tensor, Tensor]  # the mode of each row of A, B and F: (n,)
    count: int
    real: Widths  # of A and B together, 2n rows
    fake: Widths
    clear: Tensor  # (K,) how far the inside of each mode can be judged, in [0, 1]: not where samples are WIDEST times as wide
    good: Tensor  # (n,) 1 for the samples on the manifold, without the farthest of them
    inner: Tensor  # (n,) 1 for the EDGE of A that lies nearest to the rest of A, else 0: outliers count on neither side
    near: tuple[Tensor, Tensor]  # nearest A of each A: distances, indices
    held: Tensor  # (n, n) distances B → A, with B's modes given their widths like F's in `mended`
    raw: Tensor  # (n, n) distances F → A
    mended: Tensor  # (n, n) distances F → A after every mode of F was given the width of A's
    fine: float  # rows of A nearer than this are copies
    copies: Tensor  # (n, n) bool, which rows of F are copies of which


@dataclass(frozen=True, slots=True)
class Kept:
    """Shares of the variety that are kept. Noise can carry them a little above 1; `off_manifold`, `on` and `blur` are about fidelity."""

    mass: float
    present: float  # the part of `mass` not lost to modes that are altogether absent
    cover: float
    width: float
    distinct: float
    off_manifold: float  # share of the samples off the manifold at the reference's own resolution, beyond what real data have
    on: float  # share of the samples that count
    blur: float  # how many times coarser one must look before the samples pass for real
    blind: float  # share of what is shown in modes whose inside cannot be judged: `cover` takes them for whole

    @property
    def lost(self) -> float:
        """1 − everything kept: the score, not yet clipped to [0, 1]."""
        return 1 - max(self.mass, 0.0) * self.cover * max(self.width, 0.0) * self.distinct


def survey(reference: Tensor, held: Tensor, fake: Tensor, parts: Modes) -> Field:
    """Widths and distances, given the modes of the real data. Costs five n × n × D products and holds three n × n float32 matrices."""
    among = distances(reference, reference)
    near = nearest_within(among)
    radius = radii(near, torch.arange(len(reference)))
    own_need = _need(among, radius)
    del among
    inner = (own_need <= own_need.quantile(EDGE)).float()
    fine = COPY * float(near[0][:, 0].median())
    raw = distances(fake, reference, fine=fine)
    need = _need(raw, radius)
    on = need <= own_need.quantile(EDGE) * _blur(need, own_need)
    labels = parts.assign(reference), parts.assign(held), parts.assign(fake)
    good = (on & (need <= need.quantile(EDGE))).float()
    real = widths(torch.cat([reference, held]), torch.cat(labels[:2]), torch.ones(2 * len(held)), parts.count)
    own = widths(fake, labels[2], good, parts.count)
    nobody = torch.zeros(len(held))
    home = real.of(torch.cat([inner, nobody]))
    alike, _ = mended(held, labels[1], real.of(torch.cat([nobody, nobody + 1])), home)
    held_far = distances(alike, reference, fine=fine)
    spread = own.of(good)
    alike, ratio = mended(fake, labels[2], spread, home)
    copies = _copies(fake, fine * ratio.clamp(max=1), fine)
    return Field(labels, parts.count, real, own, _clear(spread, home), good, inner, near, held_far, raw, distances(alike, reference, fine=fine), fine, copies)


def by_finer_modes(field: Field, rows: tuple[Tensor, Tensor, Tensor], parts: Modes) -> Field:
    """The same field with the modes told apart on weaker evidence; `rows` are A, B and F. Distances stay as they are."""
    reference, held, fake = (parts.finer[parts.cells(side)] for side in rows)
    count = int(parts.finer.max()) + 1
    real = widths(torch.cat(rows[:2]), torch.cat([reference, held]), torch.ones(2 * len(rows[0])), count)
    own = widths(rows[2], fake, field.good, count)
    home = real.of(torch.cat([field.inner, torch.zeros(len(held))]))
    return replace(field, modes=(reference, held, fake), count=count, real=real, fake=own, clear=_clear(own.of(field.good), home))


def _clear(own: Spread, home: Spread) -> Tensor:
    """How far the inside of each mode can be judged, (K,): not at all where samples are so wide that putting it right would invent their shape."""
    ratio = torch.where(own.have >= 5, own.width / home.width.clamp(min=1e-12), torch.ones(()))
    return ((WIDEST - ratio) / (WIDEST - WIDE)).clamp(0, 1)


def retention(field: Field, picked: Picked) -> Kept:
    """What is kept, judged by the picked rows of A, B and F alone (indices); the partition and the widths put right stay as surveyed."""
    a, b, f = (mode[rows] for mode, rows in zip(field.modes, picked, strict=True))
    radius = radii(field.near, picked[0]).clamp(min=1e-12)
    held = _block(field.held, picked[1], picked[0]).div_(radius)  # (n, n)
    held_need, held_hits = held.amin(1), (held <= 1).sum(0).float()  # (n,)
    del held
    need = _block(field.raw, picked[2], picked[0]).div_(radius).amin(1)
    edge = held_need.quantile(EDGE)
    on = need <= edge * _blur(need, held_need)
    copies = _count(field.copies, picked[2][on])
    weight = torch.zeros(len(f))
    weight[on] = 1 / copies
    own_copies = 1 + (neighbours(field.near, picked[0]) <= field.fine).sum(1).float()
    real, fake = totals(torch.cat([a, b]), torch.ones(len(a) + len(b)), field.count), totals(f, weight, field.count)
    share, shown = real / real.sum(), fake / fake.sum().clamp(min=1e-9)
    mass, present = _mass(share, shown, float(real.sum()), float(fake.sum()))
    both = torch.minimum(share, shown)
    cover = _cover(field, picked, weight, radius, (held_need, held_hits), both)
    width = _width(field, picked, weight * (need <= need.quantile(EDGE)), (held_need <= edge).float())
    distinct = distinct_share(copies) / max(distinct_share(own_copies), 1e-9)
    off = 1 - float((need <= edge).float().mean()) / EDGE
    blind = float((both * (1 - field.clear)).sum() / both.sum().clamp(min=1e-9))
    return Kept(mass, present, cover, width, min(distinct, 1.0), off, float(on.float().mean()), _blur(need, held_need), blind)


def _blur(need: Tensor, held_need: Tensor) -> float:
    """How many times farther from the reference the generator's good samples lie than real rows do, at least 1."""
    return max(1.0, float(need.quantile(LOW) / held_need.quantile(LOW).clamp(min=1e-12)))


def _mass(share: Tensor, shown: Tensor, n_real: float, n_fake: float) -> tuple[float, float]:
    """1 − total variation of the mode shares (K,), free of its bias; and 1 − the share of the modes that are absent."""
    if len(share) == 1:
        return 1.0, 1.0
    error = (share * (1 - share) / n_real + shown * (1 - shown) / max(n_fake, 1.0)).sqrt()
    return 1 - float(shortfall(share - shown, error).sum()), 1 - float(share[shown < ABSENT * share].sum())


def _cover(field: Field, picked: Picked, weight: Tensor, radius: Tensor, seen: tuple[Tensor, Tensor], kept: Tensor) -> float:
    """Reference rows with a sample in their ball over those with a held-out row in it, `seen`, at equal numbers in every mode."""
    a, b, f = (mode[rows] for mode, rows in zip(field.modes, picked, strict=True))
    held_need, held_hits = seen
    fake = _block(field.mended, picked[2], picked[0]).div_(radius)  # (n, n)
    on = weight > 0
    blur = _blur(fake.amin(1)[on], held_need) if on.any() else 1.0
    hits = torch.zeros(len(radius))
    for start in range(0, len(fake), TILE):
        hits += weight[start : start + TILE] @ (fake[start : start + TILE] <= blur).float()  # (n,)
    have, held_have = totals(f, weight, field.count), totals(b, torch.ones(len(b)), field.count)
    want = torch.minimum(have, held_have)[a]
    size_of = totals(a, torch.ones(len(a)), field.count).clamp(min=1)
    covered, possible = (
        kept / size_of * totals(a, expected_cover(h, n[a].clamp(min=1e-9), want), field.count) for h, n in ((hits, have), (held_hits, held_have))
    )  # (K,) each
    whole = float(possible.sum())
    return float((field.clear * covered + (1 - field.clear) * possible).sum()) / whole if whole else 0.0


def _width(field: Field, picked: Picked, weight: Tensor, held_weight: Tensor) -> float:
    """Mean over the samples of min(1, rms width of their mode over the reference's), free of its bias."""
    n = len(field.modes[0])
    real, fake = torch.zeros(2 * n), torch.zeros(n)
    real[picked[0]], real[n + picked[1]], fake[picked[2]] = field.inner[picked[0]], held_weight, weight
    wide, thin = field.real.of(real), field.fake.of(fake)
    seen = thin.have >= 1.5
    if not seen.any():
        return 0.0
    ratio, error = (thin.width / wide.width.clamp(min=1e-12))[seen], (wide.error + thin.error).sqrt()[seen]
    share = totals(field.modes[2], fake, field.count)[seen]
    return 1 - float((shortfall(1 - ratio, ratio * error) * share).sum() / share.sum())


def _need(far: Tensor, radius: Tensor) -> Tensor:
    """How much the reference's balls must grow until one reaches each row, (n,). `far` (n, n), `radius` (n,)."""
    return torch.cat([(far[start : start + TILE] / radius).amin(1) for start in range(0, len(far), TILE)])


def _block(far: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The picked rows and columns of a matrix, copied once."""
    return far[rows[:, None], columns]


def _copies(rows: Tensor, limit: Tensor, fine: float) -> Tensor:
    """Which rows are copies of which: within row i's limit, itself included, (n, n) bool."""
    return (distances(rows, rows, fine=fine) <= limit[:, None]).fill_diagonal_(True)


def _count(copies: Tensor, picked: Tensor) -> Tensor:
    """How many of the picked rows are copies of each picked row, itself included, (n,) ≥ 1."""
    return copies[picked][:, picked].sum(1).float()
