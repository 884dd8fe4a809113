"""gandiag merge: the record of an audit that was made in shards."""

from __future__ import annotations

from typing import Any

import click

from . import console
from .audit import OutputOptions, check_writable, finish_audit
from .options import (
    CONTEXT_SETTINGS,
    GroupedCommand,
    debug_option,
    exit_zero_option,
    html_option,
    json_option,
    output_option,
    own_options,
    quiet_option,
    verbose_option,
)


@click.command("merge", cls=GroupedCommand, context_settings=CONTEXT_SETTINGS)
@click.argument("shards", metavar="SHARD...", nargs=-1, required=True)
@own_options
@json_option("print the record as one JSON document")
@output_option("write the record (JSON) here", metavar="RECORD")
@html_option
@exit_zero_option
@quiet_option
@verbose_option("show the whole report (-v), with all measurements and remedies (-vv)")
@debug_option
def merge_command(
    shards: tuple[str, ...],
    as_json: bool,
    output: str | None,
    html_path: str | None,
    exit_zero: bool,
    quiet: int,
    verbose: int,
    debug: bool,
    **flags: Any,
) -> int:
    """Make the record of an audit from all its shards, files of `gandiag audit --shard K/W -o FILE`.

    It is the record that one process would have made. The checkpoint and the real data are opened again, for the
    probes: run it where they are. Settings come from the shards; those that run code, reach the network or read other
    files must be repeated here.
    """
    console.configure_output(quiet=quiet, verbose=verbose, debug=debug)
    for path in (output, html_path):
        check_writable(path)
    from gandiag.pipeline.shard_audit import merge_shards

    console.print_import_note(flags.get("model"))
    own = {name: value for name, value in flags.items() if value is not None}
    with console.show_progress() as on_progress:
        record = merge_shards(shards, own, progress=on_progress, on_message=console.print_info)
    return finish_audit(record, OutputOptions(as_json, output, html_path, exit_zero, quiet > 0))
