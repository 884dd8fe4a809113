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

from gandiag.training_logs.foreign_names import translate_names

# Possessive quantifiers throughout: a pattern of hundreds of numbers must fail in one pass over the line.
_NUMBER = (
    r"[-+]?+(?:[1-9]\d{0,2}+(?:,\d{3})++(?!\d|,\d)|\d++(?:\.\d*+)?+(?:[eE][-+]?+\d++)?+|\.\d++(?:[eE][-+]?+\d++)?+"
    r"|(?:nan|inf|NaN|Inf|NAN)(?!\w))"
)
NUMBER_PATTERN = re.compile(rf"(?<![A-Za-z0-9_.]){_NUMBER}(?!\w*+\()")
NUMBER_GROUP = f"({_NUMBER})"
DATE_PATTERN = re.compile(
    r"(?<![\d.])(?:(?:19|20)\d{2}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2(?:19|20)\d{2}"
    r"|\d{1,2}[-/]\d{1,2}(?=[ T]\d{1,2}:\d{2}))(?!\d)|(?<![\d.])\d{1,4}:\d{2}(?::\d{2})?(?:[.,]\d{1,9})?(?!\d)"
)
ESCAPE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x08")
PROGRESS_BAR_PATTERN = re.compile(
    r"\|[^|\w]*[█▉▊▋▌▍▎▏#][^|]*\||\|\s{4,}\||\[[=>.\-#\s]{4,}\]|[━╸╺─]{4,}(?:\s*[━╸╺─]+)*"
)
SEPARATOR_PATTERN = re.compile(r"[\[\]|,;\t{}<>│]|\s-\s|\s{2,}|\s\+\s|(?<=[%\)])\s")
LABEL_PATTERN = re.compile(r"[A-Za-z_].*")
UNIT_WORDS = ("s", "sec", "secs", "ms", "min", "it/s", "GB", "MB")
COUNTER_SUFFIX_PATTERN = re.compile(r"(?<![\w.,])(\d+)(epoch|iter|step)s?(?=[:\s,\]])")  # "3epoch:train:"
COUNTER_WORDS = ("step", "iter", "iteration", "epoch", "batch", "itr", "it")
# Calls around a value: tensor(1.02, device='cuda:0'), np.float32(0.5).
WRAPPED_PATTERN = re.compile(
    r"(?:tensor|array|Tensor|(?:np\.|numpy\.)?float(?:16|32|64)?)\(\s*\[?\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)\s*\]?[^()\n]{0,80}\)"
)
# "D/latent_real: [0.51", "Epoch: [ 2", "dA[0.3": the label stands before the bracket.
BRACKET_LABEL_PATTERN = re.compile(
    r"([A-Za-z_][\w/.()+ -]{0,60}?)\s*[:=]\s*[\[(]\s*$|(?:^|[\s,|\]])([A-Za-z_][\w/.]{0,40})\[\s*$"
    r"|(?:^|[\s,|])((?i:epochs?|iter(?:ation)?s?|steps?|batch|\w{0,20}(?:loss|err)\w{0,20}))\s+[\[(]\s*$"
)
LEVEL_WORDS = {"info", "debug", "warning", "warn", "error", "train", "training", "trainer", "losses", "loss"}
AT_STEP_PATTERN = re.compile(
    r"([A-Za-z_][\w /.-]{0,60}?)\s+(?:at|after|in|@|for)"
    r"\s+((?:global )?(?:step|epoch|iter(?:ation)?|batch))s?\s*[:#]?\s*$",
    re.IGNORECASE,
)
PAIR_LABEL_PATTERN = re.compile(r"^(.*?)([A-Za-z_]+)\s*/\s*([A-Za-z_]+)(\b.*)$")
ORDINALS = ("", " (second)", " (third)", " (fourth)", " (fifth)", " (sixth)", " (seventh)", " (eighth)")
MAX_NUMBERS = 200  # in a line; a longer one is a dump of an array
STEP_LIST_PATTERN = re.compile(r"\W*(?:(?:INFO|DEBUG)\b.*)?\[$")
STEP_LABEL_PATTERN = re.compile(r"(?i)\b(?:step|iter|iteration)s?$")
LOGGER_LIST_PATTERN = re.compile(r"(?:INFO|DEBUG|WARNING):[\w.-]+:\s*\[$")  # "INFO:vits:[3.1, 2.5, …": no label
LIST_NAME = "list"  # values in brackets without a label
MIN_LIST_LENGTH = 4


@dataclass(frozen=True, slots=True)
class LineTemplate:
    """One kind of line: the pattern of a whole line, the column of each of its groups, and all labels of the line.

    The pattern is None for a line without columns. `kind`: number of the template.
    """

    pattern: re.Pattern[str] | None
    columns: tuple[str, ...]
    names: tuple[str, ...]
    kind: int = 0


