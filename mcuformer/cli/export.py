# SPDX-License-Identifier: Apache-2.0
"""mcuformer export: a model as a folder of sources for firmware. The kinds of export declare the options.

`export` is the registry's, which returns what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mcuformer.cli.common import PATH, check_outputs, json_option, out, write_json
from mcuformer.converter.export import registry
from mcuformer.converter.export.registry import export

KINDS = "; ".join(f"{target.name}: {target.help}" for target in registry.TARGETS.values())


def options_of_kinds(function: Callable) -> Callable:
    """Declares the options that the kinds of export take."""
    for option in reversed(registry.all_options().values()):
        reads: dict[str, Any] = {"default": option.default}
        if option.default is False:
            reads = {"is_flag": True}
        elif option.repeated:
            reads = {"multiple": True}
        words = f"With {registry.takers(option.name)}: {option.help}"
        function = click.option(option.flag, option.name, help=words, **reads)(function)
    return function


@click.command("export")
@click.argument(
    "models", nargs=-1, required=True, type=PATH, help="One or several .tflite made by `mcuformer convert`."
)
@click.option("--to", required=True, help=f"{KINDS}.")
@click.option("--out", "-o", "output", required=True, type=PATH, help="The folder to write.")
@options_of_kinds
@click.option("--weights", type=PATH, help="The file of staged weights; default: the one beside the model.")
@click.option("--force", is_flag=True, help="Replace the files of an existing export.")
@json_option
def command(
    models: tuple[Path, ...], to: str, output: Path, weights: Path | None, force: bool, json_file: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Export models as sources for firmware."""
    check_outputs(json_file)
    shown = registry.all_options()
    given = {name: value for name, value in options.items() if value not in (shown[name].default, ())}
    result = export(models, to, output, force=force, weights=weights, **given)
    for line in result.lines:
        out.print(line)
    write_json(json_file, {"folder": str(result.folder), **result.values})
