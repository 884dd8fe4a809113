"""Jinja templates and the style sheet of the HTML pages, with escaping of everything that is not marked safe."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gandiag import __version__
from gandiag.report import formatting

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render_template(name: str, **values: Any) -> str:
    """Render gandiag/data/<name> with the style sheet and gandiag's version. Loads jinja2."""
    return _load_environment().get_template(name).render(**values, css=_load_css(), version=__version__)


def mark_safe(text: str) -> Markup:
    """Mark text as HTML that must not be escaped: our own markup only, never a string of a checkpoint."""
    from markupsafe import Markup

    return Markup(text)


def _load_css() -> Markup:
    return mark_safe(files("gandiag.data").joinpath("page.css").read_text(encoding="utf-8"))


def load_script() -> str:
    """The script of the pages, which adds sliders, large views, sorting and copying to what is there without it."""
    return files("gandiag.data").joinpath("page.js").read_text(encoding="utf-8")


def hash_script(script: str) -> str:
    """The hash by which the content security policy of a page admits one inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _load_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gandiag", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escape_unprintable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capitalize_first"] = formatting.capitalize_first
    return environment


def _escape_unprintable(value: Any) -> Any:
    """Show control and direction characters of every string that is not our own markup as escapes."""
    return formatting.escape_unprintable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
