"""Builds one run's result and the benchmark document (bank.json), and reads numbers from them."""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from gandiag.trainer.benchmark.jobs import BenchmarkJob
from gandiag.trainer.benchmark.statistics import COVERAGE_COLUMNS, estimate_mean, upper_bound
from gandiag.trainer.mode_coverage import measure_coverage
from gandiag.trainer.run_folder import RunFolder
from gandiag.trainer.toy_data import DATASETS, Dataset
from gandiag.trainer.train import COVERAGE_FILE, EVALUATION_SEED, NUM_COVERAGE_SAMPLES
from gandiag.untrusted.files import parse_json, read_text

RESULT_FILE = "result.json"
SCHEMA = "gandiag.bank/1"
NUM_REAL_DRAWS = 5  # independent draws of real data


def build_result(job: BenchmarkJob, folder: RunFolder, audits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one run as data: `looks` has every evaluation of mode coverage, `snapshots` the audits with coverage."""
    coverage = {int(row["step"]): _parse_row(row) for row in folder.read_table(COVERAGE_FILE)}
    config = job.make_config()
    return {
        "study": job.study,
        "recipe": job.recipe,
        "dataset": config.dataset,
        "arm": job.arm,
        "seed": job.seed,
        "steps": job.steps,
        "recipe_steps": config.recipe.steps,
        "shortened": job.shortened,
        "looks": {
            "step": list(coverage),
            **{name: [row[name] for row in coverage.values()] for name in ("variation", "modes", "dominant")},
        },
        "snapshots": [{**audit, "coverage": coverage.get(audit["step"])} for audit in audits],
    }


def collect_results(jobs: Sequence[BenchmarkJob], out: Path) -> dict[str, Any]:
    """Return the results that are there as one document, with the coverage of real data for each dataset."""
    from importlib.metadata import version

    paths = [job.run_folder(out) / RESULT_FILE for job in jobs]
    runs = [parse_json(read_text(path)) for path in paths if path.exists()]
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "scipy")}}
    real = {
        name: coverage
        for name in sorted({run["dataset"] for run in runs})
        if (coverage := measure_real_coverage(DATASETS.get(name)()))
    }
    return {"schema": SCHEMA, "versions": versions, "rebuild": "gandiag bank --out DIR", "runs": runs, "real": real}


def measure_real_coverage(dataset: Dataset) -> dict[str, Any]:
    """Return the coverage of real data, with as many samples as are counted of a generator.

    Each number is a mean over NUM_REAL_DRAWS draws with its interval. Empty if the dataset's modes are unknown.
    """
    import torch

    if dataset.assign_modes is None:
        return {}
    draws = []
    for draw in range(NUM_REAL_DRAWS):
        samples = dataset.draw(NUM_COVERAGE_SAMPLES, torch.Generator().manual_seed(EVALUATION_SEED + draw))
        coverage = measure_coverage(dataset, samples)
        assert coverage is not None
        draws.append(asdict(coverage))
    return {
        name: estimate_mean([draw[name] for draw in draws], maximum=upper_bound(name, dataset.n_modes))
        for name in COVERAGE_COLUMNS
    }


def format_json_by_entry(document: Mapping[str, Any]) -> str:
    """Return JSON with one line per entry of each top-level list, so that a change of one run is a one-line diff."""
    lines = (f" {json.dumps(key)}: {_format_value(value)}" for key, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load_paper_results() -> list[dict[str, Any]]:
    """Return the published results of gandiag/data/published.toml, each with its source."""
    text = files("gandiag.data").joinpath("published.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["row"]
    return rows


def _format_value(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in value) + "\n ]"


def _parse_row(row: Mapping[str, str]) -> dict[str, Any]:
    return {name: json.loads(value) if value else None for name, value in row.items()}
