"""Pictures of classes or regions, real beside generated, and of the real samples that no generated one is near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gandiag.exhibits.images import image_grid, scatter_plot
from gandiag.exhibits.samples import (
    MAX_CLUSTERS,
    MAX_MISSING_MODES,
    N_COLUMNS,
    N_EXAMPLES,
    ClusterExamples,
    SamplesWithFeatures,
    pad_row,
)
from gandiag.record import Exhibit
from gandiag.stats.cluster_separation import nearest_rows

MAX_UNCOVERED = 32
NEIGHBOR = 5  # real neighbor whose distance is the spacing of the real data around a sample
SINGULAR = {"classes": "class", "regions": "region"}


def group_exhibits(
    examples: ClusterExamples, assign: Callable[[Tensor], Tensor], section: Mapping[str, Any]
) -> list[Exhibit]:
    """Groups with the largest deficits, real beside generated; and real samples of the groups that are missing.

    `assign`: the group of each row of features. `section`: the groups as the record holds them, `kind` and `rows`.
    """
    real, fake = (_examples_per_group(part, assign) for part in (examples.real, examples.fake))
    rows = [row for row in section["rows"] if row["group"] in real][:MAX_CLUSTERS]
    if not rows:
        return []
    empty = examples.real.samples[:0]
    parts = [part.get(row["group"], empty) for row in rows for part in (real, fake)]
    tiles = torch.cat([pad_row(images[:N_EXAMPLES], N_EXAMPLES) for images in parts])
    more = "" if len(rows) == len(section["rows"]) else f" (the {len(rows)} with the largest deficits)"
    caption = (
        f"{section['kind'].capitalize()}, real on the left, generated on the right{more}; "
        f"one row each: {_list_names(rows)}"
    )
    exhibits = [image_grid("named_groups", caption, tiles, examples.shown_range, group_size=N_EXAMPLES)]
    missing = [row for row in rows if row["state"] == "missing"][:MAX_MISSING_MODES]
    if missing:
        tiles = torch.cat([pad_row(real[row["group"]], N_COLUMNS) for row in missing])
        caption = f"Real samples of {section['kind']} that are missing among the generated ones; one row each: "
        exhibits.append(image_grid("missing_groups", caption + _list_names(missing), tiles, examples.shown_range))
    return exhibits


def _list_names(rows: list[Any]) -> str:
    """Names of groups for a caption, without the marks that captions use."""
    return ", ".join("".join(c if c not in ",:;()" else " " for c in str(row["name"])) for row in rows)


def _examples_per_group(part: SamplesWithFeatures, assign: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
    """For each group, samples nearest to its mean first: (k, C, H, W)."""
    labels = assign(part.features)
    examples = {}
    for group in sorted(set(labels.tolist())):
        features, samples = part.features[labels == group], part.samples[labels == group]
        order = (features - features.mean(0)).norm(dim=1).argsort(stable=True)
        examples[group] = samples[order[:N_COLUMNS]]
    return examples


def uncovered_grid(examples: ClusterExamples, fake: Tensor) -> list[Exhibit]:
    """The real samples farthest from every generated one (n, D), relative to the spacing of the real data there."""
    features = examples.real.features
    if len(features) <= NEIGHBOR or not len(fake):
        return []
    spacing = torch.cdist(features, features).kthvalue(NEIGHBOR + 1, dim=1).values  # itself is the first
    ratio = nearest_rows(features, fake)[0] / spacing.clamp(min=1e-12)
    chosen = ratio.argsort(descending=True, stable=True)[:MAX_UNCOVERED]
    caption = (
        f"The {len(chosen)} of {len(features)} real samples that are farthest from every generated one, "
        "relative to the distances between real samples there; farthest first"
    )
    return [image_grid("uncovered", caption, examples.real.samples[chosen], examples.shown_range)]


def embedding_map(examples: ClusterExamples, is_missed: Tensor) -> Exhibit:
    """Real and generated samples on the two main components of the real features; `is_missed` (k,) bool, of the real.

    Distances on the map are only those that two of many components show.
    """
    real, fake = examples.real.features.double(), examples.fake.features.double()
    center = real.mean(0)
    rows = real - center  # (k, D)
    values, vectors = torch.linalg.eigh(rows @ rows.T)  # of k x k: k is at most 512
    axes = rows.T @ vectors[:, -2:].flip(1) / values[-2:].flip(0).clamp(min=1e-12).sqrt()  # (D, 2)
    axes *= torch.where(axes.sum(0) < 0, -1.0, 1.0)  # a sign that does not depend on the machine
    points = {"real": rows[~is_missed] @ axes, "generated": (fake - center) @ axes}
    if bool(is_missed.any()):
        points["missed"] = rows[is_missed] @ axes
    share = float(values[-2:].sum() / values.sum().clamp(min=1e-12))
    missed = "; missed: real samples of what is missing" if "missed" in points else ""
    caption = f"Samples on the two main components of the real data, {share:.0%} of its variance{missed}"
    return scatter_plot("map", caption, points)
