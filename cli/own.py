"""The second form of `gandiag train`: a person's own networks under each remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError

from . import console
from .live import Live

HEAD = ["remedy", "score", "verdict", "before", ""]


def compare_own(given: dict[str, Any], out: Path, ask: dict[str, Any], quiet: bool) -> None:
    """Train and audit under each remedy; show which one helps, and what the others need. Writes compared.json."""
    missing = [f"--{name}" for name in ("data", "generator", "discriminator") if not given[name]]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} missing", "your own networks need --data, --generator and --discriminator")
    from gandiag.reference.audits import audit_snapshots
    from gandiag.reference.data import Dataset
    from gandiag.reference.folder import RunFolder
    from gandiag.reference.game import make_game
    from gandiag.reference.own import TRIED, Own, advice, compare, latent_of
    from gandiag.reference.plan import Plan
    from gandiag.reference.story import table
    from gandiag.reference.train import train

    own = Own(given["data"], given["generator"], given["discriminator"], tuple(given["init"]))
    latent = latent_of(own)

    def run(plan: Plan, folder: Path, data: Dataset) -> list[dict[str, Any]]:
        console.note(f"{plan.remedy.name}: {plan.steps:,} steps in {folder}")

        def start(asked: Plan) -> Any:
            return make_game(asked.recipe, data, asked.remedy, seed=asked.seed, ahead=asked.ahead, z_scale=asked.z_scale, networks=own.networks, latent=latent)

        with Live(quiet=quiet) as live:
            finished = train(plan, folder, live, start)
        with console.progress() as on_progress:
            return audit_snapshots(finished, data, lambda done, total: on_progress("audit", done, total), last=plan.snapshots == 1,
                                   model=own.generator, init=own.init)  # fmt: skip

    asked = ask.get("remedy")
    remedies = TRIED if not asked else tuple(dict.fromkeys(["none", *asked.split(",")]))
    out.mkdir(parents=True, exist_ok=True)
    trials = compare(own, remedies, out, ask, run)
    rows = [[trial.remedy, *_told(trial.audit), _before(trial.earlier), trial.reason] for trial in trials]
    kept = [{"remedy": trial.remedy, "audit": trial.audit, "earlier": trial.earlier, "reason": trial.reason} for trial in trials]
    written = RunFolder(out).write("compared.json", json.dumps(kept, indent=1) + "\n")
    console.result(f"{advice(trials)}\n\n{table(HEAD, rows)}\n\nwrote {written}")


def _told(audit: dict[str, Any] | None) -> list[str]:
    if audit is None or audit["score"]["value"] is None:
        return ["–", "not tried" if audit is None else audit["verdict"]]
    score = audit["score"]
    return [f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]", audit["verdict"]]


def _before(earlier: Sequence[dict[str, Any]]) -> str:
    """The scores of the snapshots before the last, by step."""
    return " · ".join(f"{row['step']:,}: " + ("–" if row["score"]["value"] is None else f"{row['score']['value']:.2f}") for row in earlier)
