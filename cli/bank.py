"""gandiag bank: the baselines, all of them, resumable."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gandiag.errors import ExitCode, RecordError

from . import console


@click.command("bank", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="folder of the bank; what is done there is skipped",
)
@click.option("--study", "only", metavar="NAME", help="one study of gandiag/data/bank.toml  [default: all]")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="processes, one torch thread each  [default: one a core]"
)
@click.option("--dry-run", is_flag=True, help="list the jobs and what is done, and stop")
@click.option("--gather", "only_gather", is_flag=True, help="write the table of what is done, and run nothing")
@click.option("-q", "--quiet", count=True, help="no progress (-q), nothing at all (-qq)")
@click.option("--debug", is_flag=True, help="show tracebacks")
def bank_command(
    out: Path, only: str | None, workers: int | None, dry_run: bool, only_gather: bool, quiet: int, debug: bool
) -> int:
    """Train every recipe under every remedy from every seed, audit all snapshots, and write one table.

    The same command goes on after any interruption, and on a cluster each process takes its share by RANK and WORLD_SIZE (or
    SLURM_PROCID and SLURM_NTASKS). Writes bank.json, bank.md and bank.png.
    """
    console.configure_output(quiet=quiet, debug=debug)
    from gandiag.trainer.benchmark import RESULT_FILE, collect_results, run_jobs
    from gandiag.trainer.benchmark_jobs import BenchmarkJob, list_jobs, select_jobs_for_rank

    every = list_jobs(only)
    mine = select_jobs_for_rank(every)
    if dry_run:
        console.print_result(
            "\n".join(
                f"{'done' if (job.run_folder(out) / RESULT_FILE).exists() else 'open'}  {job.run_folder(out)}  {job.steps:,} steps"
                for job in mine
            )
        )
        return ExitCode.OK
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RecordError(f"{out} cannot be made: {problem.strerror}", "choose another --out") from None
    problems: list[str] = []
    if not only_gather:
        done = sum((job.run_folder(out) / RESULT_FILE).exists() for job in mine)
        with console.show_progress() as on_progress:
            on_progress("bank", done, len(mine))

            def told(job: BenchmarkJob, what: str) -> None:
                nonlocal done
                done += 1
                on_progress("bank", done, len(mine))
                console.print_info(f"{job.study} {job.arm} seed {job.seed}: {what}")

            problems = run_jobs(mine, out, workers or os.cpu_count() or 1, told)
    _write(collect_results(every, out), out)
    for line in problems:
        console.print_warning(line)
    return ExitCode.CANNOT_RUN if any(": failed" in line for line in problems) else ExitCode.OK


def _write(found: dict[str, object], out: Path) -> None:
    from gandiag.trainer.benchmark_tables import (
        format_json_by_entry,
        load_paper_results,
        render_figure,
        render_markdown,
        summarize_runs,
    )
    from gandiag.trainer.run_folder import RunFolder

    folder = RunFolder(out)
    text = render_markdown(found)
    document = {**found, "summaries": summarize_runs(found), "published": load_paper_results()}
    written = [
        folder.write("bank.json", format_json_by_entry(document)),
        folder.write("bank.md", text),
        folder.write("bank.png", render_figure(found)),
    ]
    console.print_result(text + "\nwrote " + " · ".join(map(str, written)))
