"""The bank of baselines: runs every job that is not done, in processes of one thread each, and gathers one table."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gandiag.errors import GandiagError
from gandiag.trainer.benchmark_jobs import BenchmarkJob
from gandiag.trainer.mode_coverage import measure_coverage
from gandiag.trainer.paired_differences import COVERAGE_COLUMNS, upper_bound
from gandiag.trainer.run_folder import RunFolder
from gandiag.trainer.seed_means import estimate_mean
from gandiag.trainer.snapshot_audits import audit_snapshots
from gandiag.trainer.toy_data import DATASETS, Dataset
from gandiag.trainer.train import COVERAGE_FILE, EVALUATION_SEED, NUM_COVERAGE_SAMPLES, train

RESULT_FILE = "result.json"
SCHEMA = "gandiag.bank/1"
NUM_REAL_DRAWS = 5  # of real data
JobCallback = Callable[
    [BenchmarkJob, str], None
]  # a job, and what became of it: "done", "running elsewhere", or why it failed


def run_jobs(
    jobs: Sequence[BenchmarkJob], out: Path, workers: int, on_job_done: JobCallback = lambda job, what: None
) -> list[str]:
    """Run what is not done; what went wrong, one line each. A job that fails leaves the others alone; a killed bank goes on where it was."""
    left = [job for job in jobs if not (job.run_folder(out) / RESULT_FILE).exists()]
    if workers <= 1:
        return [line for job in left if (line := _tell(job, run_job(job, out), on_job_done))]
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    problems = []
    with ProcessPoolExecutor(min(workers, max(1, len(left))), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, out): job for job in left}
        for future in as_completed(futures):
            problems.append(_tell(futures[future], future.result(), on_job_done))
    return [line for line in problems if line]


def run_job(job: BenchmarkJob, out: Path) -> str:
    """Train, audit the snapshots, write result.json; "done", "running elsewhere", or why it failed."""
    import torch

    torch.set_num_threads(1)
    folder = job.run_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as free:
        if not free:
            return "running elsewhere"
        try:
            plan = job.make_config()
            data = DATASETS.get(plan.dataset)()
            finished = train(plan, folder)
            audits = audit_snapshots(finished, data)
            finished.write(RESULT_FILE, json.dumps(build_result(job, finished, audits), indent=1) + "\n")
        except GandiagError as problem:
            return f"failed: {problem.message}"
    return "done"


def build_result(job: BenchmarkJob, folder: RunFolder, audits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One run as data: `looks`, every time that modes were counted; `snapshots`, with their audits."""
    counted = {int(row["step"]): _numbers(row) for row in folder.read_table(COVERAGE_FILE)}
    snapshots = [{**audit, "coverage": counted.get(audit["step"])} for audit in audits]
    looks = {name: [row[name] for row in counted.values()] for name in ("variation", "modes", "dominant")}
    plan = job.make_config()
    about = {
        "study": job.study,
        "recipe": job.recipe,
        "dataset": plan.dataset,
        "arm": job.arm,
        "seed": job.seed,
        "steps": job.steps,
        "recipe_steps": plan.recipe.steps,
        "shortened": job.shortened,
    }
    return {**about, "looks": {"step": list(counted), **looks}, "snapshots": snapshots}


def collect_results(jobs: Sequence[BenchmarkJob], out: Path) -> dict[str, Any]:
    """The results that are there, as one document."""
    from importlib.metadata import version

    files = [job.run_folder(out) / RESULT_FILE for job in jobs]
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    made = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "scipy")}}
    real = {
        name: found
        for name in sorted({run["dataset"] for run in runs})
        if (found := measure_real_coverage(DATASETS.get(name)()))
    }
    return {"schema": SCHEMA, "versions": made, "rebuild": "gandiag bank --out DIR", "runs": runs, "real": real}


def measure_real_coverage(dataset: Dataset) -> dict[str, Any]:
    """What real data reach when as many samples are counted as of a generator: each count's mean over DRAWS draws; {} where nobody reads modes."""
    import torch

    counts = [
        measure_coverage(
            dataset, dataset.draw(NUM_COVERAGE_SAMPLES, torch.Generator().manual_seed(EVALUATION_SEED + draw))
        )
        for draw in range(NUM_REAL_DRAWS)
    ]
    known = [asdict(entry) for entry in counts if entry is not None]
    return (
        {
            name: estimate_mean([entry[name] for entry in known], maximum=upper_bound(name, dataset.modes))
            for name in COVERAGE_COLUMNS
        }
        if known
        else {}
    )


def _tell(job: BenchmarkJob, what: str, told: JobCallback) -> str:
    told(job, what)
    return "" if what == "done" else f"{job.study} {job.arm} seed {job.seed}: {what}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder for itself; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield True
        return
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    return {name: json.loads(value) if value else None for name, value in row.items()}
