"""Names of views: an extractor, a side in pixels, a degradation level. "imagenet", "imagenet@224", "imagenet+2", "pixels@16+1"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gandiag.errors import FeatureError

DEFAULT_RESOLUTIONS = {"imagenet": 128, "pixels": 8}
DEGRADATION_LEVELS = (0, 1, 2)
_SIDES = {"imagenet": (32, 1024), "pixels": (1, 64)}
_FORM = re.compile(r"(?P<base>[^@+]+)(@(?P<side>\d+))?(\+(?P<level>\d+))?")


@dataclass(frozen=True, slots=True)
class ViewName:
    """`base`: name in the extractor registry. `side`: pixels, None where the extractor has no choice. `level`: see `glass`."""

    base: str
    resolution: int | None = None
    level: int = 0

    def __str__(self) -> str:
        side = "" if self.resolution in (None, DEFAULT_RESOLUTIONS.get(self.base)) else f"@{self.resolution}"
        return f"{self.base}{side}" + (f"+{self.level}" if self.level else "")

    @property
    def full_name(self) -> str:
        """With the side, always: what goes into a record and a hash."""
        return self.base + (f"@{self.resolution}" if self.resolution else "") + (f"+{self.level}" if self.level else "")

    def with_level(self, level: int) -> ViewName:
        """The same view behind `level` panes of frosted glass."""
        return replace(self, level=level)


def parse_view_name(name: str) -> ViewName:
    """Read a view name; the default side is filled in, so that "imagenet" equals "imagenet@128". FeatureError with the form."""
    form = _FORM.fullmatch(name.strip())
    if form is None:
        raise FeatureError(
            f"{name!r} is no name of features",
            "write name, name@side or name+level, such as imagenet@224 or imagenet+1",
        )
    base, level = form["base"], int(form["level"] or 0)
    side = int(form["side"]) if form["side"] else DEFAULT_RESOLUTIONS.get(base)
    if form["side"] and base not in DEFAULT_RESOLUTIONS:
        raise FeatureError(f"{base} has no choice of resolution, so {name!r} is no name of features", f"write {base}")
    if side is not None and not _SIDES[base][0] <= side <= _SIDES[base][1]:
        raise FeatureError(f"{base} at {side} pixels", f"choose a side from {_SIDES[base][0]} to {_SIDES[base][1]}")
    if level not in DEGRADATION_LEVELS:
        raise FeatureError(
            f"{name!r} asks for degradation level {level}", f"choose from {', '.join(map(str, DEGRADATION_LEVELS))}"
        )
    return ViewName(base, side, level)
