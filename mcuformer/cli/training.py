# SPDX-License-Identifier: Apache-2.0
"""What train, evolve and finetune share: the training options, and how they are read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcuformer.errors import ConfigError
from mcuformer.sizes import read_size

if TYPE_CHECKING:
    from mcuformer.nas.train_options import TrainOptions

HeldOutOption = Annotated[
    int | None,
    typer.Option(help="Training images held out for selection; default: a sixth, at most 5,000."),
]
TrainingOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="One field of TrainOptions, such as --option learning_rate=0.002. Repeatable."),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="State after every epoch; training continues from it if it exists.")
]
TeacherOption = Annotated[
    Path | None,
    typer.Option(
        help="Learn from this network's answers too: a subnet.pt, a supernet.pt, or a program that torch.export.save "
        "wrote (.pt2; it may hold code: open none that you do not trust). See --option teacher_weight."
    ),
]


def assignments(pairs: list[str] | None, flag: str) -> dict[str, Any]:
    """["depth=4"] -> {"depth": 4}; values are JSON, sizes such as 120x160 (height x width), or else text."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"{flag} {pair!r}: write it as field=value, such as {flag} depth=4")
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):  # also of lists too deep, and of numbers too long
            values[name] = read_size(text) or text
    return values


def train_options(defaults: TrainOptions, pairs: list[str] | None, **flags: int | None) -> TrainOptions:
    """defaults with the --option pairs and the flags that are not None; ConfigError for unknown or repeated ones."""
    known = {field.name for field in dataclasses.fields(defaults)}
    given = assignments(pairs, "--option")
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown option {unknown[0]!r}: known are {', '.join(sorted(known))}")
    set_flags: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if twice := sorted(set(given) & set(set_flags)):
        raise ConfigError(f"--option {twice[0]}: give it as --{twice[0]} alone, which is {set_flags[twice[0]]}")
    return dataclasses.replace(defaults, **given, **set_flags)
