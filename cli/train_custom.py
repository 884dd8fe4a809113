"""`gandiag train` with a user's own networks: train and audit them under several remedies, and compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gandiag.errors import ConfigError

from . import console
from .train_progress import TrainingProgress

if TYPE_CHECKING:
    from gandiag.trainer.custom_models import CustomNetworks, RemedyResult, TrainAndAudit
    from gandiag.trainer.gan_trainer import GANTrainer
    from gandiag.trainer.run_config import RunConfig
    from gandiag.trainer.toy_data import Dataset

COMPARISON_FILE = "compared.json"
TABLE_HEADER = ["remedy", "score", "verdict", "earlier scores", ""]


def compare_custom_models(inputs: dict[str, Any], out: Path, options: dict[str, Any], quiet: bool) -> None:
    """Train and audit under each remedy, write compared.json, and show which remedy helps and why others failed.

    `inputs` are the options data, generator, discriminator and init; `options` the others.
    """
    missing = [f"--{name}" for name in ("data", "generator", "discriminator") if not inputs[name]]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} missing", "your own networks need --data, --generator and --discriminator"
        )
    from gandiag.trainer.custom_models import CustomNetworks, compare_remedies, describe_best_remedy
    from gandiag.trainer.remedies.registry import default_remedies
    from gandiag.trainer.run_folder import RunFolder
    from gandiag.trainer.run_report import format_table

    networks = CustomNetworks(inputs["data"], inputs["generator"], inputs["discriminator"], tuple(inputs["init"]))
    train_and_audit = _make_train_and_audit(networks, quiet)
    requested = options.get("remedy")
    remedies = tuple(dict.fromkeys(["none", *requested.split(",")])) if requested else default_remedies()
    out.mkdir(parents=True, exist_ok=True)
    results = compare_remedies(networks, remedies, out, options, train_and_audit)
    document = json.dumps([_to_json_entry(result) for result in results], indent=1) + "\n"
    written = RunFolder(out).write(COMPARISON_FILE, document)
    table = format_table(TABLE_HEADER, [_make_row(result) for result in results])
    console.print_result(f"{describe_best_remedy(results)}\n\n{table}\n\nwrote {written}")


def _make_train_and_audit(networks: CustomNetworks, quiet: bool) -> TrainAndAudit:
    """Return a function that runs one configuration with progress display."""
    from gandiag.trainer.custom_models import infer_latent
    from gandiag.trainer.gan_trainer import make_trainer
    from gandiag.trainer.snapshot_audits import audit_snapshots
    from gandiag.trainer.train import train

    latent = infer_latent(networks)

    def train_and_audit(config: RunConfig, folder: Path, data: Dataset) -> list[dict[str, Any]]:
        console.print_info(f"{config.remedy.name}: {config.steps:,} steps in {folder}")

        def start_trainer(config: RunConfig) -> GANTrainer:
            return make_trainer(
                config.recipe,
                data,
                config.remedy,
                seed=config.seed,
                unroll_steps=config.unroll_steps,
                z_scale=config.z_scale,
                network_factory=networks.build_networks,
                latent=latent,
            )

        with TrainingProgress(quiet=quiet) as progress:
            run_folder = train(config, folder, progress, start_trainer)
        with console.show_progress() as on_progress:
            return audit_snapshots(
                run_folder,
                data,
                lambda done, total: on_progress("audit", done, total),
                last_only=config.snapshots == 1,
                model=networks.generator,
                init=networks.model_args,
            )

    return train_and_audit


def _to_json_entry(result: RemedyResult) -> dict[str, Any]:
    return {
        "remedy": result.remedy,
        "audit": result.audit,
        "earlier": result.previous_audits,
        "reason": result.reason,
    }


def _make_row(result: RemedyResult) -> list[str]:
    """Return a row under TABLE_HEADER."""
    earlier = _format_previous_scores(result.previous_audits)
    audit = result.audit
    if audit is None:
        return [result.remedy, "–", "not tried", earlier, result.reason]
    score = audit["score"]
    if score["value"] is None:
        return [result.remedy, "–", audit["verdict"], earlier, result.reason]
    interval = f"[{score['low']:.2f}, {score['high']:.2f}]"
    return [result.remedy, f"{score['value']:.2f} {interval}", audit["verdict"], earlier, result.reason]


def _format_previous_scores(audits: Sequence[dict[str, Any]]) -> str:
    """Return the scores of the earlier snapshots by step, such as "500: 0.81 · 1,000: –"."""
    scores = [(row["step"], row["score"]["value"]) for row in audits]
    return " · ".join(f"{step:,}: " + ("–" if value is None else f"{value:.2f}") for step, value in scores)
