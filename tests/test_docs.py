"""The pages in docs/: links that lead somewhere, console output that is not stale, examples that run, a reference that
follows the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gandiag.verdict.gate_policy import parse_policy

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == linked


@pytest.mark.parametrize("page", ["reference", "baselines"])
def test_what_is_generated_follows_the_code_and_the_bank(page: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import generate; print(generate.{page}(), end='')"],
        cwd=DOCS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (DOCS / f"{page}.md").read_text(encoding="utf-8"), "stale: python docs/generate.py"


def masked(text: str) -> str:
    """Without numbers, whose last digits differ between machines."""
    return re.sub(r"\d[\d,.]*", "#", text)


def matches(expected: list[str], shown: list[str]) -> bool:
    """Lines in order; `…` stands for any lines."""
    if not expected:
        return not shown
    if expected[0] == "…":
        return any(matches(expected[1:], shown[at:]) for at in range(len(shown) + 1))
    return (
        bool(shown) and masked(expected[0]).rstrip() == masked(shown[0]).rstrip() and matches(expected[1:], shown[1:])
    )


def test_the_tutorial_shows_what_the_commands_say(tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    (tmp_path / "gandiag.toml").write_text(blocks(DOCS / "tutorial.md", "toml")[0])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    for block in blocks(DOCS / "tutorial.md", "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.rstrip("\n").split("\n")
            line = [sys.executable, "-m", *command.split()]
            done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
            shown = done.stdout.rstrip("\n").split("\n") if done.stdout else []
            assert matches(expected, shown), f"$ {command}\n{done.stdout}{done.stderr}"


def test_the_examples_in_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures", ignore=shutil.ignore_patterns("real*", "*.py"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(DOCS / "python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert capsys.readouterr().out.startswith("COLLAPSED")


@pytest.mark.slow
def test_the_examples_with_groups_run() -> None:
    pytest.importorskip("diffusers")
    names: dict[str, object] = {}
    for block in blocks(DOCS / "groups.md", "python"):
        exec(compile(block, "docs/groups.md", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_code_on_the_pages_is_code(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
    for block in blocks(page, "toml"):
        table = tomllib.loads(block)
        assert "gate" not in table or parse_policy(table["gate"])


ROWS = {  # of docs/families.md, by the name that a family is registered under
    "stylegan3": "StyleGAN3 t and r",
    "rosinality-stylegan1": "StyleGAN (rosinality",
    "sngan-projection": "SNGAN projection",
    "gan-collections": "pytorch-gan-collections",
    "gan-stability": r"GAN\_stability",
    "ctgan": "CTGAN",
    "tvae": "TVAE",
    "nvidia": "StyleGAN2-ADA (NVIDIA)",
    "rosinality": "StyleGAN2 (rosinality)",
    "stylegan2-pytorch": "StyleGAN2 (stylegan2-pytorch)",
    "biggan-deep": "BigGAN-deep (pytorch-pretrained-biggan)",
    "biggan": "BigGAN-deep (ajbrock)",
    "studiogan": "StudioGAN",
    "mimicry": "mimicry",
    "r3gan": "R3GAN",
    "pgan": "Progressive GAN",
    "lightweight-gan": "lightweight-gan",
    "fastgan": "FastGAN",
    "sagan": "SAGAN",
    "pickled": "whole pickles",
    "transposed": "ConvTranspose",
    "projected": "upsample-convolution",
    "mlp": "MLP stacks",
}


def test_every_family_has_a_row() -> None:
    from gandiag.checkpoints.architectures.registry import MATCH_ORDER

    firsts = [
        line.split("|")[1]
        for line in (DOCS / "families.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert set(ROWS) == set(MATCH_ORDER), "a new family: add its row to docs/families.md, and its words here"
    assert all(any(words in first for first in firsts) for words in ROWS.values())
