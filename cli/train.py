"""gandiag train: trains a small GAN from a dataset, a recipe, a remedy and a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gandiag.errors import ConfigError, ExitCode

from . import console
from .train_progress import TrainingProgress

CUSTOM_OPTIONS = ("data", "generator", "discriminator", "init")  # any of them selects the comparison of remedies


@click.command("train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset", metavar="[DATASET]", required=False)
@click.option(
    "--recipe", metavar="NAME", help="settings of a published experiment  [default: the first for the dataset]"
)
@click.option(
    "--remedy",
    metavar="NAME[+NAME]",
    help="a remedy, or several combined with +; for your own networks, a list to compare: r1,packing  [default: none]",
)
@click.option(
    "--unroll",
    type=int,
    metavar="K",
    help="steps of D that G differentiates through, with the remedy unrolled  [default: 10]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="seed of weights, latents and data"
)
@click.option("--steps", type=int, metavar="N", help="steps of G  [default: the recipe's]")
@click.option("--z-scale", type=float, metavar="X", help="multiply the latents during training by X  [default: 1]")
@click.option("--snapshots", type=click.IntRange(min=1), metavar="N", help="number of snapshots to keep  [default: 10]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="folder of the run; a run that is already there is resumed",
)
@click.option(
    "--audit/--no-audit", "audited", default=True, help="audit every snapshot against real data  [default: audit]"
)
@click.option("--data", metavar="FOLDER", help="real samples for your own networks, in place of DATASET")
@click.option("--generator", metavar="PKG.MOD:G", help="your generator: a class, or a function that returns one")
@click.option("--discriminator", metavar="PKG.MOD:D", help="your discriminator, with one logit per sample")
@click.option("--init", multiple=True, metavar="K=V", help="argument for both (repeatable)")
@click.option("-q", "--quiet", count=True, help="no progress (-q), no output at all (-qq)")
@click.option("--debug", is_flag=True, help="show tracebacks")
def train_command(dataset: str | None, out: Path, audited: bool, quiet: int, debug: bool, **options: Any) -> int:
    """Train a small GAN on DATASET, with or without a remedy, and audit its snapshots.

    \b
    gandiag train ring8 --out vanilla                        loses modes
    gandiag train ring8 --remedy unrolled --out unrolled     keeps them
    gandiag audit unrolled/generator.safetensors             needs no option
    gandiag train --data photos/ --generator my.nets:G --discriminator my.nets:D --out comparison
                                                             your own networks under each remedy: which one helps?

    Run the same command again to resume an interrupted run, with the same result bit for bit. Exit code 0 when training
    finished, whatever its audits say; 2 if it could not run, or diverged.
    """
    console.configure_output(quiet=quiet, debug=debug)
    import torch

    from gandiag.trainer.toy_data import DATASETS

    torch.set_num_threads(1)
    custom_options = {name: options.pop(name) for name in CUSTOM_OPTIONS}
    if any(custom_options.values()):
        from .train_custom import compare_custom_models

        compare_custom_models(custom_options, out, options, quiet > 0)
    elif dataset is None:
        raise ConfigError(
            "DATASET is missing",
            f"choose one of: {', '.join(DATASETS)}; or give --data, --generator and --discriminator",
        )
    else:
        _train_dataset(dataset, out, options, audited, quiet > 0)
    return ExitCode.OK


def _train_dataset(dataset: str, out: Path, options: dict[str, Any], audited: bool, quiet: bool) -> None:
    """Train on a registered dataset, audit the snapshots and show the table."""
    from gandiag.trainer.run_config import make_run_config
    from gandiag.trainer.run_report import PAGE_FILE, TABLE_HEADER, format_run_title, format_table, write_report
    from gandiag.trainer.toy_data import DATASETS
    from gandiag.trainer.train import LOG_FILE, train

    data = DATASETS.get(dataset)()
    config = make_run_config(dataset, options)
    title = format_run_title(config)
    console.print_info(f"{title}: {config.steps:,} steps in {out}")
    with TrainingProgress(quiet=quiet) as progress:
        folder = train(config, out, progress)
    audits: list[dict[str, Any]] = []
    if audited:
        from gandiag.trainer.snapshot_audits import audit_snapshots

        with console.show_progress() as on_progress:
            audits = audit_snapshots(folder, data, lambda done, total: on_progress("audit", done, total))
    rows = write_report(folder, config, data, audits)
    written = f"generator {folder.generator_file} · page {folder.path / PAGE_FILE} · log {folder.path / LOG_FILE}"
    console.print_result(f"{title}\n\n{format_table(TABLE_HEADER, rows)}\n\n{written}")
