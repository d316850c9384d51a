# SPDX-License-Identifier: Apache-2.0
"""mcuformer export: a model as a folder of sources for firmware. The kinds of export declare the options.

`export` is the registry's, which returns what was written.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from mcuformer.cli.common import JsonOption, app, check_outputs, out, write_json
from mcuformer.converter.export import registry
from mcuformer.converter.export.registry import export

ModelsArgument = Annotated[
    list[Path], typer.Argument(metavar="MODELS...", help="One or several .tflite made by `mcuformer convert`.")
]
OutputOption = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]
WeightsOption = Annotated[
    Path | None, typer.Option(help="The file of staged weights; default: the one beside the model.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the files of an existing export.")]


def command(
    models: list[Path], to: str, output: Path, weights: Path | None, force: bool, json_file: Path | None, **options: Any
) -> None:
    """Export models as sources for firmware."""
    check_outputs(json_file)
    shown = registry.all_options()
    given = {name: value for name, value in options.items() if value not in (shown[name].default, [])}
    result = export(models, to, output, force=force, weights=weights, **given)
    for line in result.lines:
        out.print(line)
    write_json(json_file, {"folder": str(result.folder), **result.values})


def _parameters() -> list[inspect.Parameter]:
    """The command's parameters: its own options, and those of all kinds of export."""

    def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    kinds = "; ".join(f"{target.name}: {target.help}" for target in registry.TARGETS.values())
    return [
        parameter("models", ModelsArgument),
        parameter("to", Annotated[str, typer.Option(help=f"{kinds}.")]),
        parameter("output", OutputOption),
        *(parameter(option.name, _annotation(option), option.default) for option in registry.all_options().values()),
        parameter("weights", WeightsOption, None),
        parameter("force", ForceOption, False),
        parameter("json_file", JsonOption, None),
    ]


def _annotation(option: registry.Option) -> Any:
    kind: Any = type(option.default) if option.default is not None else str | None
    if option.repeated:
        kind = list[str] | None
    return Annotated[kind, typer.Option(option.flag, help=f"With {registry.takers(option.name)}: {option.help}")]


command.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
command.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters()}
app.command("export")(command)
