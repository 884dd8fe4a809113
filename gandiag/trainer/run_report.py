"""A finished run as a table, a picture and a page: what was covered, what the audits said, how the samples moved."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from gandiag.trainer.gan_trainer import make_trainer
from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.run_folder import RunFolder
from gandiag.trainer.sample_strip import render_sample_strip
from gandiag.trainer.toy_data import Dataset
from gandiag.trainer.train import COVERAGE_FILE, EVALUATION_SEED

NUM_PLOT_SAMPLES = 500
IMAGE_FILE, PAGE_FILE = "samples.png", "samples.html"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:right;border-bottom:1px solid #ddd}img{max-width:100%}"
)


def make_snapshot_rows(folder: RunFolder, audits: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per snapshot under `HEAD`: step, modes, good, variation, KL, score, verdict; "–" where nobody can tell."""
    counted = {int(row["step"]): row for row in folder.read_table(COVERAGE_FILE)}
    judged = {row["step"]: row for row in audits}
    return [[f"{step:,}", *_counted(counted.get(step)), *_judged(judged.get(step))] for step in folder.list_snapshots()]


TABLE_HEADER = ["step", "modes", "high quality", "variation", "KL", "score", "verdict"]


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, each as wide as it must be."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )


def write_report(
    folder: RunFolder, config: RunConfig, dataset: Dataset, audits: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Write samples.png and samples.html; the rows of the table."""
    body = make_snapshot_rows(folder, audits)
    picture = render_sample_strip(
        _panels(folder, config, dataset), dataset.draw(NUM_PLOT_SAMPLES, torch.Generator().manual_seed(EVALUATION_SEED))
    )
    folder.write(IMAGE_FILE, picture)
    folder.write(PAGE_FILE, render_page(config, body, picture))
    return body


def render_page(config: RunConfig, rows: Sequence[Sequence[str]], image: bytes) -> str:
    """One self-contained page."""
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in TABLE_HEADER)
    recalled = f" Recalled, not read at the source: {escape(config.recipe.recalled)}." if config.recipe.recalled else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(format_run_title(config))}</title><style>{_STYLE}</style>'
        f"<h1>{escape(format_run_title(config))}</h1><p>{escape(config.recipe.title)}. {escape(config.recipe.source)}.{recalled}</p>"
        f'<img alt="samples at each snapshot" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        f"<table><tr>{head}</tr>{lines}</table></html>\n"
    )


def format_run_title(config: RunConfig) -> str:
    """ "ring8, metz-appendix, unrolled (K = 10), seed 0"."""
    ahead = f" (K = {config.ahead})" if config.ahead else ""
    return f"{config.dataset}, {config.recipe.name}, {config.remedy.name}{ahead}, seed {config.seed}"


def _panels(folder: RunFolder, plan: RunConfig, data: Dataset) -> list[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    game = make_trainer(plan.recipe, data, plan.remedy, seed=plan.seed, unroll_steps=plan.ahead, z_scale=plan.z_scale)
    panels = []
    for step, path in folder.list_snapshots().items():
        game.generator.net.load_state_dict(load_file(path))
        panels.append((f"step {step:,}", game.generate_samples(NUM_PLOT_SAMPLES, EVALUATION_SEED)))
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
