"""The formats of a gate's result, by name; plug-ins add theirs under the entry-point group `gandiag.gates`.

A format is a function `render(gated) -> str`, of the subjects in the order they were given.
"""

from __future__ import annotations

from gandiag.registry import Registry

GATE_FORMATS = Registry(
    "gates",
    {
        "text": "gandiag.report.gate_text:render_gate_text",
        "json": "gandiag.report.gate_text:render_gate_json",
        "junit": "gandiag.report.gate_junit:render_junit",
        "github": "gandiag.report.gate_github:render_github",
        "markdown": "gandiag.report.markdown:render_gate_markdown",
    },
)
