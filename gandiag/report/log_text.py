"""A losses document for a terminal: verdict, sparklines, the spectrum, events, advice, and what could not be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Finding
from gandiag.report import formatting
from gandiag.report.spectrogram import INTENSITY_CHARACTERS, INTENSITY_THRESHOLDS, draw_text_spectrogram
from gandiag.report.terminal import MAX_REMEDIES, make_console, print_finding, print_padded, print_section
from gandiag.report.terminal_sections import BLOCK_CHARACTERS

if TYPE_CHECKING:
    from rich.console import Console

VERDICT_COLORS = {"settled": "green", "inconclusive": "yellow"}
VERDICT_TEXT = {
    "settled": "No line above the background, no runaway, no bursts: the losses have settled. That alone does not mean variety.",
    "oscillating": "The losses turn in a limit cycle. That is no proof of collapse, and its absence is none of health.",
    "diverging": "The losses run away.",
    "mode_hopping": "The losses move in bursts, as when G leaves a mode and D follows.",
    "discriminator_wins": "The discriminator has won: from there on G learns next to nothing.",
    "generator_wins": "The generator has won over its discriminator.",
    "failed": "The losses are no numbers any more.",
    "inconclusive": "This log does not say enough for a verdict.",
}
CURVE_LABELS = {"generator": "G", "discriminator": "D", "score_real": "D(x)", "score_fake": "D(G(z))"}


def render_losses(
    document: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    *,
    width: int = 80,
    color: bool = False,
    paths: Sequence[str] = (),
    verbose: bool = False,
) -> str:
    """The whole view as text that ends with a newline; at least 40 columns. `paths`: what was written, for the last line."""
    page = make_console(max(width, 40), color)
    _head(page, document)
    print_section(page, "Losses", _curves(document, page.width - 4))
    told = formatting.first_rule_per_remedy(findings, None if verbose else MAX_REMEDIES)
    if findings:
        page.print()
        page.print("Findings", style="bold")
    for finding in findings:
        print_finding(page, finding, None if verbose else MAX_REMEDIES, told)
    if document.get("spectrum"):
        print_section(page, "Spectrum", _spectrum(document, page.width - 4))
        print_section(page, "When it oscillates", _spectrogram(document, page.width - 4))
    rows = [
        formatting.capitalize_first(formatting.escape_unprintable(note))
        for note in (*document["doubts"], *document["notes"])
    ]
    if rows:
        print_section(page, "Good to know", rows)
    if paths:
        page.print()
        page.print("   ".join(formatting.escape_unprintable(path) for path in paths), soft_wrap=True)
    written = page.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.strip("\n").split("\n")) + "\n"


def _head(page: Console, document: Mapping[str, Any]) -> None:
    from rich.text import Text

    verdict, read = document["verdict"], document["read"]
    page.print(Text(verdict.replace("_", " ").upper(), style=f"bold {VERDICT_COLORS.get(verdict, 'red')}"))
    page.print(VERDICT_TEXT.get(verdict, ""))
    page.print()
    files = ", ".join(formatting.escape_unprintable(path) for path in read.get("files") or ())
    print_padded(
        page,
        f"{files or 'series'}: {formatting.escape_unprintable(read['format'])}, {read['rows']:,} rows read, {read['skipped']:,} lines without losses",
    )
    print_padded(page, describe_columns(document))


def describe_columns(document: Mapping[str, Any]) -> str:
    """Which column is what, in words."""
    found = document["columns"]
    parts = [
        f"{CURVE_LABELS[role]} = {formatting.escape_unprintable(name)}"
        for role in CURVE_LABELS
        if (name := found.get(role))
    ]
    parts += [f"{CURVE_LABELS[role]} not found" for role in ("generator", "discriminator") if not found.get(role)]
    return f"{', '.join(parts)}; steps: {formatting.escape_unprintable(found.get('step') or document['unit'])}"


def _curves(document: Mapping[str, Any], room: int) -> list[Any]:
    rows = []
    for role, curve in document["curves"].items():
        known = [value for value in curve["value"] if value is not None]
        ends = (
            f"{formatting.format_number(min(known))} to {formatting.format_number(max(known))}"
            if known
            else "no numbers"
        )
        rows.append(
            f"{CURVE_LABELS.get(role, role):<8}{draw_minmax_sparkline(curve['value'], min(room - 30, 60))}  {ends}"
        )
    steps = [step for curve in document["curves"].values() for step in (curve["step"][0], curve["step"][-1])]
    return (
        [
            *rows,
            f"{'':<8}{document['unit']} {formatting.format_number(min(steps))} to {formatting.format_number(max(steps))}",
        ]
        if steps
        else rows
    )


def draw_minmax_sparkline(values: Sequence[float | None], width: int) -> str:
    """Values as `size` blocks from the smallest to the largest; where many fall on one block, the one farthest from the middle shows."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    low, high, middle = known[0], known[-1], known[len(known) // 2]
    span, cells = (high - low) or 1.0, []
    width = max(1, min(width, len(values)))
    for at in range(width):
        part = [
            value for value in values[at * len(values) // width : (at + 1) * len(values) // width] if value is not None
        ]
        far = max(part, key=lambda value: abs(value - middle)) if part else None
        cells.append(
            " "
            if far is None
            else BLOCK_CHARACTERS[min(int((far - low) / span * len(BLOCK_CHARACTERS)), len(BLOCK_CHARACTERS) - 1)]
        )
    return "".join(cells)


def _spectrum(document: Mapping[str, Any], room: int) -> list[Any]:
    """Power above what a line must reach, over the period, and what is known of the strongest line."""
    import math

    found, line = document["spectrum"], document["oscillation"]
    size = min(room - 12, 60)
    periods = [math.log(period) for period in found["period"]]
    low, high = min(periods), max(periods)
    power = [-9.0] * size
    for place, value, critical in zip(periods, found["power"], found["critical"], strict=True):
        at = min(int((high - place) / ((high - low) or 1.0) * size), size - 1)
        power[at] = max(power[at], math.log(max(value, 1e-300) / max(critical, 1e-300)))
    shown = "".join(
        " " if cell <= -9 else "█" if cell >= 0 else BLOCK_CHARACTERS[max(0, min(6, int((cell + 4) / 4 * 7)))]
        for cell in power
    )
    ends = f"{formatting.format_number(math.exp(high))} … {formatting.format_number(math.exp(low))} {document['unit']}"
    rows = [f"power     {shown}", f"{'':<10}period {ends}; █ above the 5 % line of noise"]
    rows[1:1] = (
        [f"amplitude {draw_minmax_sparkline(found['course']['amplitude'], size)}  over time"]
        if len(found["course"]["amplitude"]) > 3
        else []
    )
    return [*rows, describe_oscillation(document)] if line.get("p_value") is not None else rows


def _spectrogram(document: Mapping[str, Any], room: int) -> list[Any]:
    """The spectrum over time, in cells."""
    found, unit = document["spectrum"]["spectrogram"], formatting.escape_unprintable(document["unit"])
    ends = f"{formatting.format_number(found['step'][0])} … {formatting.format_number(found['step'][-1])} {unit}"
    told = f"{'':<10}{ends}; shade: {', '.join(f'{shade} {step:g}' for shade, step in zip(INTENSITY_CHARACTERS[1:], INTENSITY_THRESHOLDS, strict=True))} times the noise"
    return [
        f"{'period':>8}",
        *draw_text_spectrogram(found, document["oscillation"].get("period"), min(room, 70)),
        f"{told}; · not known; ▸ the strongest line",
    ]


def describe_oscillation(document: Mapping[str, Any]) -> str:
    """The strongest line in words."""
    line = document["oscillation"]
    told = f"strongest line of {formatting.escape_unprintable(line['curve'])}: period {formatting.format_number(line['period'])} {document['unit']}"
    told += f", amplitude {formatting.format_number(line['amplitude'])}, {100 * line['share']:.0f} % of the variance, p = {formatting.format_number(line['p_value'])}"
    told += f" (noise alone does as much in {100 * line['p_value']:.2g} % of simulated logs)"
    if line.get("coherence") is not None:
        told += (
            f"; G and D: coherence {line['coherence']:.2f}, phase {line['phase']:+.0f}° (a limit cycle turns near ±90°)"
        )
    return told
