"""Example Records for tests of verdicts and reports, one per outcome. Torch-free.

    healthy · collapsed (partial, with every section filled) · complete · wrong_scale · inconclusive · degeneracy
    vectors · hostile (every string is an attack) · bare (the minimal Record)

Numbers are invented but consistent: intervals contain their values, shares add up, exhibits decode.
"""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gandiag.record import Exhibit, Finding, Measurement, Record, Score

SCALES = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
ATTACK = "</script><img src=x onerror=alert(1)>\x1b[31m[bold red]red[/]\u202e{{7*7}}\nsecond line"

REMEDIES = (
    {
        "key": "minibatch_stddev",
        "title": "minibatch standard deviation in the discriminator",
        "why": "it lets the discriminator see that samples repeat",
        "source": "Karras et al. 2018, §3",
        "price": "under 1 % of the time, one layer",
    },
    {
        "key": "packing",
        "title": "packed discriminator, two samples at once",
        "why": "repeats become visible inside a pack",
        "source": "Lin et al. 2018",
        "price": "the discriminator's first layer is twice as wide",
    },
    {
        "key": "ada",
        "title": "adaptive augmentation",
        "why": "the discriminator has memorized the data",
        "source": "Karras et al. 2020",
        "price": "10 % of the time",
    },
    {
        "key": "r1",
        "title": "R1 gradient penalty",
        "why": "it damps the cycle of the two losses",
        "source": "Mescheder et al. 2018",
        "price": "a second backward pass",
    },
)


def share(value: float, spread: float = 0.03) -> dict[str, float]:
    """{value, low, high} within [0, 1]."""
    return {"value": value, "low": max(value - spread, 0.0), "high": min(value + spread, 1.0)}


