"""Shares of classes and regions: handwritten digits have no separated clusters, and missing ones are named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import records
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from gandiag.exhibits.named_groups import embedding_map, group_exhibits, uncovered_grid
from gandiag.exhibits.samples import ClusterExamples, SamplesWithFeatures
from gandiag.metrics.group_shares import group_by_class, group_by_region
from gandiag.metrics.modes import ModeCoverage
from gandiag.record import Record
from gandiag.report.mode_view import build_group_shares, has_no_clusters
from gandiag.report.terminal import render_text
from gandiag.stats.splits import make_split
from gandiag.stats.subset import SampleSubset, SubsetSpec
from gandiag.verdict.collapse_rules import describe_missing_groups, find_missing_classes
from gandiag.verdict.policy import Policy

N = 500
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits() -> tuple[Tensor, Tensor]:
    """1,797 digits in a fixed random order: rows (N, 64) float32, labels (N,)."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(3))
    return torch.from_numpy(data.data).float()[order], torch.from_numpy(data.target)[order]


def subset(rows: Tensor, labels: Tensor | None) -> SampleSubset:
    return SampleSubset(rows, torch.arange(len(rows)), labels)


def measure(keep: Any, *, labeled: bool) -> dict[str, Any]:
    """The section `modes` of 1,000 real digits against others whose class is kept."""
    rows, labels = digits()
    fake = rows[1000:][torch.tensor([keep(label) for label in labels[1000:].tolist()])][:N]
    real = subset(rows[:1000], labels[:1000] if labeled else None)
    n = len(fake)
    results = {
        "real": {SubsetSpec("v", 2 * n): real, SubsetSpec("samples", 512): real},
        "fake": {SubsetSpec("v", n): subset(fake, None), SubsetSpec("samples", 512): subset(fake, None)},
    }
    outcome = ModeCoverage("v", n, class_names=NAMES).measure(results)
    return dict(outcome.sections["modes"])


def states(section: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["state"] for row in section["groups"]["rows"]}


def as_record(section: dict[str, Any], record: Record) -> Record:
    return dataclasses.replace(record, modes=section)


def test_digits_have_no_modes_and_missing_classes_are_named() -> None:
    section = measure(lambda label: label < 6, labeled=True)
    assert section["covered"] is None and section["missed"] == []
    assert section["groups"]["kind"] == "classes" and section["groups"]["accuracy"]["value"] > 0.9
    found = states(section)
    assert {name for name, state in found.items() if state == "missing"} == {"six", "seven", "eight", "nine"}
    assert not {"missing", "rare"} & {found[name] for name in NAMES[:6]}
    for row in section["groups"]["rows"]:
        for side in ("real", "fake"):
            assert 0 <= row[side]["low"] <= row[side]["value"] <= row[side]["high"] <= 1


@pytest.mark.parametrize("labeled", [True, False])
def test_nothing_is_missing_of_a_perfect_generator(labeled: bool) -> None:
    section = measure(lambda label: True, labeled=labeled)
    assert section["groups"]["kind"] == ("classes" if labeled else "regions")
    assert set(states(section).values()) == {"even"}


def test_regions_without_classes() -> None:
    section = measure(lambda label: label not in (0, 6), labeled=False)
    assert section["groups"]["kind"] == "regions" and section["groups"]["accuracy"] is None
    assert "missing" in states(section).values()
    shares = [row["real"]["value"] for row in section["groups"]["rows"]]
    assert sum(shares) == pytest.approx(1)


def test_classes_that_cannot_be_told_apart_are_refused() -> None:
    rows = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    grouping, reason = group_by_class(subset(rows, torch.arange(600) % 4), rows, (), seed=0)
    assert grouping is None and "only" in reason and "%" in reason


@pytest.mark.parametrize("counts", [(400, 3), (5, 6), (200,)])
def test_too_few_or_too_small_classes(counts: tuple[int, ...]) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    rows = torch.nn.functional.one_hot(labels, 3).float()
    grouping, reason = group_by_class(subset(rows, labels), rows, (), seed=0)
    assert grouping is None and reason


