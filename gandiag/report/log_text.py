"""Renders a losses document for a terminal: verdict, curves, findings, spectrum, spectrogram, and what is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Finding
from gandiag.report import formatting
from gandiag.report.finding_view import build_findings
from gandiag.report.sparkline import BLOCK_CHARACTERS, draw_minmax_sparkline
from gandiag.report.spectrogram import INTENSITY_CHARACTERS, INTENSITY_THRESHOLDS, draw_text_spectrogram
from gandiag.report.terminal import MAX_REMEDIES
from gandiag.report.text_page import TextPage

if TYPE_CHECKING:
    from rich.console import RenderableType

VERDICT_COLORS = {
    "settled": "green",
    **dict.fromkeys(
        (
            "no_instability_found",
            "inconclusive",
            "drifting",
            "spiking",
            "stepped",
            "discriminator_at_chance",
        ),
        "yellow",
    ),
}
VERDICT_WORDS = {"no_instability_found": "no instability found, but not settled"}
TOO_SHORT = "too short for a cycle test"
VERDICT_TEXT = {
    "settled": "The losses have settled: a plateau without cycle, trend or spikes. This alone does not imply variety.",
    "no_instability_found": "Nothing unstable was found, but no plateau was shown either.",
    "drifting": "The losses drift: they have not settled.",
    "spiking": "A loss spikes.",
    "stepped": "The losses jump to another level and stay there.",
    "discriminator_at_chance": "The discriminator is at chance: it learns nothing, or G is perfect; samples tell.",
    "oscillating": ("The losses repeat a cycle. That does not prove collapse, and its absence does not rule it out."),
    "diverging": "The losses diverge.",
    "mode_hopping": "The losses move in bursts, as when G leaves a mode and D follows.",
    "discriminator_wins": "The discriminator has won: G has almost no gradient left to learn from.",
    "generator_wins": "The generator has won: D no longer tells its samples from real ones.",
    "failed": "The losses became NaN or infinite.",
    "inconclusive": "This log does not contain enough for a verdict.",
}
SIGNIFICANCE_LEVEL = 0.05  # above it, neither spectrum nor phase is shown
MAX_OTHER_COLUMNS = 8
SIDE_LABELS = {
    "signs_real": "sign of D on real samples",
    "signs_fake": "sign of D on generated samples",
    "fid": "FID in the log",
    "accuracy": "accuracy of D",
    "gradient_norm": "gradient norm",
    "gradient_penalty": "gradient penalty",
    "r1": "R1 penalty",
    "learning_rate": "learning rate",
    "ada": "augmentation probability",
    "score_real": "D on real samples",
    "score_fake": "D on generated samples",
}
CURVE_LABELS = {"generator": "G", "discriminator": "D", "score_real": "D(x)", "score_fake": "D(G(z))"}
MAX_CURVE_WIDTH = 60
NO_POWER = -9.0  # log of power over the 5 % line, in columns without a period


def render_losses(
    document: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    *,
    width: int = 80,
    color: bool = False,
    paths: Sequence[str] = (),
    verbose: bool = False,
) -> str:
    """Render the whole report; it ends with a newline.

    `width`: columns, at least 40. `paths`: written files, for the last line. `verbose`: all remedies.
    """
    page = TextPage(width, color)
    _add_head(page, document)
    page.add_section("Losses", _build_curves(document, page.width - 4))
    if document.get("pairs") or document.get("runs"):
        page.add_section("Pairs and runs", describe_parts(document))
    page.add_findings(build_findings(findings, None if verbose else MAX_REMEDIES))
    if beside := describe_side_columns(document):
        page.add_section("Beside the losses", beside)
    if shows_spectrum(document):
        page.add_section("Spectrum", _build_spectrum(document, page.width - 4))
        page.add_section("Oscillation over time", _build_spectrogram(document, page.width - 4))
    notes = [formatting.escape_unprintable(note) for note in (*document["doubts"], *document["notes"])]
    if notes:
        page.add_section("Notes", [formatting.capitalize_first(note) for note in notes])
    page.add_paths(paths)
    return page.render()


def _add_head(page: TextPage, document: Mapping[str, Any]) -> None:
    from rich.text import Text

    verdict = document["verdict"]
    page.add(Text(name_verdict(document).upper(), style=f"bold {VERDICT_COLORS.get(verdict, 'red')}"))
    if text := describe_verdict(document):
        page.add(text)
    page.add(formatting.escape_unprintable(describe_summary(document)))
    page.add()
    files = ", ".join(formatting.escape_unprintable(path) for path in document["read"].get("files") or ())
    page.add_indented(f"{files or 'series'}: {describe_source(document)}")
    page.add_indented(describe_columns(document))


def name_verdict(document: Mapping[str, Any]) -> str:
    """The verdict in words."""
    verdict = str(document["verdict"])
    if verdict == "inconclusive" and str(document.get("summary") or "").startswith("Too short"):
        rows = str(document["summary"]).partition("(")[2].partition(" ")[0]
        return f"{TOO_SHORT} ({rows} rows)"
    return VERDICT_WORDS.get(verdict, verdict.replace("_", " "))


def describe_verdict(document: Mapping[str, Any]) -> str:
    """The verdict as a sentence; "" where the summary begins with it."""
    return "" if name_verdict(document).startswith(TOO_SHORT) else VERDICT_TEXT.get(str(document["verdict"]), "")


def describe_summary(document: Mapping[str, Any]) -> str:
    """The summary, without the sentence that repeats the name of the verdict."""
    summary = str(document.get("summary") or "")
    return summary.partition(". ")[2] if name_verdict(document).startswith(TOO_SHORT) else summary


def shows_spectrum(document: Mapping[str, Any]) -> bool:
    """Whether a cycle was found that is worth a picture; else one line in the summary says what was tested."""
    p_value = (document.get("oscillation") or {}).get("p_value")
    return bool(document.get("spectrum")) and p_value is not None and p_value <= SIGNIFICANCE_LEVEL


def describe_parts(document: Mapping[str, Any]) -> list[str]:
    """A line for each pair of players and each run: its name, its verdict and what it does."""
    entries = [*(document.get("pairs") or ()), *(document.get("runs") or ())]
    lines = []
    for entry in entries:
        text = f"{entry['name']}: {name_verdict(entry)}. {describe_summary(entry)}"
        lines.append(formatting.escape_unprintable(text))
    return lines


def describe_side_columns(document: Mapping[str, Any]) -> list[str]:
    """A line for each column beside the losses: its level at the beginning and at the end."""
    lines = []
    for row in document.get("beside") or ():
        name, label = formatting.escape_unprintable(str(row["name"])), SIDE_LABELS.get(row["role"], row["role"])
        first, last = (formatting.format_number(row[key]) for key in ("first", "last"))
        line = f"{label} ({name}): {first} → {last}" if first != last else f"{label} ({name}): {last}"
        if "best" in row:
            line += f", best {formatting.format_number(row['best'])} at {formatting.format_number(row['best_step'])}"
        if says := formatting.escape_unprintable(str(row.get("says") or "")):
            line += f"; {says}"
        lines.append(line)
    return lines


def name_curve(role: str, document: Mapping[str, Any]) -> str:
    """ "D(x)" and "D(G(z))" are probabilities: other scores are "D real" and "D fake"."""
    curve = document["curves"].get(role) or {}
    low, high = curve.get("lowest"), curve.get("highest")
    if role.startswith("score_") and low is not None and high is not None and not 0 <= low <= high <= 1:
        return f"D {role.removeprefix('score_')}"
    return CURVE_LABELS.get(role, role)


def describe_source(document: Mapping[str, Any]) -> str:
    """The format of the log and how many lines were read."""
    read = document["read"]
    skipped = f", {formatting.format_count(read['skipped'], 'line')} without losses skipped" if read["skipped"] else ""
    return f"{formatting.escape_unprintable(read['format'])}, {read['rows']:,} rows read{skipped}"


def describe_columns(document: Mapping[str, Any]) -> str:
    """Which column was read as which loss."""
    columns = document["columns"]
    parts = [
        f"{name_curve(role, document)} = {formatting.escape_unprintable(columns[role])}"
        for role in CURVE_LABELS
        if columns.get(role)
    ]
    parts += [f"{CURVE_LABELS[role]} not found" for role in ("generator", "discriminator") if not columns.get(role)]
    others = [formatting.escape_unprintable(str(name)) for name in document.get("other_columns") or ()]
    rest = f"; also there: {', '.join(others[:MAX_OTHER_COLUMNS])}" if others else ""
    rest += " …" if len(others) > MAX_OTHER_COLUMNS else ""
    return f"{', '.join(parts)}; steps: {formatting.escape_unprintable(columns.get('step') or document['unit'])}{rest}"


def _build_curves(document: Mapping[str, Any], width: int) -> list[RenderableType]:
    rows: list[RenderableType] = []
    curves = document["curves"]
    for role, curve in curves.items():
        known = [value for value in curve["value"] if value is not None]
        value_range = "no numbers"
        if known:
            low, high = (curve.get(key) for key in ("lowest", "highest"))
            low, high = min(known) if low is None else low, max(known) if high is None else high
            value_range = f"{formatting.format_number(low)} to {formatting.format_number(high)}"
        sparkline = draw_minmax_sparkline(curve["value"], min(width - 30, MAX_CURVE_WIDTH))
        rows.append(f"{name_curve(role, document):<8}{sparkline}  {value_range}")
    steps = [step for curve in curves.values() for step in (curve["step"][0], curve["step"][-1])]
    return [*rows, f"{'':<8}{document['unit']} {min(steps):,.6g} to {max(steps):,.6g}"] if steps else rows


def _build_spectrum(document: Mapping[str, Any], width: int) -> list[RenderableType]:
    """Power relative to the 5 % line over the period, amplitude over time, and the strongest oscillation in words."""
    spectrum, n_columns = document["spectrum"], min(width - 12, MAX_CURVE_WIDTH)
    log_periods = [math.log(period) for period in spectrum["period"]]
    low, high = min(log_periods), max(log_periods)
    log_power = [NO_POWER] * n_columns
    for log_period, power, critical in zip(log_periods, spectrum["power"], spectrum["critical"], strict=True):
        column = min(int((high - log_period) / ((high - low) or 1.0) * n_columns), n_columns - 1)
        log_power[column] = max(log_power[column], math.log(max(power, 1e-300) / max(critical, 1e-300)))
    rows: list[RenderableType] = [f"power     {''.join(map(_power_block, log_power))}"]
    if len(spectrum["course"]["amplitude"]) > 3:
        rows.append(f"amplitude {draw_minmax_sparkline(spectrum['course']['amplitude'], n_columns)}  over time")
    ends = f"{formatting.format_number(math.exp(high))} … {formatting.format_number(math.exp(low))} {document['unit']}"
    rows.append(f"{'':<10}period {ends}; █ above the 5 % line of noise")
    has_oscillation = document["oscillation"].get("p_value") is not None
    return [*rows, describe_oscillation(document)] if has_oscillation else rows


def _power_block(log_ratio: float) -> str:
    """The block for the log of power over the 5 % line: full above the line, seven levels down to e⁻⁴ of it."""
    if log_ratio <= NO_POWER:
        return " "
    return "█" if log_ratio >= 0 else BLOCK_CHARACTERS[max(0, min(6, int((log_ratio + 4) / 4 * 7)))]


def _build_spectrogram(document: Mapping[str, Any], width: int) -> list[RenderableType]:
    """The spectrum over time, in characters."""
    spectrogram, unit = document["spectrum"]["spectrogram"], formatting.escape_unprintable(document["unit"])
    first, last = (formatting.format_number(spectrogram["step"][index]) for index in (0, -1))
    shades = ", ".join(
        f"{char} {threshold:g}" for char, threshold in zip(INTENSITY_CHARACTERS[1:], INTENSITY_THRESHOLDS, strict=True)
    )
    legend = f"shade: {shades} times the noise; · unknown; ▸ strongest period"
    return [
        f"{'period':>8}",
        *draw_text_spectrogram(spectrogram, document["oscillation"].get("period"), min(width, 70)),
        f"{'':<10}{first} … {last} {unit}",
        legend,
    ]


def _format_percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def describe_oscillation(document: Mapping[str, Any]) -> str:
    """The strongest oscillation in words."""
    line = document["oscillation"]
    text = (
        f"strongest repeating cycle, in {formatting.escape_unprintable(line['curve'])}:"
        f" period {formatting.format_number(line['period'])} {document['unit']},"
        f" amplitude {formatting.format_number(line['amplitude'])}, {100 * line['share']:.0f} % of the variance,"
        f" p = {formatting.format_number(line['p_value'])}"
        f" (matched by {_format_percent(line['p_value'])} % of simulated noise logs)"
    )
    if line.get("coherence") is not None:
        relation = f"coherence {line['coherence']:.2f}, phase {line['phase']:+.0f}° (±90° where they chase each other)"
        text += f"; G and D: {relation}"
    return text
