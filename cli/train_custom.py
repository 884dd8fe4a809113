"""The second form of `gandiag train`: a person's own networks under each remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError

from . import console
from .train_progress import TrainingProgress

TABLE_HEADER = ["remedy", "score", "verdict", "before", ""]


def compare_custom_models(inputs: dict[str, Any], out: Path, settings: dict[str, Any], quiet: bool) -> None:
    """Train and audit under each remedy; show which one helps, and what the others need. Writes compared.json."""
    missing = [f"--{name}" for name in ("data", "generator", "discriminator") if not inputs[name]]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} missing", "your own networks need --data, --generator and --discriminator"
        )
    from gandiag.trainer.custom_models import (
        DEFAULT_REMEDIES,
        CustomNetworks,
        compare_remedies,
        describe_best_remedy,
        infer_latent,
    )
    from gandiag.trainer.gan_trainer import make_trainer
    from gandiag.trainer.run_config import RunConfig
    from gandiag.trainer.run_folder import RunFolder
    from gandiag.trainer.run_report import format_table
    from gandiag.trainer.snapshot_audits import audit_snapshots
    from gandiag.trainer.toy_data import Dataset
    from gandiag.trainer.train import train

    own = CustomNetworks(inputs["data"], inputs["generator"], inputs["discriminator"], tuple(inputs["init"]))
    latent = infer_latent(own)

    def run(plan: RunConfig, folder: Path, data: Dataset) -> list[dict[str, Any]]:
        console.print_info(f"{plan.remedy.name}: {plan.steps:,} steps in {folder}")

        def start(asked: RunConfig) -> Any:
            return make_trainer(
                asked.recipe,
                data,
                asked.remedy,
                seed=asked.seed,
                unroll_steps=asked.ahead,
                z_scale=asked.z_scale,
                network_factory=own.build_networks,
                latent=latent,
            )

        with TrainingProgress(quiet=quiet) as live:
            finished = train(plan, folder, live, start)
        with console.show_progress() as on_progress:
            return audit_snapshots(
                finished,
                data,
                lambda done, total: on_progress("audit", done, total),
                last_only=plan.snapshots == 1,
                model=own.generator,
                init=own.model_args,
            )

    asked = settings.get("remedy")
    remedies = DEFAULT_REMEDIES if not asked else tuple(dict.fromkeys(["none", *asked.split(",")]))
    out.mkdir(parents=True, exist_ok=True)
    trials = compare_remedies(own, remedies, out, settings, run)
    rows = [[trial.remedy, *_told(trial.audit), _before(trial.previous_audits), trial.reason] for trial in trials]
    kept = [
        {"remedy": trial.remedy, "audit": trial.audit, "earlier": trial.previous_audits, "reason": trial.reason}
        for trial in trials
    ]
    written = RunFolder(out).write("compared.json", json.dumps(kept, indent=1) + "\n")
    console.print_result(f"{describe_best_remedy(trials)}\n\n{format_table(TABLE_HEADER, rows)}\n\nwrote {written}")


def _told(audit: dict[str, Any] | None) -> list[str]:
    if audit is None or audit["score"]["value"] is None:
        return ["–", "not tried" if audit is None else audit["verdict"]]
    score = audit["score"]
    return [f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]", audit["verdict"]]


def _before(earlier: Sequence[dict[str, Any]]) -> str:
    """The scores of the snapshots before the last, by step."""
    return " · ".join(
        f"{row['step']:,}: " + ("–" if row["score"]["value"] is None else f"{row['score']['value']:.2f}")
        for row in earlier
    )