def test_small_classes_are_left_out_and_counted() -> None:
    labels = torch.tensor([0] * 100 + [1] * 100 + [2] * 3)
    rows = torch.nn.functional.one_hot(labels, 3).float() + 0.1 * torch.randn(
        203, 3, generator=torch.Generator().manual_seed(0)
    )
    grouping, _ = group_by_class(subset(rows, labels), rows[:150], ("a", "b", "c"), seed=0)
    assert grouping is not None and grouping.names == ("a", "b") and grouping.left_out == 1


@pytest.mark.parametrize("rows", [torch.ones(400, 4), torch.ones(20, 4), torch.zeros(200, 4)])
def test_no_regions_in_one_point(rows: Tensor) -> None:
    assert group_by_region(make_split(subset(rows, None), subset(rows[: len(rows) // 2], None)), seed=0) is None


def test_text_names_classes_and_counts_regions() -> None:
    record = as_record(measure(lambda label: label < 6, labeled=True), records.collapsed())
    assert has_no_clusters(record)
    assert describe_missing_groups(record).startswith("; missing: classes ") and "seven" in describe_missing_groups(
        record
    )
    text = " ".join(render_text(record, width=100).split())
    assert "no separated clusters at this sample size, so modes cannot be counted" in text
    assert "A classifier assigns the generated samples" in text and "six" in text
    shares = build_group_shares(record)
    assert shares is not None and shares.title == "Class" and shares.rows[0].state == "missing"
    again = Record.from_json(record.to_json())  # the schema knows the section
    assert again.modes["groups"]["kind"] == "classes"


def test_pictures_show_what_is_missing() -> None:
    """Gray images of two levels, of which the dark one is never generated."""
    level = torch.arange(80) % 2
    features = level[:, None].float() * 10 + torch.randn(80, 2, generator=torch.Generator().manual_seed(1))
    images = level.float()[:, None, None, None].expand(-1, 1, 4, 4)
    bright = level == 1
    examples = ClusterExamples(
        SamplesWithFeatures(images, features), SamplesWithFeatures(images[bright], features[bright]), (0.0, 1.0)
    )
    section = {
        "kind": "classes",
        "rows": [
            {"group": 0, "name": "dark, (old)", "state": "missing"},
            {"group": 1, "name": "bright", "state": "even"},
        ],
    }
    shown = group_exhibits(examples, lambda rows: (rows.mean(1) > 5).long(), section)
    assert [exhibit.id for exhibit in shown] == ["named_groups", "missing_groups"]
    assert shown[1].caption.endswith("one row each: dark   old ")  # no mark that captions use is left in a name
    farthest = uncovered_grid(examples, features[bright] + 0.1)[0]
    assert farthest.data["rows"] == 4 and "of 80 real samples" in farthest.caption


def test_the_map_keeps_distances_of_flat_data_and_marks_what_is_missed() -> None:
    """Two-dimensional data in 5-D: the map is a rotation, so distances between its points are the true ones."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(60, 2, generator=generator) * torch.tensor([3.0, 1.0])
    basis = torch.linalg.qr(torch.randn(5, 2, generator=generator)).Q  # (5, 2)
    features, images = flat @ basis.T, torch.zeros(60, 1, 4, 4)
    examples = ClusterExamples(SamplesWithFeatures(images, features), SamplesWithFeatures(images, features))
    missed = flat[:, 0] > 3
    lines = embedding_map(examples, missed).data["lines"]
    assert len(lines["missed"]["x"]) == int(missed.sum()) and len(lines["real"]["x"]) == int((~missed).sum())
    points = torch.tensor([lines["generated"]["x"], lines["generated"]["y"]]).T
    assert torch.allclose(torch.pdist(points.double()), torch.pdist(features.double()), atol=1e-4)


def test_missing_classes_are_named_where_the_score_shows_no_collapse() -> None:
    section = measure(lambda label: label < 6, labeled=True)
    diagnosis = find_missing_classes(as_record(section, records.healthy()), Policy())
    assert diagnosis is not None and diagnosis.level == "warning"
    assert diagnosis.text.startswith("Missing classes ") and "of the real data" in diagnosis.text
    assert find_missing_classes(as_record(section, records.collapsed()), Policy()) is None  # GD103 says so
    assert (
        find_missing_classes(as_record(measure(lambda label: True, labeled=True), records.healthy()), Policy()) is None
    )
