"""View names: extractor, resolution and degradation level. "imagenet", "imagenet@224", "imagenet+2", "pixels@16+1"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gandiag.errors import FeatureError

DEFAULT_RESOLUTIONS = {"imagenet": 128, "pixels": 8, "logmel": 16_000}  # of logmel: the sampling rate in Hz
DEGRADATION_LEVELS = (0, 1, 2)
_RESOLUTION_RANGES = {"imagenet": (32, 1024), "pixels": (1, 64), "logmel": (100, 384_000)}
_PATTERN = re.compile(r"(?P<base>[^@+]+)(@(?P<resolution>\d+))?(\+(?P<level>\d+))?")


@dataclass(frozen=True, slots=True)
class ViewName:
    """`base`: name in the extractor registry. `resolution`: pixels, None where the extractor has a fixed one.

    `level`: see `gandiag.features.degradation`.
    """

    base: str
    resolution: int | None = None
    level: int = 0

    def __str__(self) -> str:
        is_default = self.resolution in (None, DEFAULT_RESOLUTIONS.get(self.base))
        return self.base + ("" if is_default else f"@{self.resolution}") + self._level_suffix

    @property
    def full_name(self) -> str:
        """Always with the resolution: the name used in records and hashes."""
        return self.base + (f"@{self.resolution}" if self.resolution else "") + self._level_suffix

    @property
    def _level_suffix(self) -> str:
        return f"+{self.level}" if self.level else ""

    def with_level(self, level: int) -> ViewName:
        """The same view at a degradation level."""
        return replace(self, level=level)


def parse_view_name(name: str) -> ViewName:
    """Parse a view name, filling in the default resolution: "imagenet" is "imagenet@128". FeatureError if invalid."""
    match = _PATTERN.fullmatch(name.strip())
    if match is None:
        raise FeatureError(
            f"{name!r} is not a valid feature name",
            "write name, name@resolution or name+level, such as imagenet@224 or imagenet+1",
        )
    base, level = match["base"], int(match["level"] or 0)
    resolution = int(match["resolution"]) if match["resolution"] else DEFAULT_RESOLUTIONS.get(base)
    if match["resolution"] and base not in DEFAULT_RESOLUTIONS:
        raise FeatureError(f"{name!r} names a resolution, but that of {base} cannot be chosen", f"write {base}")
    if resolution is not None:
        low, high = _RESOLUTION_RANGES[base]
        if not low <= resolution <= high:
            raise FeatureError(
                f"{base} does not support a resolution of {resolution} pixels", f"choose from {low} to {high}"
            )
    if level not in DEGRADATION_LEVELS:
        raise FeatureError(
            f"{name!r} names degradation level {level}, which does not exist",
            f"choose from {', '.join(map(str, DEGRADATION_LEVELS))}",
        )
    return ViewName(base, resolution, level)
