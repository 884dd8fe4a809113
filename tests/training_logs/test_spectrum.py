"""The oscillation test against exact results: the DiracGAN, AR(1) noise, SciPy's Lomb–Scargle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lombscargle

import gandiag
from gandiag.training_logs.multitaper import make_line_estimator
from gandiag.training_logs.red_noise import sample_ar1
from gandiag.training_logs.spectrum import estimate_spectrum

H = 0.2
OMEGA = math.acos(1 - H * H / 8)  # alternating updates turn by this angle a step (f'(0) = 1/2)
PERIOD = 2 * math.pi / OMEGA  # 62.8; the losses depend on the product of both paraestimators: half of it


def simulate_dirac_gan(
    steps: int, start: float, *, alternating: bool = True, penalty: float = 0.0, h: float = H
) -> dict[str, np.ndarray]:
    """DiracGAN (Mescheder et al. 2018): D(x) = psi x, generated point theta, data at 0, f(t) = -log(1 + exp(-t))."""
    theta, psi = start, 0.0
    rows = []
    for _ in range(steps):
        slope = 1 / (1 + math.exp(psi * theta))  # f'(psi theta)
        new_theta = theta - h * psi * slope
        theta_for_d = new_theta if alternating else theta
        slope = 1 / (1 + math.exp(psi * theta_for_d))
        psi += h * (theta_for_d * slope - penalty * psi)
        theta = new_theta
        soft = math.log1p(math.exp(-psi * theta))
        rows.append((theta, psi, soft, math.log(2) + math.log1p(math.exp(psi * theta))))
    return dict(zip(("theta", "psi", "generator", "discriminator"), np.array(rows).T, strict=True))


def test_the_paraestimators_turn_with_the_exact_period() -> None:
    game = simulate_dirac_gan(2000, 0.05)
    found = gandiag.losses({"generator": game["theta"], "discriminator": game["psi"]}).document
    assert found["verdict"] == "oscillating"
    line = found["oscillation"]
    assert line["period"] == pytest.approx(PERIOD, rel=0.02) and line["p_value"] <= 0.01
    assert line["amplitude"] == pytest.approx(0.05, rel=0.05)
    assert line["coherence"] > 0.95 and abs(line["phase"]) == pytest.approx(90, abs=10)  # a quarter turn apart


def test_the_losses_turn_twice_as_fast() -> None:
    game = simulate_dirac_gan(2000, 0.05)
    found = gandiag.losses({role: game[role] for role in ("generator", "discriminator")})
    assert found.verdict == "oscillating" and found.exit_code == 1
    assert found.document["oscillation"]["period"] == pytest.approx(PERIOD / 2, rel=0.02)


def test_simultaneous_updates_grow_by_the_exact_factor() -> None:
    game = simulate_dirac_gan(900, 0.01, alternating=False)
    found = gandiag.losses({"generator": game["theta"], "discriminator": game["psi"]}).document
    assert found["verdict"] == "diverging"
    assert found["oscillation"]["growth"] == pytest.approx(math.sqrt(1 + H * H / 4), rel=2e-4)  # 1.00499 a step
    losses = gandiag.losses({role: game[role] for role in ("generator", "discriminator")}).document
    assert losses["verdict"] == "diverging"
    assert losses["oscillation"]["growth"] == pytest.approx(
        1 + H * H / 4, rel=1e-3
    )  # products of the paraestimators: squared


@pytest.mark.parametrize("penalty", [0.1, 0.3, 1.0])
def test_a_gradient_penalty_settles(penalty: float) -> None:
    game = simulate_dirac_gan(2000, 0.5, penalty=penalty)
    found = gandiag.losses({role: game[role] for role in ("generator", "discriminator")})
    assert found.verdict == "settled" and found.exit_code == 0


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, 0.98])
def test_noise_is_no_oscillation(phi: float) -> None:
    """Nominal 5 % of 60 series: 9 or more alarms have a probability of 0.3 %."""
    rng = np.random.default_rng(round(phi * 100))
    step = np.arange(256.0)
    alarms = 0
    for repeat in range(60):
        noise = rng.standard_normal(256) if phi == 0 else sample_ar1(step, phi, 1, rng, 1.0)[0]
        alarms += estimate_spectrum(step, noise, n_draws=99, seed=repeat).line_p_value <= 0.05
    assert alarms < 9


def test_a_line_in_red_noise_is_found() -> None:
    rng = np.random.default_rng(0)
    step = np.arange(1024.0)
    for phase in (0.0, 1.0, 2.0):
        found = estimate_spectrum(
            step, sample_ar1(step, 0.5, 1, rng, 1.0)[0] + 0.7 * np.sin(2 * np.pi * step / 64 + phase), n_draws=199
        )
        assert found.line_p_value <= 0.01 and 1 / found.line_frequency == pytest.approx(64, rel=0.05)


def test_irregular_steps_are_no_obstacle() -> None:
    rng = np.random.default_rng(1)
    step = np.cumsum(np.maximum(rng.exponential(10.0, size=500), 0.5))
    wave = np.sin(2 * np.pi * step / 300)
    found = gandiag.losses(
        {"step": step, "generator": wave + 0.5 * rng.standard_normal(500), "discriminator": rng.standard_normal(500)}
    ).document
    assert found["verdict"] == "oscillating" and found["oscillation"]["period"] == pytest.approx(300, rel=0.02)
    assert "Lomb" in found["oscillation"]["method"]


def test_power_on_irregular_steps_is_lomb_scargle() -> None:
    """SciPy fits the mean with each sinusoid, gandiag the parabola too.

    On a series without trend they agree up to the parabola's share, 3 of 300 rows.
    """
    rng = np.random.default_rng(2)
    step = np.cumsum(rng.exponential(size=300) + 0.05)
    value = rng.standard_normal(300) + np.sin(step / 3)
    estimator = make_line_estimator(step)
    value = estimator.remove_trend(value[None])[0]
    expected = lombscargle(step, value, 2 * np.pi * estimator.frequency, floating_mean=True)
    assert np.corrcoef(estimator.compute_power(value[None])[0], expected)[0, 1] > 0.999


def test_white_noise_has_power_one() -> None:
    rng = np.random.default_rng(3)
    for step in (np.arange(400.0), np.cumsum(rng.exponential(size=400) + 0.05)):
        estimator = make_line_estimator(step)
        assert estimator.compute_power(rng.standard_normal((300, 400))).mean() == pytest.approx(
            1, abs=0.02
        )  # 60,000 values of std 1: 5 errors


def test_periods_below_twice_the_logging_interval_are_not_tested() -> None:
    """A cycle of 15 steps, logged every 10: its alias shows, and a note gives the periods that can be detected."""
    step = np.arange(0, 6000, 10.0)
    found = gandiag.losses(
        {"step": step, "generator": np.sin(2 * np.pi * step / 15) + 0.1 * np.random.default_rng(0).standard_normal(600)}
    ).document
    assert found["oscillation"]["band"][0] == pytest.approx(20, rel=0.01) and found["oscillation"]["period"] >= 20
    assert any("others cannot" in note for note in found["notes"])


def test_a_line_once_per_epoch_is_the_order_of_the_data(tmp_path: object) -> None:
    from pathlib import Path

    rng = np.random.default_rng(4)
    noise = 1 + 0.1 * rng.standard_normal((1500, 2))
    rows = "".join(
        f"{i},{i / 50},{noise[i, 0] + 0.3 * math.sin(2 * math.pi * i / 50)},{noise[i, 1]}\n" for i in range(1500)
    )
    path = Path(str(tmp_path)) / "log.csv"
    path.write_text("step,epoch,g_loss,d_loss\n" + rows)
    found = gandiag.losses(path).document
    assert found["oscillation"]["per_epoch"] and found["verdict"] == "settled"


def test_the_same_seed_gives_the_same_document() -> None:
    game = simulate_dirac_gan(400, 0.05)
    series = {"generator": game["theta"], "discriminator": game["psi"]}
    assert gandiag.losses(series).to_json() == gandiag.losses(series).to_json()


@pytest.mark.slow
@pytest.mark.parametrize("irregular", [False, True])
def test_false_alarms_in_full(irregular: bool) -> None:
    """The figures of benchmarks/spectrum.py: every cell within its bounds, the pooled rate within 0.04 to 0.06."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from spectrum import PHIS, alarms

    repeats, low, high = (400, 0.02, 0.10) if irregular else (2000, 0.03, 0.08)
    cells = [alarms(n, phi, repeats, irregular=irregular) for n in (256, 1024) for phi in PHIS]
    assert all(low <= cell <= high for cell in cells), cells
    assert irregular or 0.04 <= sum(cells) / len(cells) <= 0.06