def strip_terminal_codes(line: str) -> str:
    """The line without terminal codes and calls around its values, in English; progress bars become "||"."""
    line = PROGRESS_BAR_PATTERN.sub("||", ESCAPE_PATTERN.sub("", line)).strip()
    if "(" in line:
        line = WRAPPED_PATTERN.sub(r"\1", line)
    line = COUNTER_SUFFIX_PATTERN.sub(r"\2 \1", line)
    return line if line.isascii() else translate_names(line)


def make_line_template(line: str, keep: Callable[[str], bool]) -> LineTemplate:
    """The template of a line, with a group for each number whose label `keep` accepts; no columns if there is none."""
    spans = [match.span() for match in NUMBER_PATTERN.finditer(line)]
    if len(spans) > MAX_NUMBERS:
        return LineTemplate(None, (), ())
    labels = _label_line(line, spans)
    names = tuple(dict.fromkeys(label for label in labels if label))
    if not any(label is not None and keep(label) for label in labels):
        return LineTemplate(None, (), names)
    parts, columns = [], []
    ends = [0, *(end for _, end in spans)]
    for (start, _), previous, label in zip(spans, ends, labels, strict=False):
        wanted = label is not None and keep(label) and label not in columns
        parts.append(_match_literally(line[previous:start]) + (NUMBER_GROUP if wanted else "(?:" + NUMBER_GROUP[1:]))
        if wanted:
            columns.append(str(label))
    pattern = r"^\s*+" + "".join(parts) + _match_literally(line[ends[-1] :]) + r"\s*$"
    return LineTemplate(re.compile(pattern, re.MULTILINE), tuple(columns), names)


def _label_line(line: str, spans: list[tuple[int, int]]) -> list[str | None]:
    """The label of each number; those within dates and times have none, and what precedes them is no label."""
    dates = [match.span() for match in DATE_PATTERN.finditer(line)]
    labels: list[str | None] = [None] * len(spans)
    kept: list[int] = []
    before: list[str] = []
    after: list[str] = []
    low = 0
    for index, (start, end) in enumerate(spans):
        date = next((date for date in dates if date[0] <= start < date[1]), None)
        if date is not None:
            low = date[1]
            continue
        kept.append(index)
        # After a date, a number is not the beginning of the line.
        before.append(("|" if low and not before else "") + line[low:start])
        after.append(line[end : end + 1])
        low = end
    for index, label in zip(kept, label_numbers(before, after), strict=True):
        labels[index] = label
    return labels


def _match_literally(text: str) -> str:
    """A pattern for literal text. Blanks match any width, because numbers are padded with them; "||" any bar."""
    text = text.replace("||", "\0")
    parts = [
        re.escape(part).replace("\0", r"(?:\|[^|\n]*+\||\[[=>.\-#\s]*+\]|[━╸╺─ ]++)").replace("\\\0", "")
        for part in re.split(r"\s+", text)
    ]
    return r"[^\S\n]*+".join(parts)


def make_line_signature(line: str) -> str:
    """The line with "#" for its numbers and single blanks."""
    return " ".join(NUMBER_PATTERN.sub("#", line).split())


def label_numbers(before: list[str], after: list[str]) -> list[str | None]:
    """The column of each number, from the text before it and the character after it.

    Totals ("/25"), percentages, times and seconds have none.
    """
    if _is_step_and_rate(before, after):
        return ["step", "lr"]
    labels: list[str | None] = []
    n_ratios = 0  # numbers so far that a total follows, as in "3/25"
    pair_label: str | None = None  # of the second value in "Gen/Dis Loss: 1.5/0.7"
    pending: str | None = None  # a label whose value follows a step: "d loss at step 3: 0.5"
    for index, text in enumerate(before):
        has_total = after[index] == "/" and index + 1 < len(before) and before[index + 1].strip() == "/"
        previous = labels[-1] if labels else None
        label, at_step = parse_label(text), AT_STEP_PATTERN.search(text)
        if pending is not None and text.strip() in (":", "=", "is", "->", "→"):
            label, pending = pending, None
        elif at_step:
            label, pending = at_step[2].lower(), parse_label(at_step[1])
        elif text.strip() == "/" and index:
            label = _label_after_slash(previous, pair_label)
        elif label is None and LOGGER_LIST_PATTERN.search(text) and _is_unlabeled_list(before, index):
            label = LIST_NAME
        elif label is None and (bracket := BRACKET_LABEL_PATTERN.search(text)) and _may_label(bracket, after[index]):
            label = " ".join(next(filter(None, bracket.groups())).split()[-3:])
        elif label is None and has_total:
            label = "epoch" if n_ratios == 0 and _has_second_ratio(before, after, index) else "batch"
            label = None if label in labels else label
        elif label is None and text.strip() in (",", ", ") and previous and index:
            label = _label_next_in_list(before, labels)
        elif label is None and index == 0 and text.strip() == "[" and after[index] == "]":
            label = "step"
        elif label is None and index == 0 and not text.strip(" >#") and after[index] in (" ", ":", "]", ",", "\t", ")"):
            # A line that begins with its step, as Keras-GAN prints it, or with its epoch before "3/12".
            is_epoch = len(before) > 2 and before[1].strip(" ,") == "" and before[2].strip() == "/"
            label = "epoch" if is_epoch else "step"
        elif label is None and text.rstrip().endswith("[") and _is_unlabeled_list(before, index):
            label = LIST_NAME
        elif after[index] == "%":
            label = label if label is not None and "acc" in label.lower() else None
        has_second = index + 1 < len(before) and before[index + 1].strip() == "/"
        pair = PAIR_LABEL_PATTERN.match(label) if label is not None and has_second else None
        pair_label = f"{pair[1]}{pair[3]}{pair[4]}".strip() if pair else None
        label = f"{pair[1]}{pair[2]}{pair[4]}".strip() if pair else label
        n_ratios += has_total
        labels.append(label)
    has_step = any(label and STEP_LABEL_PATTERN.search(label) for label in labels[1:])
    if has_step and not before[0].strip(" >#"):
        labels[0] = None  # the rank of a process, or the number of a line
    return labels


