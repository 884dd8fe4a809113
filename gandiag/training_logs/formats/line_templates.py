"""Lines of free text → named numbers: what stands before a number is its name.

    [3/25][400/1583] Loss_D: 1.2 Loss_G: 2.3 D(x): 0.6 D(G(z)): 0.4 / 0.2       [Epoch 1/200] [Batch 3/938] [D loss: 0.6] [G loss: 0.7]
    Epoch 3:  45%|████▌     | 450/1000 [00:32<00:39, 13.9it/s, d_loss=0.53]     INFO: [Global Step: 500/100000] | errD: 1.0 | errG: 1.2

A line's *skeleton* is the line with its numbers taken out. Each skeleton is understood once; after that its lines are read by
one regular expression made from it, whole blocks at a time.
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
    """One kind of line: the pattern of a whole line, and the column of each of its groups."""

    pattern: re.Pattern[str]
    columns: tuple[str, ...]
    names: tuple[str, ...]


def strip_terminal_codes(line: str) -> str:
    """Without terminal codes and bars."""
    return PROGRESS_BAR_PATTERN.sub("||", ESCAPE_PATTERN.sub("", line)).strip()


def make_line_template(line: str, keep: Callable[[str], bool]) -> LineTemplate:
    """What a line says where: made once for each skeleton. No groups: a line without anything of use."""
    spans = [found.span() for found in NUMBER_PATTERN.finditer(line)]
    edges = [0, *(end for _, end in spans)]
    before = [line[low:start] for low, (start, _) in zip(edges, spans, strict=False)]
    after = [line[end : end + 1] for _, end in spans]
    labels = label_numbers(before, after)
    pattern, columns = [], []
    for text, label in zip(before, labels, strict=True):
        wanted = label is not None and keep(label) and label not in columns
        pattern.append(_literal(text) + (NUMBER_GROUP if wanted else "(?:" + NUMBER_GROUP[1:]))
        if wanted:
            columns.append(str(label))
    tail = line[edges[-1] :]
    known = tuple(dict.fromkeys(label for label in labels if label))
    return LineTemplate(
        re.compile(r"^\s*" + "".join(pattern) + _literal(tail) + r"\s*$", re.MULTILINE), tuple(columns), known
    )


def _literal(text: str) -> str:
    """Literal text; blanks of any width, since numbers are padded with them."""
    text = text.replace("||", "\0")
    parts = [
        re.escape(part).replace("\0", r"(?:\|[^|\n]*\||\[[=>.\-#\s]*\]|[━╸╺─ ]+)").replace("\\\0", "")
        for part in re.split(r"\s+", text)
    ]
    return r"[^\S\n]*".join(parts)


def make_line_signature(line: str) -> str:
    """The line without its numbers and the widths of its blanks."""
    return " ".join(NUMBER_PATTERN.sub("#", line).split())


def label_numbers(before: list[str], after: list[str]) -> list[str | None]:
    """The column of each number, from the text before it. Totals ("/25"), percentages, times and seconds have none."""
    labels: list[str | None] = []
    pairs = 0
    for at, text in enumerate(before):
        follows = after[at] == "/" and at + 1 < len(before) and before[at + 1].strip() in ("/", "/ ")
        previous = labels[-1] if labels else None
        label = parse_label(text)
        if text.strip() == "/" and at:
            label = _total(previous)
        elif label is None and follows:
            label = "epoch" if pairs == 0 and _another_pair(before, after, at) else "batch"
            label = None if label in labels else label
        elif label is None and at == 0 and not text.strip() and after[at] in (" ", ":", "]"):
            label = "step"  # a line that begins with its step, as Keras-GAN prints it
        elif after[at] == "%":
            label = None
        pairs += follows
        labels.append(label)
    return labels


def _total(previous: str | None) -> str | None:
    """What stands behind a slash: how many batches there are, or the second of two values, as in "D(G(z)): 0.6 / 0.1"."""
    if previous is None:
        return None
    low = previous.lower()
    if low.split()[-1] in ("batch", "i"):
        return "batches"
    return None if any(head in low for head in COUNTER_WORDS) else f"{previous} (second)"


def _another_pair(before: list[str], after: list[str], at: int) -> bool:
    """Whether a second "a/b" without a label follows in brackets: then the first is the epoch."""
    return any(
        after[i] == "/" and parse_label(before[i]) is None and "[" in before[i]
        for i in range(at + 2, min(at + 3, len(before)))
    )


@lru_cache(maxsize=65_536)
def parse_label(text: str) -> str | None:
    """The words right before a number: "] [D loss: " → "D loss"; None where there are none."""
    last = SEPARATOR_PATTERN.split(text.replace("||", "|").rstrip())[-1].strip()
    last = last.strip("'\" ").rstrip(":=").strip("'\" (#").rstrip(":=").strip()
    if last.count("(") > last.count(")"):
        last += ")" * (last.count("(") - last.count(")")) if last.startswith(("D(", "G(")) else ""
    found = LABEL_PATTERN.search(last)
    if found is None:
        return None
    words = found.group().split()
    return " ".join(words[-3:]) if len(words) <= 8 else None
