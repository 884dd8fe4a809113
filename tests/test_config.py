"""Settings: the precedence of their four sources, errors for every mistake, and the options derived from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from gandiag.cli.audit import audit_command

from gandiag.config import BUDGET_SAMPLES, AuditConfig, option_name, resolve_config
from gandiag.errors import ConfigError


def test_precedence_is_flag_environment_file_default(tmp_path: Path) -> None:
    (tmp_path / "gandiag.toml").write_text("[audit]\nseed = 1\nlimit = 0.2\nlatent-dim = 64\nscales = [1.0, 2.0]\n")
    environ = {"GANDIAG_SEED": "2", "GANDIAG_LIMIT": "0.3", "OTHER": "x"}
    resolved = resolve_config({"seed": 3}, environ=environ, folder=tmp_path)
    config, sources = resolved.config, resolved.sources
    assert (config.seed, config.limit, config.latent_dim, config.scales) == (3, 0.3, 64, (1.0, 2.0))
    assert sources["seed"] == "flag" and "GANDIAG_LIMIT" in sources["limit"]
    assert sources["latent_dim"] == "gandiag.toml" and sources["budget"] == "default"


def test_pyproject_is_read_without_gandiag_toml(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.gandiag.audit]\nbudget = "quick"\n')
    assert resolve_config({}, environ={}, folder=tmp_path).config.budget == "quick"


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        ({"bugdet": "quick"}, "bugdet", "budget"),
        ({"budget": "fast"}, "--budget is 'fast'", "choose from"),
        ({"limit": 1.5}, "--limit is 1.5", "at most 1"),
        ({"limit": float("nan")}, "--limit is nan", "at least 0"),
        ({"n": 1}, "--n is 1", "at least 2"),
        ({"scales": (1.0, -1.0)}, "--scales is -1.0", "at least 0"),
        ({"output_range": (1.0, -1.0)}, "--output-range", "low then high"),
        ({"class_": -1}, "--class is -1", "at least 0"),
    ],
)
def test_mistakes_in_flags_have_a_message_and_a_hint(
    flags: dict[str, Any], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(flags, environ={}, folder=tmp_path)
    assert message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[audit]\nbugdet = 'quick'\n", "'bugdet'", "budget"),
        ("[audit\n", "not valid TOML", "correct"),
        ("[audit]\nseed = 'x'\n", "'x'", "int"),
    ],
)
def test_mistakes_in_the_file_have_a_message_and_a_hint(text: str, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "gandiag.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, environ={}, folder=tmp_path)
    assert message in caught.value.message and hint in caught.value.hint


def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GANDIAG_SEED"):
        resolve_config({}, environ={"GANDIAG_SEED": "many"}, folder=tmp_path)


def test_every_setting_is_an_option_without_a_default_of_its_own() -> None:
    options = {parameter.name: parameter for parameter in audit_command.params}
    unset = audit_command.make_context("audit", ["ckpt.pt"]).params
    for entry in dataclasses.fields(AuditConfig):
        assert entry.name in options, f"{option_name(entry.name)} is not an option"
        # An unset option must be None, so that environment, TOML and defaults apply.
        assert unset[entry.name] is None, option_name(entry.name)
        assert entry.metadata["help"] in (getattr(options[entry.name], "help", "") or "")


def test_budgets() -> None:
    assert AuditConfig(budget="quick").n_samples("cpu") == 1_000
    assert AuditConfig().n_samples("cpu") == 2_000 and AuditConfig().n_samples("cuda") == 10_000
    assert AuditConfig(budget="thorough", n=77).n_samples("cpu") == 77
    assert set(BUDGET_SAMPLES) == {"quick", "standard", "thorough"}


@pytest.mark.parametrize("text", ["1", "true", "YES"])
def test_the_environment_cannot_trust_every_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, environ={"GANDIAG_TRUST": text}, folder=tmp_path)
    assert "GANDIAG_TRUST would trust every file" in caught.value.message and "--trust" in caught.value.hint
    with pytest.raises(ConfigError):  # neither beside the option: the variable stays set for the next file
        resolve_config({"trust": True}, environ={"GANDIAG_TRUST": text}, folder=tmp_path)


@pytest.mark.parametrize("text", ["0", "no"])
def test_the_environment_may_say_that_nothing_is_trusted(text: str, tmp_path: Path) -> None:
    assert not resolve_config({}, environ={"GANDIAG_TRUST": text}, folder=tmp_path).config.trust
    assert resolve_config({"trust": True}, environ={"GANDIAG_TRUST": text}, folder=tmp_path).config.trust
    with pytest.raises(ConfigError, match="GANDIAG_TRUST is 'maybe'"):
        resolve_config({}, environ={"GANDIAG_TRUST": "maybe"}, folder=tmp_path)


@pytest.mark.parametrize("name", ["real", "holdout", "log", "against", "group-by"])
@pytest.mark.parametrize(
    ("value", "why"), [("../x", "outside"), ("/etc/x", "outside"), ("hf:a/b", "network"), ("-", "standard input")]
)
def test_paths_of_a_project_stay_in_it(name: str, value: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "gandiag.toml").write_text(f"[audit]\n{name} = {value!r}\n")
    with pytest.raises(ConfigError, match=rf"gandiag.toml:2 sets {name}.*{why}"):
        resolve_config({}, environ={}, folder=tmp_path)


def test_trust_is_not_extended_to_a_file_that_a_project_names(tmp_path: Path) -> None:
    (tmp_path / "gandiag.toml").write_text('[audit]\nagainst = "other.pt"\n')
    with pytest.raises(ConfigError, match=r"run the code in other\.pt too"):
        resolve_config({"trust": True}, environ={}, folder=tmp_path)
    assert resolve_config({"trust": True, "against": "mine.pt"}, environ={}, folder=tmp_path).config.trust
    assert resolve_config({}, environ={}, folder=tmp_path).config.against == "other.pt"
