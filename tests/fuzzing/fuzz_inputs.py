"""Valid inputs of commands other than checkpoints, damaged in ways that fit their format.

    TARGETS[name](rng) -> Case      files, and a command line that meets them

Everything is drawn from `rng`, so a case is a target and a number. Bytes and JSON are damaged as checkpoints are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import records
from fuzz_damage import change_json, replace_text, scramble
from fuzz_images import image_case

from gandiag.config import AuditConfig

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
RING = str(FIXTURES / "ring_healthy.pt")
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """`files` by name in one folder, `links` by name, and the command line, run in that folder."""

    files: dict[str, bytes]
    argv: list[str]
    links: dict[str, str] = field(default_factory=dict)


def pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def repeat(change: Callable[[bytes, Rng], bytes], content: bytes, rng: Rng) -> bytes:
    """One to four changes."""
    for _ in range(int(rng.integers(1, 5))):
        content = change(content, rng)
    return content


# logs

_TOKENS = (
    "nan inf -inf 1e308 1e400 -0 0 NaN null None True 1,5 1.234.567 0x1f 1_000 % [ ] { } ( ) : = | \" ' , ; \t \0 "
    "\x1b[2K \r \u202e \ufeff \ud7ff epoch step loss_D loss_G D G real fake tensor(0.5) [1.2, 3.4] 100%|███| 损失 éé "
    "2020-01-01T00:00:00Z 12:00:00"
)
TOKENS = [*_TOKENS.split(" "), "9" * 400, "1" * 5000, "a" * 3000, "x=" * 200, "{" * 300, "1 " * 500, "", " "]


def change_lines(content: bytes, rng: Rng) -> bytes:
    """Lines dropped, doubled, moved, joined or cut; numbers, names and separators replaced."""
    lines = content.split(b"\n")
    at, other, choice = int(rng.integers(len(lines))), int(rng.integers(len(lines))), int(rng.integers(12))
    token = pick(rng, TOKENS).encode("utf-8", "surrogatepass")
    if choice == 0:
        del lines[at : at + int(rng.integers(1, 6))]
    elif choice == 1:
        lines[at:at] = lines[other : other + 3] * int(pick(rng, [1, 2, 50]))
    elif choice == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif choice == 3:
        lines[at : at + 2] = [token.join(lines[at : at + 2])]
    elif choice == 4:
        lines = [scramble(content, rng)]
    elif choice == 5:
        old, new = (pick(rng, [b",", b"\t", b" ", b":", b"=", b";", b"|", b"."]) for _ in range(2))
        lines = [line.replace(old, new) for line in lines]
    elif choice == 6:
        coding = pick(rng, ["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "cp1252", "shift_jis", "gb18030"])
        return content.decode("utf-8", "replace").encode(coding, "replace")
    elif choice == 7:
        lines = [token + line for line in lines] if rng.random() < 0.5 else lines[: int(rng.integers(1, 4))]
    else:
        numbers = list(re.finditer(rb"-?\d+\.?\d*|[A-Za-z_]+", lines[at]))
        if numbers:
            found = pick(rng, numbers)
            lines[at] = lines[at][: found.start()] + token + lines[at][found.end() :]
        if choice > 9 and numbers:  # the same in every line
            lines = [line.replace(found[0], token, 1) for line in lines]
    return b"\n".join(lines)


@cache
def log_seeds() -> dict[str, bytes]:
    paths = [path for path in sorted((FIXTURES / "logs").rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return {path.name: path.read_bytes()[:20_000] for path in paths if path.suffix != ".py"}


def log_case(rng: Rng) -> Case:
    name = pick(rng, sorted(log_seeds()))
    content = log_seeds()[name]
    is_json = content[:1] in (b"{", b"[") and not name.endswith("jsonl")
    changes: list[Callable[[bytes, Rng], bytes]] = [change_json, change_json, replace_text] if is_json else []
    damaged = repeat(pick(rng, [*changes, change_lines, change_lines, change_lines, scramble]), content, rng)
    options = [[], ["--json"], ["-v"], ["--html", "x.html"], ["--step", "epoch"], ["--generator", "loss_G"]]
    options += [["-o", "x.json"], ["--columns", "step,d,g"]]
    return Case({name: damaged}, ["losses", name, *pick(rng, options)])


# records


@cache
def record_seeds() -> dict[str, bytes]:
    from test_fuzz_inputs import run

    names = (
        "healthy",
        "collapsed",
        "complete",
        "wrong_scale",
        "inconclusive",
        "degeneracy",
        "vectors",
        "hostile",
        "bare",
    )
    found = {name: getattr(records, name)().to_json().encode() for name in names}
    log = str(FIXTURES / "logs" / "dcgan.txt")
    found["log"] = run(["losses", log, "--json"], Path("/"))[1].encode()
    found["real"] = run(["audit", RING, "-n", "200", "--real", str(FIXTURES / "ring.npz"), "--json"], Path("/"))[
        1
    ].encode()
    return found


def graft(content: bytes, rng: Rng) -> bytes:
    """A part of another document in place of one of this."""
    try:
        root, other = json.loads(content), json.loads(record_seeds()[pick(rng, sorted(record_seeds()))])
    except ValueError:
        return scramble(content, rng)
    if not isinstance(root, dict) or not root or not isinstance(other, dict):
        return content
    target, source = root, other
    for _ in range(int(rng.integers(0, 3))):
        inner = [value for value in target.values() if isinstance(value, dict) and value]
        target = pick(rng, inner) if inner else target
        parts = [value for value in source.values() if isinstance(value, dict) and value]
        source = pick(rng, parts) if parts else source
    target[pick(rng, sorted(target))] = pick(rng, [source, *source.values()])
    return json.dumps(root).encode()


def record_case(rng: Rng) -> Case:
    names = sorted(record_seeds())
    content, other = (record_seeds()[pick(rng, names)] for _ in range(2))
    damaged = repeat(pick(rng, [change_json] * 5 + [graft] * 3 + [scramble, replace_text]), content, rng)
    argv = pick(
        rng,
        [
            ["report", "a.json"],
            ["report", "a.json", "-vv"],
            ["report", "a.json", "-o", "x.html"],
            ["report", "a.json", "-f", "markdown"],
            ["gate", "a.json"],
            ["gate", "a.json", "--baseline", "b.json", "-f", pick(rng, ["text", "junit", "github", "json"])],
            ["gate", "b.json", "--baseline", "a.json"],
            ["gate", "b.json", "--policy", "policy.toml"],
            ["compare", "a.json", "b.json"],
            ["compare", "b.json", "a.json", "-f", pick(rng, ["json", "markdown"])],
        ],
    )
    policy = repeat(change_toml, POLICY.encode(), rng)
    return Case({"a.json": damaged, "b.json": other, "policy.toml": policy}, argv)


# configuration

POLICY = """[gate]
max-score = 0.2
baseline = "b.json"
max-regress = 0.05
allow = ["inconclusive"]
forbid = ["GD301"]