def draw_image(hue: float, position: float, size: int = 32) -> NDArray[np.uint8]:
    """A small image, (size, size, 3) uint8: a soft disc of this hue at this position on a dark background."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    distance = np.hypot(x - 0.3 - 0.4 * position, y - 0.5 - 0.2 * math.sin(9 * position))
    disc = np.clip((0.27 - distance) / 0.06, 0, 1)[..., None]
    color = np.array(colorsys.hsv_to_rgb(hue % 1, 0.55, 0.93))
    background = np.array([0.15, 0.17, 0.2]) + 0.1 * y[..., None]
    return np.asarray(255 * (disc * color + (1 - disc) * background), dtype=np.uint8)


def image_grid(hues: Sequence[Sequence[float]], size: int = 32) -> dict[str, Any]:
    """The data of an image exhibit: a grid of images as PNG in base64. `hues`: one row of hues per row of tiles."""
    from PIL import Image

    rows = [
        np.concatenate([draw_image(hue, (5 * hue + 0.37 * index) % 1, size) for index, hue in enumerate(row)], axis=1)
        for row in hues
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, "PNG", optimize=True)
    return {
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "columns": len(hues[0]),
        "rows": len(hues),
        "tile": size,
    }


def exhibits(*, few: bool) -> tuple[Exhibit, ...]:
    """The exhibits of an image audit. `few`: from a generator that produces few hues."""
    hues = (
        np.random.default_rng(0).choice([0.02, 0.06, 0.55], size=(6, 12))
        if few
        else np.random.default_rng(1).random((6, 12))
    )
    edges, centers = np.linspace(0, 2, 41), np.linspace(0.025, 1.975, 40)
    bell = {
        "real": np.exp(-((centers - 1.2) ** 2) / 0.06),
        "fake": np.exp(-((centers - (0.7 if few else 1.15)) ** 2) / 0.08),
    }
    counts = {name: [round(1000 * float(height)) for height in line] for name, line in bell.items()}
    return (
        Exhibit("samples", "image", "72 samples at scale 1, latents 0 to 71", image_grid(hues.tolist())),
        Exhibit(
            "scales",
            "image",
            "The same 8 latents at every scale; rows: 0.02, 0.25, 1, 2",
            image_grid([[0.05 + scale * 0.02 * index for index in range(8)] for scale in (0.02, 0.25, 1, 2)]),
        ),
        Exhibit("pairs", "image", "The most similar pairs among 2,000 samples", image_grid([[0.02] * 6, [0.02] * 6])),
        Exhibit(
            "clusters",
            "image",
            "Clusters by share of the real data: 61%, 30%, 9% (the largest 3 of 10); one row each, "
            "real on the left, generated on the right",
            image_grid([[hue] * 8 for hue in (0.02, 0.06, 0.55)]),
        ),
        Exhibit(
            "missed",
            "image",
            "Real samples of the modes that are never generated",
            image_grid([[0.3 + 0.05 * index for index in range(8)]]),
        ),
        Exhibit(
            "response",
            "series",
            "Spread of the samples over the latent scale",
            {
                "x": list(SCALES),
                "lines": {
                    "spread": [min(scale, 1.1) for scale in SCALES],
                    "duplicated": [max(0.0, 0.8 - scale) for scale in SCALES],
                },
            },
        ),
        Exhibit("distances", "histogram", "Distances between samples", {"edges": edges.tolist(), "counts": counts}),
    )


def subject(**changes: Any) -> dict[str, Any]:
    """A DCGAN for 32-pixel images."""
    return {
        "path": "runs/042/generator.pt",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "loader": "state dict",
        "family": "dcgan",
        "parameters": 3_576_704,
        "latent": {
            "dim": 100,
            "prior": "normal",
            "scale": 1.0,
            "trained_scale": {"value": 0.98, "low": 0.91, "high": 1.06, "source": "batch-norm statistics"},
        },
        "output": {"kind": "image", "shape": [3, 32, 32], "range": [-1.0, 1.0]},
        "classes": None,
        "weights": "ema",
        "assumptions": [
            {"what": "latent prior", "value": "normal", "source": "default"},
            {"what": "hidden activation", "value": "relu", "source": "family"},
        ],
    } | changes


PROVENANCE: dict[str, Any] = {
    "versions": {"gandiag": "0.1.0", "torch": "2.14.1", "python": "3.12.3"},
    "device": "cpu",
    "seed": 0,
    "seconds": {"sample": 9.4, "features": 28.1, "score": 3.2, "probes": 5.9},
    "features": {"imagenet@128": "efficientnet-lite0:0c4b6f2d"},
    "config": {
        "budget": {"value": "standard", "source": "default"},
        "real": {"value": "data/shapes", "source": "flag"},
    },
}


def measurements(*, few: bool) -> dict[str, Measurement]:
    """The measurements of an audit with real data. `few`: as in `exhibits`."""
    return {
        "recall": Measurement(
            0.31 if few else 0.83, 0.28 if few else 0.81, 0.34 if few else 0.85, 0.86, "", "higher", 2000
        ),
        "precision": Measurement(0.84, 0.82, 0.86, 0.86, "", "higher", 2000),
        "near_duplicates": Measurement(
            0.214 if few else 0.0012, 0.19 if few else 0.0, 0.24 if few else 0.003, 0.001, "share", "lower", 2000
        ),
        "effective_rank": Measurement(11.7 if few else 48.2, 10.9, 12.4 if few else 51.0, 52.3, "", "higher", 2000),
        "frechet[imagenet]": Measurement(
            41.8 if few else 6.3, 40.2 if few else 5.9, 43.9 if few else 6.8, 2.1, "", "lower", 2000
        ),
        "vendi": Measurement(23.4, 22.1, 24.6, 61.0, "effective samples", "higher", 2000),
        "parameters": Measurement(3_576_704, unit="", n=0),
        "fid": Measurement.missing(
            "the Inception weights are not on this machine; --metrics fid --download fetches them"
        ),
        "inception_score": Measurement.missing(
            "the Inception weights are not on this machine; --metrics fid --download fetches them"
        ),
        "duality_gap": Measurement.missing("the file holds no discriminator"),
    }


def response() -> dict[str, Any]:
    """A latent sweep."""
    points = [
        {
            "scale": scale,
            "spread": min(scale, 1.1),
            "duplicated": max(0.0, round(0.8 - scale, 3)),
            "fidelity": round(math.exp(-abs(scale - 1)), 3),
        }
        for scale in SCALES
    ]
    return {"axis": "scale", "reason": None, "points": points}


def profile(missing: float, skewed: float, narrowed: float, duplicated: float, off: float) -> dict[str, Any]:
    return {
        "missing": share(missing),
        "skewed": share(skewed),
        "narrowed": share(narrowed),
        "duplicated": share(duplicated),
        "off_manifold": share(off),
    }


def aspects(color: float, texture: float, layout: float, semantics: float) -> dict[str, Any]:
    return {"color": share(color), "texture": share(texture), "layout": share(layout), "semantics": share(semantics)}


def healthy() -> Record:
    """All the variety of the data."""
    return Record(
        "healthy",
        (),
        Score(0.03, 0.0, 0.08, power=0.06, n_fake=2000, n_real=4000, replicates=(0.02, 0.03, 0.05)),
        subject(),
        measurements(few=False),
        profile=profile(0.02, 0.03, 0.01, 0.0, 0.04),
        aspects=aspects(0.02, 0.03, 0.01, 0.02),
        modes={"found": 10, "covered": 10, "effective": 9.7, "stability": 0.97, "missed": []},
        response=response(),
        exhibits=exhibits(few=False),
        findings=(
            Finding(
                "GD000", "note", "all ten modes of the data are covered in proportion", {"covered": 10, "found": 10}
            ),
        ),
        policy={"limit": 0.15},
        provenance=PROVENANCE,
    )


def collapsed() -> Record:
    """Partial collapse, with every section of a Record filled."""
    findings = (
        Finding("GD304", "note", "samples resemble the real data: fidelity is not the problem", {"precision": 0.84}),
        Finding(
            "GD101",
            "error",
            "four of ten modes of the data are never generated, together 41 % of the real data",
            {"covered": 6, "found": 10, "largest missed": {"mode": 7, "share": 0.12}},
            REMEDIES,
        ),
        Finding(
            "GD201",
            "warning",
            "one sample in five has a near-copy among the others",
            {"near_duplicates": share(0.214), "floor": 0.001},
            REMEDIES[:1],
        ),
    )
    missed = [
        {"mode": mode, "share_real": fraction, "share_fake": 0.0, "exhibit": "missed"}
        for mode, fraction in ((7, 0.12), (2, 0.1), (9, 0.1), (4, 0.09))
    ]
    return Record(
        "collapsed",
        ("partial", "mode_dropping", "recycled"),
        Score(0.48, 0.44, 0.52, power=0.06, n_fake=2000, n_real=4000, replicates=(0.46, 0.48, 0.5)),
        subject(),
        measurements(few=True),
        profile=profile(0.41, 0.12, 0.08, 0.21, 0.05),
        aspects=aspects(0.46, 0.11, 0.07, 0.38),
        modes={"found": 10, "covered": 6, "effective": 3.9, "stability": 0.93, "missed": missed},
        classes=tuple(
            {"label": label, "score": value, "low": max(value - 0.06, 0), "high": min(value + 0.06, 1)}
            for label, value in (("plus_dark", 0.97), ("bars_bright", 0.61), ("disc_bright", 0.04))
        ),
        response=response(),
        exhibits=exhibits(few=True),
        findings=findings,
        policy={"limit": 0.15, "accept": ["healthy"]},
        provenance=PROVENANCE,
        training={
            "schema": "gandiag.losses/1",
            "verdict": "oscillating",
            "columns": {"step": "step", "generator": "loss_g", "discriminator": "loss_d"},
            "oscillation": {
                "p_value": 0.001,
                "period": 512,
                "amplitude": 0.71,
                "coherence": 0.88,
                "phase": 1.6,
                "start": 3000,
            },
            "events": [{"step": 3000, "kind": "oscillating", "evidence": "period 512"}],
            "read": {"format": "csv", "rows": 20000, "skipped": 0},
        },
    )


def complete() -> Record:
    """Every sample is the same."""
    return replace(
        collapsed(),
        kinds=("complete", "recycled"),
        score=Score(1.0, 0.99, 1.0, power=0.06, n_fake=2000, n_real=4000),
        profile=profile(0.98, 0.9, 0.99, 1.0, 0.3),
        aspects=aspects(0.99, 0.98, 1.0, 1.0),
        modes={"found": 10, "covered": 0, "effective": 1.0, "stability": 0.93, "missed": []},
        classes=(),
        training=None,
    )


def wrong_scale() -> Record:
    """Trained at 0.02, sampled at 1; healthy at the trained scale."""
    latent = {
        "dim": 100,
        "prior": "normal",
        "scale": 1.0,
        "trained_scale": {"value": 0.021, "low": 0.018, "high": 0.025, "source": "batch-norm statistics"},
    }
    finding = Finding(
        "GD401",
        "error",
        "wrong scale, not collapse: sampled at 1, trained at 0.021; sample with --scale 0.021",
        {"score at 1": share(0.93), "score at 0.021": share(0.04)},
        (
            {
                "key": "scale",
                "title": "sample with z × 0.021",
                "why": "it is the scale used in training",
                "price": "none",
            },
        ),
    )
    return replace(healthy(), kinds=("wrong_scale",), subject=subject(latent=latent), findings=(finding,))


def inconclusive() -> Record:
    """Too few samples for a verdict."""
    return replace(
        healthy(),
        verdict="inconclusive",
        score=Score(0.14, 0.08, 0.21, power=0.19, n_fake=300, n_real=300),
        findings=(
            Finding(
                "GD002",
                "warning",
                "300 samples are too few to distinguish 0.08 from 0.21",
                {"n_fake": 300, "n_real": 300},
            ),
        ),
    )


def degeneracy() -> Record:
    """No real data."""
    measured = {"near_duplicates": Measurement(0.002, 0.0, 0.004, None, "share", "lower", 2000, reason="no real data")}
    return Record(
        "not_degenerate",
        (),
        Score(0.01, 0.0, 0.03, basis="degeneracy", n_fake=2000),
        subject(),
        measured | {key: Measurement.missing("needs real data: --real") for key in ("recall", "precision", "modes")},
        profile={"duplicated": share(0.01)},
        classes=(
            {
                "label": "3",
                "score": None,
                "low": None,
                "high": None,
                "method": "no real data of this class",
                "n": 200,
                "spread": 0.61,
                "spread_low": 0.55,
                "spread_high": 0.7,
            },
        ),
        response=response(),
        exhibits=exhibits(few=False)[:2],
        policy={"limit": 0.15},
        provenance=PROVENANCE | {"remarks": ["2,000 samples were kept of 2,048"], "doubts": []},
    )


def vectors() -> Record:
    """A ring of Gaussians with two modes missing; points instead of images."""
    rng = np.random.default_rng(0)
    modes = {"real": np.arange(8), "fake": np.arange(6)}
    clouds = {
        name: (rng.choice(kept, 400) * math.pi / 4, rng.normal(0, 0.05, (2, 400))) for name, kept in modes.items()
    }
    lines = {
        name: {"x": (np.cos(angle) + noise[0]).tolist(), "y": (np.sin(angle) + noise[1]).tolist()}
        for name, (angle, noise) in clouds.items()
    }
    about = subject(
        path="ring.npz",
        loader="samples",
        family=None,
        parameters=None,
        latent=None,
        output={"kind": "vector", "shape": [2], "range": None},
        assumptions=[],
    )
    return Record(
        "collapsed",
        ("partial", "mode_dropping"),
        Score(0.26, 0.22, 0.3, power=0.05, n_fake=2000, n_real=4000),
        about,
        {"recall": Measurement(0.74, 0.71, 0.77, 0.95, "", "higher", 2000)},
        profile=profile(0.25, 0.26, 0.02, 0.0, 0.01),
        modes={"found": 8, "covered": 6, "effective": 5.9, "stability": 1.0, "missed": []},
        response={"axis": None, "reason": "a file of samples has no latent", "points": []},
        exhibits=(Exhibit("scatter", "series", "Real and generated points", {"lines": lines, "marks": "points"}),),
        findings=(
            Finding(
                "GD101", "error", "two of eight modes are never generated", {"covered": 6, "found": 8}, REMEDIES[:2]
            ),
        ),
        provenance=PROVENANCE,
    )


def hostile() -> Record:
    """Every string comes from an attacker."""
    base = collapsed()
    return replace(
        base,
        kinds=(*base.kinds, ATTACK),
        measurements={ATTACK: Measurement(0.5, 0.4, 0.6, unit=ATTACK, n=3), "b" + ATTACK: Measurement.missing(ATTACK)},
        subject=subject(
            path=ATTACK,
            family=ATTACK,
            loader=ATTACK,
            weights=ATTACK,
            sha256=ATTACK,
            assumptions=[{"what": ATTACK, "value": ATTACK, "source": ATTACK}],
        ),
        findings=(
            Finding(
                ATTACK,
                "error",
                ATTACK,
                {ATTACK: ATTACK},
                ({"key": ATTACK, "title": ATTACK, "why": ATTACK, "price": ATTACK, "source": ATTACK},),
            ),
        ),
        classes=({"label": ATTACK, "score": 0.5},),
        profile={ATTACK: share(0.5)},
        aspects={ATTACK: share(0.5)},
        provenance={"device": ATTACK, "versions": {ATTACK: ATTACK}},
        exhibits=(
            Exhibit(ATTACK, "series", ATTACK, {"x": [0, 1, 2], "lines": {ATTACK: [0, 1, 2]}}),
            Exhibit("broken", "image", ATTACK, {"png": ATTACK, "columns": 1, "rows": 1, "tile": 8}),
        ),
        modes={"found": 3, "covered": 2, "missed": [{"mode": ATTACK, "share_real": 0.1, "share_fake": 0.0}]},
        training={"verdict": ATTACK, "events": [{"step": 1, "kind": ATTACK, "evidence": ATTACK}]},
        response={"axis": ATTACK, "reason": ATTACK, "points": [{ATTACK: 1.0, "spread": 0.5}]},
    )


def bare() -> Record:
    """The minimal Record."""
    return Record("inconclusive", (), Score(None, None, None), {}, {})


ALL = {
    make.__name__: make
    for make in (healthy, collapsed, complete, wrong_scale, inconclusive, degeneracy, vectors, hostile, bare)
}