def _may_label(bracket: re.Match[str], after: str) -> bool:
    """Whether the text before a bracket names the number in it: "INFO [3/25]" does not."""
    name = next(filter(None, bracket.groups()))
    return after != "/" or name.split()[-1].lower() not in LEVEL_WORDS - {"losses", "loss"}


def _label_next_in_list(before: list[str], labels: list[str | None]) -> str | None:
    """The label of a further value in brackets: "Losses: [3.1, 2.5" gives "Losses (second)"."""
    low = len(labels) - 1
    while low > 0 and before[low].strip() == ",":
        low -= 1
    first, position = labels[low], len(labels) - low
    if first is None or position >= len(ORDINALS) or not before[low].rstrip().endswith(("[", "(")):
        return None
    return f"{first}{ORDINALS[position]}"


def _is_unlabeled_list(before: list[str], index: int) -> bool:
    """Whether at least MIN_LIST_LENGTH values separated by commas begin here."""
    following = before[index + 1 : index + MIN_LIST_LENGTH]
    return len(following) == MIN_LIST_LENGTH - 1 and all(text.strip() == "," for text in following)


def _is_step_and_rate(before: list[str], after: list[str]) -> bool:
    """ "[200, 0.0001]" alone on a line: VITS prints its step and learning rate like that."""
    return (
        len(before) == 2
        and before[1].strip() == ","
        and after[1] == "]"
        and STEP_LIST_PATTERN.match(before[0]) is not None
    )


def _label_after_slash(previous: str | None, pair_label: str | None) -> str | None:
    """The label after a slash: the number of batches, or the second of two values, as in "D(G(z)): 0.6 / 0.1"."""
    if previous is None or pair_label is not None:
        return pair_label
    lower = previous.lower()
    if lower.split()[-1] in ("batch", "i", "step", "iter", "iteration", "it", "iters"):
        return "batches"
    return None if any(word in re.findall("[a-z]+", lower) for word in COUNTER_WORDS) else f"{previous} (second)"


def _has_second_ratio(before: list[str], after: list[str], index: int) -> bool:
    """Whether a second unlabeled "a/b" follows in brackets or after a progress bar: then the first is the epoch."""
    if any(
        after[i] == "/" and parse_label(before[i]) is None and ("[" in before[i] or ")(" in before[i])
        for i in range(index + 2, min(index + 3, len(before)))
    ):
        return True
    return any(
        after[i] == "/" and before[i + 1].strip() == "/" and before[i].rstrip().endswith("||")
        for i in range(index + 2, len(before) - 1)
    )


@lru_cache(maxsize=65_536)
def parse_label(text: str) -> str | None:
    """The words right before a number: "] [D loss: " -> "D loss"; None if there are none."""
    last = SEPARATOR_PATTERN.split(text.replace("||", "|").rstrip())[-1].strip()
    last = last.strip("'\" ").rstrip(":=").strip("'\" (#").rstrip(":=-").strip()
    last = last.rpartition(":")[2].strip("'\" ") if ":" in last else last  # what a logger puts in front
    n_open = last.count("(") - last.count(")")
    if n_open > 0:
        last += ")" * n_open if last.startswith(("D(", "G(")) else ""
    match = LABEL_PATTERN.search(last)
    if match is None:
        return None
    words = match.group().split()
    low = max((index + 1 for index, word in enumerate(words[:-1]) if "=" in word), default=0)
    words = words[low:]  # "level=info step" is "step"
    words = words[1:] if len(words) > 1 and words[0] in UNIT_WORDS else words  # "time: 4.1 s d_loss"
    return " ".join(words[-3:]) if len(words) <= 8 else None
