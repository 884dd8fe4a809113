"""The latent sweep on generators whose response is known in closed form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gandiag.errors import OutputError
from gandiag.interfaces import MetricResult, OutputSpec
from gandiag.probes.latent_sweep import MEASUREMENT_KEYS, TRUNCATION_PSIS, sweep_latent_scale
from gandiag.probes.output_distances import compute_output_distances
from gandiag.record import to_json_value

SCALES = (0.02, 0.1, 0.5, 0.75, 1.0, 1.25, 2.0, 4.0)
Z = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
W = torch.randn(8, 48, generator=torch.Generator().manual_seed(1))
VECTOR = OutputSpec("vector", (48,), None)


def sweep(
    generator: Callable[[Tensor], Tensor], scales: tuple[float, ...] = SCALES, output: OutputSpec = VECTOR
) -> MetricResult:
    found = sweep_latent_scale(lambda scale: generator(Z * scale), scales, seed=0, output=output)
    json.dumps(to_json_value(found), allow_nan=False)
    assert set(found.measurements) == set(MEASUREMENT_KEYS)
    assert all(
        (entry.value is None) == (entry.status != "ok") and entry.reason for entry in found.measurements.values()
    )
    return found


def points(found: MetricResult) -> list[dict[str, Any]]:
    return list(found.sections["response"]["points"])


def test_linear_generator_spreads_in_proportion() -> None:
    found = sweep(lambda z: z @ W + 3.0)
    for point in points(found):
        assert point["spread"] == pytest.approx(
            point["scale"], rel=1e-4
        )  # float32 outputs of size 3 at distances of 0.3: 1e-6 each
        assert point["spread_median"] == pytest.approx(point["scale"], rel=1e-4)
        assert point["interval"]["low"] <= point["spread"] <= point["interval"]["high"]
    assert found.sections["response"]["axis"] == "scale" and found.sections["response"]["reason"] is None
    assert found.measurements["scale_gain"].value == pytest.approx(1.0, abs=1e-3)
    assert [point["scale"] for point in points(found)] == sorted(SCALES)


def test_small_scale_repeats_and_scale_one_does_not() -> None:
    by_scale = {point["scale"]: point for point in points(sweep(lambda z: z @ W))}
    assert by_scale[0.02]["duplicated"] == 1.0 and by_scale[0.02]["effective"] < 10
    assert by_scale[1.0]["duplicated"] < 0.02 and by_scale[1.0]["effective"] > 250
    effective = [by_scale[scale]["effective"] for scale in sorted(by_scale)]
    assert effective == sorted(effective) and all(1 <= value <= 256 for value in effective)


def test_hard_regions_have_no_gain() -> None:
    """A generator of eight prototypes by the sign of z: scale changes nothing but the distance from the boundary."""
    found = sweep(lambda z: torch.tanh(50 * z) @ W)
    assert abs(found.measurements["scale_gain"].value or 0.0) < 0.1


@pytest.mark.parametrize(
    "generator",
    [lambda z: z / z.norm(dim=1, keepdim=True) @ W, lambda z: (z - z.mean(0)) / z.std(0) @ W],
    ids=["sphere", "batch"],
)
def test_normalized_latents_are_not_swept(generator: Callable[[Tensor], Tensor]) -> None:
    sampled: list[float] = []

    def sample_at(scale: float) -> Tensor:
        sampled.append(scale)
        return generator(Z * scale)

    section = sweep_latent_scale(sample_at, SCALES, seed=0).sections["response"]
    assert section["axis"] is None and "does not react to scale" in section["reason"] and section["points"] == []
    assert sampled == [1.0, 2.0]


def test_constant_generator() -> None:
    found = sweep(lambda z: torch.full((len(z), 48), 0.7))
    assert (
        found.sections["response"]["axis"] is None
        and "every output is the same" in found.sections["response"]["reason"]
    )
    assert found.measurements["scale_reaction"].value == 0.0


def test_collapsed_at_one_is_relative_to_the_largest() -> None:
    """Constant at scale 1, diverse at scale 4."""
    found = sweep(lambda z: torch.relu(z.abs() - 4.5) @ W + 1.0)
    section = found.sections["response"]
    by_scale = {point["scale"]: point for point in section["points"]}
    assert (
        "relative to scale 4" in section["reason"] and by_scale[4.0]["spread"] == 1.0 and by_scale[1.0]["spread"] == 0.0
    )
    assert by_scale[1.0]["duplicated"] == 1.0


def test_the_same_at_every_scale_for_most_pairs() -> None:
    """Outputs that move with the scale, all together, have no spread to divide by."""
    found = sweep(lambda z: torch.ones(len(z), 48) * z.norm())
    assert all(point["spread"] is None and point["effective"] == 1.0 for point in points(found))
    assert "cannot be expressed as a ratio" in found.sections["response"]["reason"]


def test_saturation_counts_the_ends_of_the_range() -> None:
    output = OutputSpec("vector", (48,), (-1.0, 1.0))
    found = points(sweep(lambda z: torch.tanh(z @ W), output=output))
    shares = [point["saturated"] for point in found]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] > 0.5
    assert all(point["saturated"] is None for point in points(sweep(lambda z: z @ W)))


def test_a_scale_with_infinite_outputs_is_null() -> None:
    found = sweep(lambda z: torch.exp(40 * z) if z.abs().max() > 10 else z @ W[:, :8])
    by_scale = {point["scale"]: point for point in points(found)}
    assert by_scale[4.0]["spread"] is None and by_scale[2.0]["spread"] == pytest.approx(2.0, rel=1e-4)
    assert "not finite at scale 4" in found.sections["response"]["reason"]
    with pytest.raises(OutputError, match="not finite"):
        compute_output_distances(torch.tensor([[math.nan], [0.0]]), None)


def test_scale_zero_and_a_single_scale() -> None:
    by_scale = {point["scale"]: point for point in points(sweep(lambda z: z @ W, (0.0, 1.0)))}
    assert by_scale[0.0]["spread"] == 0.0 and by_scale[0.0]["effective"] == 1.0
    assert sweep(lambda z: z @ W, (1.0,)).measurements["scale_gain"].value is None


def test_distances_equal_torch_cdist_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Z @ W + 100.0
    whole = compute_output_distances(rows.reshape(256, 3, 4, 4), None).distances
    monkeypatch.setattr("gandiag.probes.output_distances.CHUNK_SIZE", 5)
    assert whole.allclose(
        torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist"), atol=1e-9
    )
    assert compute_output_distances(rows, None).distances.allclose(whole, atol=1e-9)


def test_interval_covers_a_fresh_draw() -> None:
    """95 % intervals of tanh's spread at .5 against the value from 4 times as many latents: at most 5 of 20 miss it.

    Chance alone gives more misses with p < .003.
    """

    def ratio(z: Tensor) -> dict[str, Any]:
        return points(sweep_latent_scale(lambda scale: torch.tanh(z * scale @ W), (0.5, 1.0), seed=0))[0]

    truth = ratio(torch.randn(1024, 8, generator=torch.Generator().manual_seed(99)))["spread"]
    drawn = [ratio(torch.randn(256, 8, generator=torch.Generator().manual_seed(seed))) for seed in range(20)]
    assert sum(not point["interval"]["low"] <= truth <= point["interval"]["high"] for point in drawn) <= 5


def test_curve_has_no_holes_in_its_axis() -> None:
    curve = sweep(lambda z: z @ W).exhibits[0]
    assert curve.id == "response" and curve.kind == "series"
    assert all(len(line) == len(curve.data["x"]) for line in curve.data["lines"].values())


def styled(psi: float, *, shrink: float = 1.0) -> Tensor:
    """A generator that normalizes z and pulls styles toward their mean: outputs spread in proportion to psi."""
    w = Z / Z.norm(dim=1, keepdim=True)
    return (0.3 + psi * shrink * (w - 0.3)) @ W


def test_where_scale_does_nothing_psi_is_swept() -> None:
    found = sweep_latent_scale(
        lambda scale: styled(1.0), SCALES, seed=0, output=VECTOR, truncation=(styled, TRUNCATION_PSIS)
    )
    section = found.sections["response"]
    assert section["axis"] == "psi" and section["reason"].startswith(
        "does not react to scale: doubling z moves its outputs"
    )
    assert section["reason"].endswith("the truncation psi is swept instead")
    assert [point["psi"] for point in points(found)] == list(TRUNCATION_PSIS) and all(
        "scale" not in point for point in points(found)
    )
    for point in points(found):
        assert point["spread"] == pytest.approx(point["psi"], abs=1e-4) and point["spread_median"] == pytest.approx(
            point["psi"], abs=1e-4
        )
    by_psi = {point["psi"]: point for point in points(found)}
    assert by_psi[0.0]["duplicated"] == 1.0 and by_psi[0.0]["effective"] == 1.0 and by_psi[1.0]["duplicated"] < 0.05
    assert set(found.measurements) == set(MEASUREMENT_KEYS) and found.measurements["scale_gain"].value is None
    assert found.exhibits[0].id == "response" and found.exhibits[0].data["x"] == list(TRUNCATION_PSIS)


def test_a_generator_that_reacts_to_scale_is_swept_over_scale() -> None:
    found = sweep_latent_scale(
        lambda scale: Z * scale @ W, SCALES, seed=0, output=VECTOR, truncation=(styled, TRUNCATION_PSIS)
    )
    assert found.sections["response"]["axis"] == "scale" and len(points(found)) == len(SCALES)


def test_a_dead_generator_is_dead_at_every_psi() -> None:
    found = sweep_latent_scale(
        lambda scale: torch.ones(256, 48),
        SCALES,
        seed=0,
        output=VECTOR,
        truncation=(lambda psi: torch.ones(256, 48), TRUNCATION_PSIS),
    )
    section = found.sections["response"]
    assert (
        section["axis"] == "psi"
        and "every output is the same" in section["reason"]
        and "at every psi" in section["reason"]
    )
    assert all(point["spread"] is None and point["effective"] == 1.0 for point in section["points"])
