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
from gandiag.reference.audits import audit_snapshots
from gandiag.reference.coverage import coverage
from gandiag.reference.data import DATASETS, Dataset
from gandiag.reference.estimates import estimate
from gandiag.reference.folder import RunFolder
from gandiag.reference.pairs import COLUMNS, greatest
from gandiag.reference.studies import Job
from gandiag.reference.train import COUNTED, COVERAGE, EVALUATED, train

RESULT = "result.json"
SCHEMA = "gandiag.bank/1"
DRAWS = 5  # of real data
Told = Callable[[Job, str], None]  # a job, and what became of it: "done", "running elsewhere", or why it failed


def run(todo: Sequence[Job], out: Path, workers: int, told: Told = lambda job, what: None) -> list[str]:
    """Run what is not done; what went wrong, one line each. A job that fails leaves the others alone; a killed bank goes on where it was."""
    left = [job for job in todo if not (job.folder(out) / RESULT).exists()]
    if workers <= 1:
        return [line for job in left if (line := _tell(job, run_job(job, out), told))]
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    problems = []
    with ProcessPoolExecutor(min(workers, max(1, len(left))), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, out): job for job in left}
        for future in as_completed(futures):
            problems.append(_tell(futures[future], future.result(), told))
    return [line for line in problems if line]


def run_job(job: Job, out: Path) -> str:
    """Train, audit the snapshots, write result.json; "done", "running elsewhere", or why it failed."""
    import torch

    torch.set_num_threads(1)
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as free:
        if not free:
            return "running elsewhere"
        try:
            plan = job.plan()
            data = DATASETS.get(plan.dataset)()
            finished = train(plan, folder)
            audits = audit_snapshots(finished, data)
            finished.write(RESULT, json.dumps(result(job, finished, audits), indent=1) + "\n")
        except GandiagError as problem:
            return f"failed: {problem.what}"
    return "done"


def result(job: Job, folder: RunFolder, audits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One run as data: `looks`, every time that modes were counted; `snapshots`, with their audits."""
    counted = {int(row["step"]): _numbers(row) for row in folder.table(COVERAGE)}
    snapshots = [{**audit, "coverage": counted.get(audit["step"])} for audit in audits]
    looks = {name: [row[name] for row in counted.values()] for name in ("variation", "modes", "dominant")}
    plan = job.plan()
    about = {"study": job.study, "recipe": job.recipe, "dataset": plan.dataset, "arm": job.arm, "seed": job.seed, "steps": job.steps,
             "recipe_steps": plan.recipe.steps, "shortened": job.shortened}  # fmt: skip
    return {**about, "looks": {"step": list(counted), **looks}, "snapshots": snapshots}


def gather(every: Sequence[Job], out: Path) -> dict[str, Any]:
    """The results that are there, as one document."""
    from importlib.metadata import version

    files = [job.folder(out) / RESULT for job in every]
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    made = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "scipy")}}
    real = {name: found for name in sorted({run["dataset"] for run in runs}) if (found := floor(DATASETS.get(name)()))}
    return {"schema": SCHEMA, "versions": made, "rebuild": "gandiag bank --out DIR", "runs": runs, "real": real}


def floor(data: Dataset) -> dict[str, Any]:
    """What real data reach when as many samples are counted as of a generator: each count's mean over DRAWS draws; {} where nobody reads modes."""
    import torch

    counts = [coverage(data, data.draw(COUNTED, torch.Generator().manual_seed(EVALUATED + draw))) for draw in range(DRAWS)]
    known = [asdict(entry) for entry in counts if entry is not None]
    return {name: estimate([entry[name] for entry in known], most=greatest(name, data.modes)) for name in COLUMNS} if known else {}


def _tell(job: Job, what: str, told: Told) -> str:
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
