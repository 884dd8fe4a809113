"""Names stay plain: no refused words in identifiers, verb_noun functions, no public name that hides a submodule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "gandiag").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])

# Words that once stood for a standard term; the term is what a reader searches for.
REFUSED = {
    "told": "text, rows, notes",
    "said": "text, assumptions",
    "nobody": "none",
    "knob": "setting",
    "glance": "inspect_only, quick check",
    "glimpse": "coarse",
    "rival": "runner_up, alternative",
    "stranger": "foreign",
    "kin": "variant",
    "opponent": "discriminator",
    "witness": "held-out",
    "pane": "degradation level",
    "glass": "degradation",
    "trio": "split",
    "course": "trend",
    "story": "report",
    "rulebook": "policy",
    "blueprint": "spec",
    "customary": "default",
}
# Methods and functions whose one word is the field's own, a protocol's, or a command's.
ONE_WORD_SHARE = 0.10


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every identifier that a module binds: definitions, parameters, assignments."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def words(name: str) -> list[str]:
    """ "ClassEmbedding" -> class, embedding; "n_steps" -> n, steps."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_no_refused_word_names_anything(path: Path) -> None:
    found = {
        f"line {line}: {name} (say: {REFUSED[word]})"
        for name, line in bound_names(ast.parse(path.read_text(encoding="utf-8")))
        for word in words(name)
        if word in REFUSED
    }
    assert not found, sorted(found)


def test_public_functions_are_rarely_one_word() -> None:
    names = {
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    single = sorted(name for name in names if len(words(name)) == 1)
    assert len(single) <= ONE_WORD_SHARE * len(names), single


def test_no_submodule_bears_the_name_of_a_public_function() -> None:
    """`import gandiag.metrics.kid` would replace the function `gandiag.metrics.kid`."""
    import gandiag
    import gandiag.metrics

    for package in (gandiag, gandiag.metrics):
        folder = Path(str(package.__file__)).parent
        modules = {
            entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()
        }
        assert not modules & set(package.__all__)


def test_few_modules_stand_at_the_top() -> None:
    modules = {entry.stem for entry in (ROOT / "gandiag").glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 9, sorted(modules)
