# SPDX-License-Identifier: Apache-2.0
"""What train, evolve and finetune share: the training options, and how they are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mcuformer.cli.common import PATH
from mcuformer.errors import ConfigError
from mcuformer.sizes import read_size

if TYPE_CHECKING:
    from mcuformer.nas.train_options import TrainOptions

held_out_option = click.option(
    "--held-out",
    type=int,
    help="Training images held out for selection; default: a sixth, at most 5,000 or 100 a class.",
)
stratified_option = click.option(
    "--stratified/--no-stratified",
    default=True,
    help="Hold out as large a share of each class; a run that version 0.1.0 began did not.",
)
training_option = click.option(
    "--option",
    "training",
    multiple=True,
    help="One field of TrainOptions, such as --option learning_rate=0.002. Repeatable.",
)
class_weights_option = click.option(
    "--class-weights",
    help="balanced, or a number for each class, such as 1,2.5,1: how much its images count in the loss.",
)
front_end_option = click.option(
    "--front-end", multiple=True, help="One number of how sound becomes rows, such as --front-end hop=320. Repeatable."
)
checkpoint_option = click.option(
    "--checkpoint", type=PATH, help="State after every epoch; training continues from it if it exists."
)
teacher_option = click.option(
    "--teacher",
    type=PATH,
    help="Learn from this network's answers too: a subnet.pt, a supernet.pt, or a program that torch.export.save "
    "wrote (.pt2; it may hold code: open none that you do not trust). See --option teacher_weight.",
)


def assignments(pairs: Sequence[str] | None, flag: str) -> dict[str, Any]:
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


def read_class_weights(text: str | None) -> str | list[float] | None:
    """ "1,2.5" -> [1.0, 2.5]; other text as it is, for TrainOptions to judge."""
    try:
        return None if text is None else [float(weight) for weight in text.split(",")]
    except ValueError:
        return text


def train_options(defaults: TrainOptions, pairs: Sequence[str] | None, **flags: object) -> TrainOptions:
    """defaults with the --option pairs and the flags that are not None; ConfigError for unknown or repeated ones."""
    known = {field.name for field in dataclasses.fields(defaults)}
    given = assignments(pairs, "--option")
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown option {unknown[0]!r}: known are {', '.join(sorted(known))}")
    set_flags: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if twice := sorted(set(given) & set(set_flags)):
        flag = twice[0].replace("_", "-")
        raise ConfigError(f"--option {twice[0]}: give it as --{flag} alone, which is {set_flags[twice[0]]}")
    return dataclasses.replace(defaults, **given, **set_flags)
