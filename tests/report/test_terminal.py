"""The terminal report: content, order, width, and escaping."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
import records

from gandiag.errors import ConfigError
from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.formats import FORMATS, guess_format
from gandiag.report.sparkline import draw_minmax_sparkline, draw_sparkline
from gandiag.report.terminal import render_text
from gandiag.report.terminal_sections import draw_bar

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


def lines(record: Record, **options: object) -> list[str]:
    return render_text(record, **options).splitlines()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", records.ALL)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_fits_the_width_and_has_no_control_characters(name: str, width: int) -> None:
    text = render_text(records.ALL[name](), width=width, paths=("record a.json",))
    assert max(map(len, text.split("\n"))) <= width
    assert not CONTROL.search(text)
    assert text.endswith("record a.json\n")


@pytest.mark.parametrize("name", records.ALL)
def test_color_adds_nothing_but_color(name: str) -> None:
    plain, colored = (render_text(records.ALL[name](), color=color) for color in (False, True))
    assert "\x1b[" in colored
    assert "\x1b" not in plain
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("name", records.ALL)
def test_the_verdict_comes_first_and_what_was_not_measured_last(name: str) -> None:
    record = records.ALL[name]()
    report = lines(record)
    assert report[0].startswith(formatting.VERDICT_LABELS[record.verdict])
    titles = [line for line in report if line in ("Findings", "Measurements", "Not measured")]
    assert titles[-1] == "Not measured"


def test_the_collapsed_report_reads_as_designed() -> None:
    text = render_text(records.collapsed(), paths=("record audit.json", "report report.html"))
    expected = [
        "COLLAPSED  runs/042/generator.pt",
        "Collapse score 0.48 [0.44, 0.52]: about half of the real variety is missing.",
        "limit 0.15",
        "partial collapse",
        "mode dropping",
        "2,000 generated against 4,000 real",
        "trained at latent scale 0.98 [0.91, 1.06] (from batch-norm statistics)",
        "FAIL GD101",
        "covered 6 · found 10",
        "try 1: Minibatch standard deviation",
        "Cost: under 1 % of the time",
        "Karras et al. 2018",
        "2 more with gandiag explain GD101",
        "WARN GD201",
        "note GD304",
        "missing       0.41 [0.38, 0.44]",
        "color      0.46",
        "6 of 10 modes",
        "12.0 %",
        "plus_dark    0.97 [0.91, 1.00]",
        "sampled here",
        "losses: oscillating",
        "period 512",
        "effective_rank",
        "[10.9, 12.4]",
        "↑ higher",
        "dcgan · 3,576,704 parameters",
        "latent prior: normal (default)",
        "seed      0",
        "fid, inception_score: the Inception weights",
        "record audit.json   report report.html",
    ]
    flat = re.sub(r"\n +", " ", text)
    positions = [flat.find(part) for part in expected]
    assert -1 not in positions, expected[positions.index(-1)]
    assert positions == sorted(positions)


def test_without_real_data_the_first_line_says_what_cannot_be_seen() -> None:
    assert formatting.NO_REAL_DATA in lines(records.degeneracy())[0]
    assert formatting.NO_REAL_DATA in " ".join(lines(records.degeneracy(), width=40)[:2])
    assert formatting.NO_REAL_DATA not in lines(records.healthy())[0]


def test_wrong_scale_is_named_on_the_first_line() -> None:
    first = lines(records.wrong_scale())[0]
    assert first.startswith("HEALTHY") and "wrong scale, not collapse" in first


def test_the_end_of_a_long_path_is_kept_and_the_whole_path_shown_below() -> None:
    path = "/".join(["folder"] * 30) + "/netG_0042.pt"
    record = records.healthy()
    text = render_text(
        Record(
            **{
                **{name: getattr(record, name) for name in record.__dataclass_fields__},
                "subject": {**record.subject, "path": path},
            }
        )
    )
    assert "netG_0042.pt" in text.splitlines()[0]
    assert path in text.replace("\n", "").replace(" ", "")


def test_attacks_are_shown_as_text() -> None:
    text = render_text(records.hostile(), width=200)
    assert "\\x1b[31m[bold red]red[/]\\u202e{{7*7}}\\nsecond line" in text
    assert "\u202e" not in text


def test_the_summary_of_every_verdict() -> None:
    summaries = {name: formatting.summarize_record(make()) for name, make in records.ALL.items()}
    healthy = "Collapse score 0.03 [0.00, 0.08]: about a twentieth of the real variety is missing."
    assert summaries["healthy"] == healthy
    assert summaries["complete"] == "Collapse score 1.00 [0.99, 1.00]: all of the real variety is missing."
    assert "the interval contains the limit of 0.15" in summaries["inconclusive"]
    assert "Whether modes are missing is unknown" in summaries["degeneracy"]
    assert summaries["bare"] == "There is no score: the evidence is insufficient."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "almost none"),
        (0.24, "about a quarter"),
        (0.48, "about half"),
        (0.89, "about nine tenths"),
        (0.97, "nearly all"),
        (1.0, "all"),
    ],
)
def test_fractions(value: float, text: str) -> None:
    assert formatting.describe_fraction(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (12.34, "12.3"),
        (0.476, "0.48"),
        (0.00123, "0.0012"),
        (1.2e-7, "1.2e-07"),
        (2e9, "2e+09"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert formatting.format_number(value) == text


def test_a_bar_holds_solid_up_to_low_and_soft_up_to_high() -> None:
    assert draw_bar(0.5, 0.4, 0.6, 10) == "████▒▒····"
    assert draw_bar(0.0, 0.0, 0.0, 4) == "····"
    assert draw_bar(1.0, 1.0, 1.0, 4) == "████"
    assert draw_bar(None, None, None) == ""
    assert draw_bar(0.5, 0.5, 0.5, 4, limit=0.25) == "█|█··"


def test_a_sparkline_starts_at_zero() -> None:
    assert draw_sparkline([0.0, 1.0, 2.0]) == "▁▅█"
    assert draw_sparkline([0.0, 0.0, 0.0]) == ""
    assert draw_sparkline([1.0, None, 1.0, 1.0]) == "█ ██"


def test_a_minmax_sparkline_keeps_peaks() -> None:
    assert draw_minmax_sparkline([-1.0, 0.0, 1.0]) == "▁▅█"
    assert draw_minmax_sparkline([]) == "" and draw_minmax_sparkline([2.0]) == "▁"
    assert draw_minmax_sparkline([0.0, 0.0, 0.0, 9.0, 0.0, 0.0, None, None], 4) == "▁█▁ "


def test_formats_are_guessed_from_the_suffix() -> None:
    assert [guess_format(path) for path in ("a.html", "b.JSON", "c.txt", "d", None)] == [
        "html",
        "json",
        "text",
        "text",
        "text",
    ]
    assert {"text", "html", "json"} <= set(FORMATS)
    for path in ("x.pdf", "a.b.docx"):
        with pytest.raises(ConfigError, match="no report format is called"):
            guess_format(path)


@pytest.mark.parametrize("name", records.ALL)
def test_json_gives_the_record_back(name: str) -> None:
    record = records.ALL[name]()
    again = Record.from_json(FORMATS.get("json")(record))
    assert render_text(again) == render_text(record)


def test_text_needs_neither_torch_nor_matplotlib_nor_numpy(tmp_path: object) -> None:
    path = f"{tmp_path}/audit.json"
    records.collapsed().write(path)
    script = f"""
