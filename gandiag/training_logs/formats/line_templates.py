"""Turns lines of free text into named numbers: the text before a number is its name.

    [3/25][400/1583] Loss_D: 1.2 Loss_G: 2.3 D(x): 0.6 D(G(z)): 0.4 / 0.2
    [Epoch 1/200] [Batch 3/938] [D loss: 0.6] [G loss: 0.7]
    Epoch 3:  45%|████▌     | 450/1000 [00:32<00:39, 13.9it/s, d_loss=0.53]
    INFO: [Global Step: 500/100000] | errD: 1.0 | errG: 1.2

The *signature* of a line is the line without its numbers. Each signature is analyzed once; after that its lines are
read by one regular expression built from it, whole blocks at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

NUMBER_PATTERN = re.compile(
    r"(?<![\w.])[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|(?:nan|inf|NaN|Inf|NAN)(?![\w]))(?!\w*\()"
)
NUMBER_GROUP = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf|NAN))"
ESCAPE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x08")
PROGRESS_BAR_PATTERN = re.compile(
    r"\|[^|\w]*[█▉▊▋▌▍▎▏#][^|]*\||\|\s{4,}\||\[[=>.\-#\s]{4,}\]|[━╸╺─]{4,}(?:\s*[━╸╺─]+)*"
)
SEPARATOR_PATTERN = re.compile(r"[\[\]|,;\t{}<>│]|\s-\s|\s{2,}|\s\+\s|(?<=[%\)])\s")
LABEL_PATTERN = re.compile(r"[A-Za-z_].*")
COUNTER_WORDS = ("step", "iter", "iteration", "epoch", "batch", "itr", "it")


@dataclass(frozen=True, slots=True)
class LineTemplate:
    """One kind of line: the pattern of a whole line, the column of each of its groups, and all labels of the line."""

    pattern: re.Pattern[str]
    columns: tuple[str, ...]
    names: tuple[str, ...]


def strip_terminal_codes(line: str) -> str:
    """The line without terminal codes; progress bars become "||"."""
    return PROGRESS_BAR_PATTERN.sub("||", ESCAPE_PATTERN.sub("", line)).strip()


def make_line_template(line: str, keep: Callable[[str], bool]) -> LineTemplate:
    """The template of a line, with a group for each number whose label `keep` accepts; no columns if there is none."""
    spans = [match.span() for match in NUMBER_PATTERN.finditer(line)]
    ends = [0, *(end for _, end in spans)]
    before = [line[low:start] for low, (start, _) in zip(ends, spans, strict=False)]
    after = [line[end : end + 1] for _, end in spans]
    labels = label_numbers(before, after)
    parts, columns = [], []
    for text, label in zip(before, labels, strict=True):
        wanted = label is not None and keep(label) and label not in columns
        parts.append(_match_literally(text) + (NUMBER_GROUP if wanted else "(?:" + NUMBER_GROUP[1:]))
        if wanted:
            columns.append(str(label))
    pattern = r"^\s*" + "".join(parts) + _match_literally(line[ends[-1] :]) + r"\s*$"
    names = tuple(dict.fromkeys(label for label in labels if label))
    return LineTemplate(re.compile(pattern, re.MULTILINE), tuple(columns), names)


def _match_literally(text: str) -> str:
    """A pattern for literal text. Blanks match any width, because numbers are padded with them; "||" any bar."""
    text = text.replace("||", "\0")
    parts = [
        re.escape(part).replace("\0", r"(?:\|[^|\n]*\||\[[=>.\-#\s]*\]|[━╸╺─ ]+)").replace("\\\0", "")
        for part in re.split(r"\s+", text)
    ]
    return r"[^\S\n]*".join(parts)


def make_line_signature(line: str) -> str:
    """The line with "#" for its numbers and single blanks."""
    return " ".join(NUMBER_PATTERN.sub("#", line).split())


def label_numbers(before: list[str], after: list[str]) -> list[str | None]:
    """The column of each number, from the text before it and the character after it.

    Totals ("/25"), percentages, times and seconds have none.
    """
    labels: list[str | None] = []
    n_ratios = 0  # numbers so far that a total follows, as in "3/25"
    for index, text in enumerate(before):
        has_total = after[index] == "/" and index + 1 < len(before) and before[index + 1].strip() in ("/", "/ ")
        previous = labels[-1] if labels else None
        label = parse_label(text)
        if text.strip() == "/" and index:
            label = _label_after_slash(previous)
        elif label is None and has_total:
            label = "epoch" if n_ratios == 0 and _has_second_ratio(before, after, index) else "batch"
            label = None if label in labels else label
        elif label is None and index == 0 and not text.strip() and after[index] in (" ", ":", "]"):
            label = "step"  # a line that begins with its step, as Keras-GAN prints it
        elif after[index] == "%":
            label = None
        n_ratios += has_total
        labels.append(label)
    return labels


def _label_after_slash(previous: str | None) -> str | None:
    """The label after a slash: the number of batches, or the second of two values, as in "D(G(z)): 0.6 / 0.1"."""
    if previous is None:
        return None
    lower = previous.lower()
    if lower.split()[-1] in ("batch", "i"):
        return "batches"
    return None if any(word in lower for word in COUNTER_WORDS) else f"{previous} (second)"


def _has_second_ratio(before: list[str], after: list[str], index: int) -> bool:
    """Whether a second unlabeled "a/b" in brackets follows: then the first is the epoch."""
    return any(
        after[i] == "/" and parse_label(before[i]) is None and "[" in before[i]
        for i in range(index + 2, min(index + 3, len(before)))
    )


@lru_cache(maxsize=65_536)
def parse_label(text: str) -> str | None:
    """The words right before a number: "] [D loss: " -> "D loss"; None if there are none."""
    last = SEPARATOR_PATTERN.split(text.replace("||", "|").rstrip())[-1].strip()
    last = last.strip("'\" ").rstrip(":=").strip("'\" (#").rstrip(":=").strip()
    n_open = last.count("(") - last.count(")")
    if n_open > 0:
        last += ")" * n_open if last.startswith(("D(", "G(")) else ""
    match = LABEL_PATTERN.search(last)
    if match is None:
        return None
    words = match.group().split()
    return " ".join(words[-3:]) if len(words) <= 8 else None
