"""A finished run as a table, a picture and a page: what was covered, what the audits said, how the samples moved."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from gandiag.reference.data import Dataset
from gandiag.reference.folder import RunFolder
from gandiag.reference.game import make_game
from gandiag.reference.picture import strip
from gandiag.reference.plan import Plan
from gandiag.reference.train import COVERAGE, EVALUATED

SHOWN = 500
PICTURE, PAGE = "samples.png", "samples.html"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:right;border-bottom:1px solid #ddd}img{max-width:100%}"
)


def rows(folder: RunFolder, audits: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per snapshot under `HEAD`: step, modes, good, variation, KL, score, verdict; "–" where nobody can tell."""
    counted = {int(row["step"]): row for row in folder.table(COVERAGE)}
    judged = {row["step"]: row for row in audits}
    return [[f"{step:,}", *_counted(counted.get(step)), *_judged(judged.get(step))] for step in folder.snapshots()]


HEAD = ["step", "modes", "high quality", "variation", "KL", "score", "verdict"]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns side by side, each as wide as it must be."""
    widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *body])


def tell(folder: RunFolder, plan: Plan, data: Dataset, audits: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Write samples.png and samples.html; the rows of the table."""
    body = rows(folder, audits)
    picture = strip(_panels(folder, plan, data), data.draw(SHOWN, torch.Generator().manual_seed(EVALUATED)))
    folder.write(PICTURE, picture)
    folder.write(PAGE, page(plan, body, picture))
    return body


def page(plan: Plan, body: Sequence[Sequence[str]], picture: bytes) -> str:
    """One self-contained page."""
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in HEAD)
    recalled = f" Recalled, not read at the source: {escape(plan.recipe.recalled)}." if plan.recipe.recalled else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title(plan))}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title(plan))}</h1><p>{escape(plan.recipe.title)}. {escape(plan.recipe.source)}.{recalled}</p>"
        f'<img alt="samples at each snapshot" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<table><tr>{head}</tr>{lines}</table></html>\n"
    )


def title(plan: Plan) -> str:
    """"ring8, metz-appendix, unrolled (K = 10), seed 0"."""
    ahead = f" (K = {plan.ahead})" if plan.ahead else ""
    return f"{plan.dataset}, {plan.recipe.name}, {plan.remedy.name}{ahead}, seed {plan.seed}"


def _panels(folder: RunFolder, plan: Plan, data: Dataset) -> list[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    game = make_game(plan.recipe, data, plan.remedy, seed=plan.seed, ahead=plan.ahead, z_scale=plan.z_scale)
    panels = []
    for step, path in folder.snapshots().items():
        game.generator.net.load_state_dict(load_file(path))
        panels.append((f"step {step:,}", game.sample(SHOWN, EVALUATED)))
    return panels


def _counted(row: Mapping[str, str] | None) -> list[str]:
    if row is None:
        return 4 * ["–"]
    kl = f"{float(row['kl']):.3f}" if row["kl"] else "–"
    good = f"{100 * float(row['good']):.1f} % of {100 * float(row['ceiling']):.1f}"
    return [f"{row['modes']} of {row['of']}", good, f"{float(row['variation']):.2f}", kl]


def _judged(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return 2 * ["–"]
    score = row["score"]
    low_high = "" if score["low"] is None else f" [{score['low']:.2f}, {score['high']:.2f}]"
    return [("–" if score["value"] is None else f"{score['value']:.2f}") + low_high, row["verdict"]]
