"""Numbers in sentences: three digits, no exponent where a person would write none."""

from __future__ import annotations


def format_value(value: float) -> str:
    """ "0.0523", "1.39", "-4,996", "1.2e-05"."""
    size = abs(value)
    if size >= 999.5 and size < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def format_change(value: float) -> str:
    """The same with its sign, "+3.16"."""
    return ("+" if value >= 0 else "") + format_value(value)


def format_step(step: float) -> str:
    """ "2,300", "37.5", "1,200,000"."""
    if abs(step) >= 1000 or step == round(step):
        return f"{step:,.0f}"
    return f"{step:.3g}"
