"""gandiag bank: runs the benchmark of recipes, remedies and seeds, resumable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gandiag.errors import ExitCode, RecordError

from . import console

if TYPE_CHECKING:
    from gandiag.trainer.benchmark.jobs import BenchmarkJob


@click.command("bank", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="output folder; runs that are done there are skipped",
)
@click.option("--study", metavar="NAME", help="run one study of gandiag/data/bank.toml  [default: all]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="processes, one torch thread each  [default: one per core]",
)
@click.option("--dry-run", is_flag=True, help="list the jobs and which are done, and stop")
@click.option("--gather", "collect_only", is_flag=True, help="write the table of finished runs, and run nothing")
@click.option("-q", "--quiet", count=True, help="no progress (-q), no output at all (-qq)")
@click.option("--debug", is_flag=True, help="show tracebacks")
def bank_command(
    out: Path, study: str | None, workers: int | None, dry_run: bool, collect_only: bool, quiet: int, debug: bool
) -> int:
    """Train every recipe under every remedy from every seed, audit all snapshots, and write one table.

    Run the same command again to resume after an interruption. On a cluster, each process takes its share by RANK and
    WORLD_SIZE (or SLURM_PROCID and SLURM_NTASKS). Writes bank.json, bank.md and bank.png.
    """
    console.configure_output(quiet=quiet, debug=debug)
    from gandiag.trainer.benchmark.jobs import list_jobs, select_jobs_for_rank
    from gandiag.trainer.benchmark.results import collect_results
    from gandiag.trainer.benchmark.runner import FAILED, is_done

    all_jobs = list_jobs(study)
    jobs = select_jobs_for_rank(all_jobs)
    if dry_run:
        lines = (
            f"{'done' if is_done(job, out) else 'open'}  {job.run_folder(out)}  {job.steps:,} steps" for job in jobs
        )
        console.print_result("\n".join(lines))
        return ExitCode.OK
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{out} cannot be created: {error.strerror}", "choose another --out") from None
    problems = [] if collect_only else _run_with_progress(jobs, out, workers or os.cpu_count() or 1)
    _write_documents(collect_results(all_jobs, out), out)
    for line in problems:
        console.print_warning(line)
    return ExitCode.CANNOT_RUN if any(f": {FAILED}" in line for line in problems) else ExitCode.OK


def _run_with_progress(jobs: Sequence[BenchmarkJob], out: Path, workers: int) -> list[str]:
    """Run the jobs that are not done, and return one line per job that did not finish."""
    from gandiag.trainer.benchmark.runner import is_done, run_jobs

    n_done = sum(is_done(job, out) for job in jobs)
    with console.show_progress() as on_progress:
        on_progress("bank", n_done, len(jobs))

        def on_job_done(job: BenchmarkJob, outcome: str) -> None:
            nonlocal n_done
            n_done += 1
            on_progress("bank", n_done, len(jobs))
            console.print_info(f"{job.study} {job.arm} seed {job.seed}: {outcome}")

        return run_jobs(jobs, out, workers, on_job_done)


def _write_documents(benchmark: dict[str, Any], out: Path) -> None:
    from gandiag.trainer.benchmark.results import format_json_by_entry, load_paper_results
    from gandiag.trainer.benchmark.statistics import summarize_runs
    from gandiag.trainer.benchmark.tables import render_figure, render_markdown
    from gandiag.trainer.run_folder import RunFolder

    folder = RunFolder(out)
    markdown = render_markdown(benchmark)
    document = {**benchmark, "summaries": summarize_runs(benchmark), "published": load_paper_results()}
    written = [
        folder.write("bank.json", format_json_by_entry(document)),
        folder.write("bank.md", markdown),
        folder.write("bank.png", render_figure(benchmark)),
    ]
    console.print_result(markdown + "\nwrote " + " · ".join(map(str, written)))