import sys
from gandiag.record import Record
assert "COLLAPSED" in str(Record.read({path!r}))
print(sorted({{"torch", "matplotlib", "numpy", "jinja2", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_known_without_a_score_is_shown() -> None:
    text = render_text(records.degeneracy())
    assert "spread 0.61 [0.55, 0.70]" in text
    assert "2,000 samples were kept of 2,048" in text
    assert "real data/shapes (flag)" in text and "budget" not in text


def test_verbose_adds_remedies_and_seconds() -> None:
    short, long = (render_text(records.collapsed(), verbose=verbose) for verbose in (False, True))
    assert "R1 gradient penalty" not in short and "Seconds per stage" not in short
    assert "R1 gradient penalty" in long and "Seconds per stage" in long and "gandiag explain" not in long


def test_a_remedy_is_described_in_full_once() -> None:
    text = re.sub(r"\n +", " ", render_text(records.collapsed()))
    assert text.count("Cost: under 1 % of the time") == 1
    assert "It lets the discriminator see that samples repeat (cost and source: see GD101)." in text


def test_measurements_with_a_floor_come_first_and_the_rest_on_request() -> None:
    short, long = (render_text(records.collapsed(), verbose=verbose) for verbose in (False, True))
    assert "effective_rank" in short and "1 more with -vv" in short
    assert "  parameters " not in short and "  parameters " in long


def test_a_long_path_on_the_last_line_is_never_broken() -> None:
    path = "record /" + "/".join(["a-long-folder-name"] * 8) + "/audit.json"
    text = render_text(records.ALL["healthy"](), width=80, paths=(path,))
    assert text.rstrip("\n").split("\n")[-1] == path


def test_one_connected_cloud_is_not_counted_as_a_mode() -> None:
    """ "1 of 1 modes covered" under "half is missing" contradicts itself."""
    cloud = dataclasses.replace(
        records.collapsed(), modes={"found": 1, "covered": 1, "effective": 1.0, "stability": 1.0, "missed": []}
    )
    text = " ".join(render_text(cloud).split())
    assert (
        "no separated clusters at this sample size, so modes cannot be counted" in text and "1 of 1 modes" not in text
    )
