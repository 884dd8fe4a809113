"""`gandiag gate` in this process: exit codes, several subjects, formats, settings, imports.

test_exit_codes.py runs it in real processes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import records
from gandiag.cli.main import run_command_line

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"


@dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def gandiag(*arguments: str | Path, **environ: str) -> Outcome:
    """Run the command in this process and in the test's folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("NO_COLOR", "1")
        for name, value in environ.items():
            patch.setenv(name, value)
        code = run_command_line([*map(str, arguments)])
    return Outcome(code, out.getvalue(), err.getvalue())


@cache
def texts() -> dict[str, str]:
    return {name: make().to_json() for name, make in records.ALL.items()}


@pytest.fixture
def audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one record of each kind in it."""
    for name, text in texts().items():
        (tmp_path / f"{name}.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    ("healthy.json", 0, "PASS  healthy.json  HEALTHY"),
    ("collapsed.json", 1, "FAIL  collapsed.json  COLLAPSED"),
    ("inconclusive.json", 3, "UNCLEAR  inconclusive.json"),
    ("degeneracy.json", 3, "no real data"),
    ("degeneracy.json --allow degeneracy", 0, "allowed"),
    ("inconclusive.json --allow inconclusive", 0, "allowed"),
    ("collapsed.json --max-score 0.6", 0, "below 0.6"),
    ("healthy.json --max-score 0.01", 3, "contains the limit 0.01"),
    ("healthy.json inconclusive.json", 3, "1 of 2 failed"),
    ("inconclusive.json collapsed.json healthy.json", 1, "2 of 3 failed"),
    ("healthy.json missing.json collapsed.json", 2, "missing.json cannot be read"),
    ("collapsed.json --baseline collapsed.json --max-score 0.9", 0, "regress.score"),
    ("collapsed.json --baseline healthy.json --max-score 0.9", 1, "regress.score"),
    ("healthy.json --baseline collapsed.json", 0, "regress.score"),
    ("healthy.json --baseline degeneracy.json", 2, "against real data"),
]


@pytest.mark.parametrize(("line", "code", "text"), CASES, ids=[line for line, _, _ in CASES])
def test_the_worst_code_wins_and_the_reason_is_printed(line: str, code: int, text: str, audits: Path) -> None:
    outcome = gandiag("gate", *line.split())
    assert outcome.returncode == code, (outcome.stdout, outcome.stderr)
    assert text in outcome.stdout and outcome.stdout.rstrip().endswith(f"exit code {code}") and outcome.stderr == ""


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "RECORD"),
        ("healthy.json --policy no.toml", "no.toml cannot be read"),
        ("healthy.json --format xml", "choose from: github, json, junit"),
        ("healthy.json --max-score x", "--max-score"),
        ("healthy.json --max-score nan", "max-score"),
        ("healthy.json --allow all", "--allow"),
        ("healthy.json --baseline no.json", "no.json cannot be read"),
        ("healthy.json --max-scor 0.2", "--max-score"),
        ("healthy.json -o no/such/gate.xml", "cannot be written"),
    ],
)
def test_an_invalid_command_line_exits_2_before_any_check(line: str, text: str, audits: Path) -> None:
    outcome = gandiag("gate", *line.split())
    assert (
        outcome.returncode == 2
        and outcome.stdout == ""
        and text in outcome.stderr
        and "Traceback" not in outcome.stderr
    )


def test_damaged_records_are_errors_and_the_others_are_checked(audits: Path) -> None:
    document = json.loads((audits / "healthy.json").read_text())
    for name, broken in {
        "a": {**document, "score": {**document["score"], "low": "x"}},
        "b": {**document, "measurements": 3},
        "c": {"schema": "x"},
    }.items():
        (audits / f"{name}.json").write_text(json.dumps(broken))
    (audits / "d.json").write_text("{ not json")
    outcome = gandiag("gate", "a.json", "b.json", "c.json", "d.json", "healthy.json", "-f", "json")
    assert outcome.returncode == 2 and "Traceback" not in outcome.stderr
    subjects = json.loads(outcome.stdout)["subjects"]
    assert [entry["code"] for entry in subjects] == [2, 2, 2, 2, 0] and all(
        entry["error"]["hint"] for entry in subjects[:4]
    )


def test_flags_override_environment_and_environment_the_policy_file(audits: Path) -> None:
    (audits / "gandiag.toml").write_text("[gate]\nmax-score = 0.9\n[gate.limits]\nrecall = { min = 0.2 }\n")
    assert gandiag("gate", "collapsed.json").returncode == 0
    assert gandiag("gate", "collapsed.json", GANDIAG_MAX_SCORE="0.3").returncode == 1
    outcome = gandiag("gate", "collapsed.json", "--max-score", "0.8", GANDIAG_MAX_SCORE="0.3")
    assert outcome.returncode == 0 and "--max-score" in outcome.stdout and "gandiag.toml:4" in outcome.stdout
    (audits / "strict.toml").write_text("[gate]\nmax-score = 0.1\n")
    assert gandiag("gate", "collapsed.json", GANDIAG_POLICY="strict.toml").returncode == 1


def test_the_policy_is_shown_with_the_source_of_each_value(audits: Path) -> None:
    (audits / "gandiag.toml").write_text(
        "[audit]\nseed = 4\n[gate]\nmax-score = 0.9\n[gate.limits]\nrecall = { min = 0.2 }\n"
    )
    outcome = gandiag("gate", "healthy.json", "--show-config", "--allow", "unmeasured", GANDIAG_MAX_REGRESS="0.1")
    rows = {line.split()[0]: line for line in outcome.stdout.splitlines() if line}
    assert outcome.returncode == 0 and "0.9" in rows["max-score"] and "gandiag.toml:4" in rows["max-score"]
    assert "GANDIAG_MAX_REGRESS" in rows["max-regress"] and "--allow" in rows["allow"] and "default" in rows["baseline"]
    assert (
        "at least 0.2" in rows["limits.recall"]
        and "gandiag.toml:6" in rows["limits.recall"]
        and "gandiag.toml" in rows["seed"]
    )


def test_the_shell_completes_commands_and_options() -> None:
    def complete(words: str) -> set[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_GANDIAG_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        outcome = subprocess.run(
            [sys.executable, "-c", "from gandiag.cli.main import entry; entry()"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr
        return {line.partition(",")[2] for line in outcome.stdout.splitlines()}

    assert complete("gandiag g") == {"gate"} and {"--policy"} <= complete("gandiag gate --p")
    assert complete("gandiag gate a.json --allow de") == {"degeneracy"}


def test_the_result_can_be_written_to_a_file(audits: Path) -> None:
    outcome = gandiag("gate", "collapsed.json", "-f", "junit", "-o", "gate.xml")
    assert outcome.returncode == 1 and outcome.stdout == "" and "wrote gate.xml" in outcome.stderr
    assert (audits / "gate.xml").read_text().startswith("<?xml")


def test_checking_records_imports_nothing_heavy(audits: Path) -> None:
    script = (
        "import sys; from gandiag.cli.main import run_command_line\n"
        "line = ['gate', 'healthy.json', 'collapsed.json', '--baseline', 'healthy.json', '-f']\n"
        "codes = [run_command_line([*line, form]) for form in ('text', 'json', 'junit', 'github', 'markdown')]\n"
        "assert codes == [1] * 5, codes\n"
        "sys.exit(str({'torch', 'numpy', 'matplotlib', 'scipy', 'rich', 'jinja2'} & set(sys.modules) or '') or 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=audits, env=env, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


def test_checkpoints_are_audited_and_checked_beside_records(audits: Path) -> None:
    checkpoint, real = FIXTURES / "ring_one_mode.safetensors", FIXTURES / "ring.npz"
    outcome = gandiag("gate", "healthy.json", checkpoint, "--real", real, "-n", "400", "-f", "json")
    assert outcome.returncode == 1, outcome.stderr
    first, second = json.loads(outcome.stdout)["subjects"]
    assert (
        first["code"] == 0
        and second["code"] == 1
        and second["verdict"] == "collapsed"
        and second["score"]["n_fake"] == 400
    )


def test_records_of_different_audits_are_not_compared_silently(audits: Path) -> None:
    base = records.healthy()
    changed = {
        "features.json": replace(
            base, provenance={**base.provenance, "features": {"imagenet@224": "efficientnet-lite0:0c4b6f2d"}}
        ),
        "weights.json": replace(
            base, provenance={**base.provenance, "features": {"imagenet@128": "efficientnet-lite0:other"}}
        ),
        "n.json": replace(base, score=replace(base.score, n_fake=777)),
        "seed.json": replace(base, provenance={**base.provenance, "seed": 7}),
    }
    for name, record in changed.items():
        record.write(audits / name)
    expected = {
        "features.json": (2, "features"),
        "weights.json": (2, "lite0:other"),
        "n.json": (3, "777"),
        "seed.json": (3, "seeds differ: 7 and 0"),
    }
    for name, (code, text) in expected.items():
        outcome = gandiag("gate", "healthy.json", "--baseline", name, "--max-regress", "0")
        assert outcome.returncode == code and text in outcome.stdout, outcome.stdout
