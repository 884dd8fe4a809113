"""Runs every job of the benchmark that is not done, in processes of one thread each."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from gandiag.errors import GandiagError
from gandiag.trainer.benchmark.jobs import BenchmarkJob
from gandiag.trainer.benchmark.results import RESULT_FILE, build_result
from gandiag.trainer.run_folder import lock_folder
from gandiag.trainer.snapshot_audits import audit_snapshots
from gandiag.trainer.toy_data import DATASETS
from gandiag.trainer.train import train
from gandiag.untrusted.files import make_own_folders

_PARENT_INTERVAL = 1.0  # seconds between looks for the parent
DONE, RUNNING_ELSEWHERE, FAILED = "done", "running elsewhere", "failed"
JobCallback = Callable[[BenchmarkJob, str], None]  # a job and its outcome: one of the above; failures add the reason


def is_done(job: BenchmarkJob, out: Path) -> bool:
    """Return whether the job's result is there."""
    return (job.run_folder(out) / RESULT_FILE).exists()


def run_jobs(
    jobs: Sequence[BenchmarkJob], out: Path, workers: int, on_job_done: JobCallback = lambda job, outcome: None
) -> list[str]:
    """Run every job that is not done, and return one line per job that did not finish.

    A failing job does not stop the others, and an interrupted benchmark resumes where it stopped.
    """
    pending = [job for job in jobs if not is_done(job, out)]
    problems = []

    def report(job: BenchmarkJob, outcome: str) -> None:
        on_job_done(job, outcome)
        if outcome != DONE:
            problems.append(f"{job.study} {job.arm} seed {job.seed}: {outcome}")

    if workers <= 1:
        for job in pending:
            report(job, run_job(job, out))
        return problems
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    n_workers = min(workers, max(1, len(pending)))
    with ProcessPoolExecutor(n_workers, context, initializer=_follow_parent, initargs=(os.getpid(),)) as pool:
        try:
            futures = {pool.submit(run_job, job, out): job for job in pending}
            for future in as_completed(futures):
                report(futures[future], future.result())
        except BaseException:  # Ctrl-C, above all: the jobs resume where they stopped
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    return problems


def _follow_parent(parent: int) -> None:
    """In a worker: end with the parent, however that ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_job(job: BenchmarkJob, out: Path) -> str:
    """Train, audit the snapshots and write result.json. Returns the outcome; see `JobCallback`."""
    import torch

    torch.set_num_threads(1)
    folder = job.run_folder(out)
    try:
        make_own_folders(out, folder)
    except OSError as error:
        return f"{FAILED}: {folder} cannot be used: {error.strerror}"
    with lock_folder(folder, ".bank.lock") as is_locked:
        if not is_locked:
            return RUNNING_ELSEWHERE
        try:
            config = job.make_config()
            run_folder = train(config, folder)
            audits = audit_snapshots(run_folder, DATASETS.get(config.dataset)())
            run_folder.write(RESULT_FILE, json.dumps(build_result(job, run_folder, audits), indent=1) + "\n")
        except GandiagError as error:
            return f"{FAILED}: {error.message}"
    return DONE