[gate.limits]
recall = { min = 0.6 }
profile.missing = { max = 0.1 }
classes."*" = { max = 0.4 }
"frechet[imagenet]" = { max = 30, max-regress = 5 }
"""
SETTINGS = """[audit]
n = 100
seed = 3
scales = [0.5, 1.0]
limit = 0.2
metrics = ["irs"]
budget = "quick"
prior = "normal"
output-range = [-1.0, 1.0]
"""
_VALUES = (
    '1979-05-27 1979-05-27T07:32:00Z 07:32:00 inf -inf nan true 0 -1 1e308 0x10 0o7 1_000 9223372036854775808 "" "x" '
    '"a:b" "../x" "/etc/passwd" "hf:x/y" [] [[]] [1,"a"] {} {a=1} {min="x"} "\\u0000" "\\uFFFF" """x""" \'\'\'y\'\'\' '
    "[1e400] [nan] [true] [{}] 1.5 -0.0 [1979-05-27] {max=[]} {max={}} {max=nan} {min=true}"
)
VALUES = [*_VALUES.split(" "), "9" * 5000, "[" * 200 + "]" * 200, '"' + "x" * 5000 + '"', "[" + "1," * 3000 + "]"]


def change_toml(content: bytes, rng: Rng) -> bytes:
    """A value, key or header replaced; lines dropped, doubled or added."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    at, choice = int(rng.integers(len(lines))), int(rng.integers(9))
    settings = [*AuditConfig.__dataclass_fields__, "class", "x", "", '"\\u0000"', "a.b.c", "é", ".".join("a" * 60)]
    key = pick(rng, settings).replace("_", "-")
    if choice == 0:
        return scramble(content, rng)
    if choice == 1:
        del lines[at]
    elif choice == 2:
        lines.insert(at, lines[int(rng.integers(len(lines)))])
    elif choice == 3:
        lines[at] = pick(
            rng, ["[audit]", "[gate]", "[gate.limits]", "[[audit]]", "[tool.gandiag.audit]", "[x", "[a.b.c]"]
        )
    elif choice == 4:
        lines.insert(at, f"{key} = {pick(rng, VALUES)}")
    else:
        name, sign, _ = lines[at].partition("=")
        lines[at] = f"{key if choice == 5 else name}{sign or '='} {pick(rng, VALUES)}"
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def settings_case(rng: Rng) -> Case:
    name = pick(rng, ["gandiag.toml", "gandiag.toml", "pyproject.toml"])
    content = SETTINGS + POLICY
    if name == "pyproject.toml":
        content = re.sub(r"^\[(audit|gate)", r"[tool.gandiag.\1", content, flags=re.M)
    damaged = repeat(change_toml, content.encode(), rng)
    argv = pick(
        rng,
        [
            ["audit", RING, "--dry-run"],
            ["audit", RING, "--show-config"],
            ["gate", "b.json"],
            ["gate", "b.json", "--show-config"],
            ["gate", "b.json", "--policy", name],
            ["inspect", RING],
        ],
    )
    return Case({name: damaged, "b.json": record_seeds()["real"]}, argv)


TARGETS: dict[str, Callable[[Rng], Case]] = {
    "losses": log_case,
    "records": record_case,
    "configuration": settings_case,
    "images": lambda rng: Case(*image_case(rng)),
}
