"""Reports a finished run as a table, an image and a page: mode coverage, audits and samples of every snapshot."""

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
TABLE_HEADER = ["step", "modes", "high quality", "variation", "KL", "score", "verdict"]
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "img{max-width:100%}"
)


def make_snapshot_rows(folder: RunFolder, audits: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return one row per snapshot under TABLE_HEADER; "–" for what is unknown."""
    coverage = {int(row["step"]): row for row in folder.read_table(COVERAGE_FILE)}
    audit_rows = {row["step"]: row for row in audits}
    return [
        [f"{step:,}", *_format_coverage(coverage.get(step)), *_format_audit(audit_rows.get(step))]
        for step in folder.list_snapshots()
    ]


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return right-aligned columns of plain text."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )


def write_report(
    folder: RunFolder, config: RunConfig, dataset: Dataset, audits: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Write samples.png and samples.html, and return the rows of the table."""
    rows = make_snapshot_rows(folder, audits)
    real = dataset.draw(NUM_PLOT_SAMPLES, torch.Generator().manual_seed(EVALUATION_SEED))
    image = render_sample_strip(_sample_snapshots(folder, config, dataset), real)
    folder.write(IMAGE_FILE, image)
    folder.write(PAGE_FILE, render_page(config, rows, image))
    return rows


def render_page(config: RunConfig, rows: Sequence[Sequence[str]], image: bytes) -> str:
    """Return one self-contained HTML page."""
    title = escape(format_run_title(config))
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    header = "".join(f"<th>{escape(cell)}</th>" for cell in TABLE_HEADER)
    recipe = config.recipe
    recalled = f" Not checked at the source: {escape(recipe.recalled)}." if recipe.recalled else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(recipe.title)}. {escape(recipe.source)}.{recalled}</p>"
        f'<img alt="samples at each snapshot" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        f"<table><tr>{header}</tr>{lines}</table></html>\n"
    )


def format_run_title(config: RunConfig) -> str:
    """Return a title such as "ring8, metz-appendix, unrolled (K = 10), seed 0"."""
    unroll_steps = f" (K = {config.unroll_steps})" if config.unroll_steps else ""
    return f"{config.dataset}, {config.recipe.name}, {config.remedy.name}{unroll_steps}, seed {config.seed}"


def _sample_snapshots(folder: RunFolder, config: RunConfig, dataset: Dataset) -> list[tuple[str, Tensor]]:
    """Return (title, samples) of every snapshot."""
    from safetensors.torch import load_file

    trainer = make_trainer(
        config.recipe,
        dataset,
        config.remedy,
        seed=config.seed,
        unroll_steps=config.unroll_steps,
        z_scale=config.z_scale,
    )
    panels = []
    for step, path in folder.list_snapshots().items():
        trainer.generator.net.load_state_dict(load_file(path))
        panels.append((f"step {step:,}", trainer.generate_samples(NUM_PLOT_SAMPLES, EVALUATION_SEED)))
    return panels


def _format_coverage(row: Mapping[str, str] | None) -> list[str]:
    if row is None:
        return 4 * ["–"]
    kl = f"{float(row['kl']):.3f}" if row["kl"] else "–"
    good = f"{100 * float(row['good']):.1f} % of {100 * float(row['ceiling']):.1f}"
    return [f"{row['modes']} of {row['of']}", good, f"{float(row['variation']):.2f}", kl]


def _format_audit(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return 2 * ["–"]
    score = row["score"]
    value = "–" if score["value"] is None else f"{score['value']:.2f}"
    interval = "" if score["low"] is None else f" [{score['low']:.2f}, {score['high']:.2f}]"
    return [value + interval, row["verdict"]]
