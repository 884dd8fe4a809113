"""gandiag train: the reference trainer, from a data set, a recipe, a remedy and a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gandiag.errors import ConfigError, ExitCode

from . import console
from .train_progress import TrainingProgress


@click.command("train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset", metavar="[DATASET]", required=False)
@click.option(
    "--recipe", metavar="NAME", help="settings of a published experiment  [default: the first for the data set]"
)
@click.option("--remedy", metavar="NAME[+NAME]", help="one remedy, or several joined with +  [default: none]")
@click.option(
    "--unroll", type=int, metavar="K", help="steps of D that G looks ahead, with the remedy unrolled  [default: 10]"
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="seed of weights, latents and data"
)
@click.option("--steps", type=int, metavar="N", help="steps of G  [default: the recipe's]")
@click.option(
    "--z-scale", type=float, metavar="X", help="what the latents of the training are multiplied by  [default: 1]"
)
@click.option("--snapshots", type=click.IntRange(min=1), metavar="N", help="snapshots that are kept  [default: 10]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="folder of the run; a run that is there goes on",
)
@click.option(
    "--audit/--no-audit", "audited", default=True, help="audit every snapshot against the real data  [default: audit]"
)
@click.option("--data", metavar="FOLDER", help="real samples for your own networks, in place of DATASET")
@click.option("--generator", metavar="PKG.MOD:G", help="your generator: a class, or a function that returns one")
@click.option("--discriminator", metavar="PKG.MOD:D", help="your discriminator, to one logit a sample")
@click.option("--init", multiple=True, metavar="K=V", help="argument of both (repeatable)")
@click.option("-q", "--quiet", count=True, help="no progress (-q), nothing at all (-qq)")
@click.option("--debug", is_flag=True, help="show tracebacks")
def train_command(dataset: str | None, out: Path, audited: bool, quiet: int, debug: bool, **ask: Any) -> int:
    """Train a small GAN on DATASET, with or without a remedy, and audit its snapshots.

    \b
    gandiag train ring8 --out vanilla                        loses modes
    gandiag train ring8 --remedy unrolled --out unrolled     keeps them
    gandiag audit unrolled/generator.safetensors             needs no flag
    gandiag train --data photos/ --generator my.nets:G --discriminator my.nets:D --out tried
                                                             your own networks under each remedy: which one helps?

    The same command goes on where it was stopped, with the same result to the bit. Exit code 0 when training finished,
    whatever its audits say; 2 where it could not run, or diverged.
    """
    console.configure_output(quiet=quiet, debug=debug)
    import torch

    from gandiag.trainer.run_config import make_run_config
    from gandiag.trainer.run_report import PAGE_FILE, TABLE_HEADER, format_run_title, format_table, write_report
    from gandiag.trainer.toy_data import DATASETS
    from gandiag.trainer.train import LOG_FILE
    from gandiag.trainer.train import train as run

    torch.set_num_threads(1)
    own = {name: ask.pop(name) for name in ("data", "generator", "discriminator", "init")}
    if any(own.values()):
        from .train_custom import compare_custom_models

        compare_custom_models(own, out, ask, quiet > 0)
        return ExitCode.OK
    if dataset is None:
        raise ConfigError(
            "there is no DATASET",
            f"choose from: {', '.join(DATASETS)}; or give --data, --generator and --discriminator",
        )
    data = DATASETS.get(dataset)()
    plan = make_run_config(dataset, ask)
    console.print_info(f"{format_run_title(plan)}: {plan.steps:,} steps in {out}")
    with TrainingProgress(quiet=quiet > 0) as live:
        folder = run(plan, out, live)
    audits: list[dict[str, Any]] = []
    if audited:
        from gandiag.trainer.snapshot_audits import audit_snapshots

        with console.show_progress() as on_progress:
            audits = audit_snapshots(folder, data, lambda done, total: on_progress("audit", done, total))
    rows = write_report(folder, plan, data, audits)
    written = f"generator {folder.generator_file} · page {folder.path / PAGE_FILE} · log {folder.path / LOG_FILE}"
    console.print_result(f"{format_run_title(plan)}\n\n{format_table(TABLE_HEADER, rows)}\n\n{written}")
    return ExitCode.OK
