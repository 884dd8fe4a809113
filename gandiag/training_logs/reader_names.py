"""Columns that the user names, in place of the inferred ones."""

from __future__ import annotations

from dataclasses import dataclass

# Names of `--columns` that say the role; any other is inferred as in a header.
HEADERLESS_NAMES = {
    "generator": ("g", "gen", "generator"),
    "discriminator": ("d", "disc", "discriminator", "c", "critic"),
    "step": ("step", "steps", "iter", "iteration", "s"),
}


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Columns specified by the user, in place of the inferred ones."""

    generator: str | None = None
    discriminator: str | None = None
    step: str | None = None
    headerless: tuple[str, ...] = ()  # the names of all columns of a table without a header, in order

    def get_specified(self) -> dict[str, str]:
        """Role -> column, for the columns that are specified."""
        return {role: name for role in ("generator", "discriminator", "step") if (name := getattr(self, role))}
