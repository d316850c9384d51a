# SPDX-License-Identifier: Apache-2.0
"""One subnet as a stand-alone network: built, saved, loaded."""

from __future__ import annotations

import os
from typing import Any

from mcuformer.checks import is_whole, shown, whole
from mcuformer.converter.checked_network import unwrapped
from mcuformer.converter.float_vit import FloatViT, initialise
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, ModelError
from mcuformer.nas import saved_network

FORMAT = "mcuformer.subnet/1"
ARENA_LIMIT = "arena_limit"  # in the notes: the most bytes of arena that the search had allowed


def build_subnet(config: SubnetConfig, seed: int = 0) -> FloatViT:
    """The float network of a config with seeded random weights.

    forward(images): float NCHW in [-1, 1] -> logits [N, num_classes]. A uint8 image x enters as x / 127.5 - 1.
    """
    if not isinstance(config, SubnetConfig):
        raise ConfigError(f"config = {shown(config)}: must be a SubnetConfig(...)")
    return initialise(FloatViT(config), whole("seed", seed, -(1 << 63), (1 << 64) - 1))


def save_subnet(net: FloatViT, path: str | os.PathLike, notes: dict | None = None) -> None:
    """Writes weights and config as `subnet.pt`, whole or not at all. notes: plain values kept with it."""
    net = unwrapped(net)
    saved_network.write(path, FORMAT, {"config": net.config.to_dict()}, net, notes)


def load_subnet(path: str | os.PathLike) -> FloatViT:
    """Reads a `subnet.pt` without unpickling code; values kept with it are in `.notes`.

    Raises ModelError if it is not one.
    """
    content = saved_network.read(path, "subnet", FORMAT, "mcuformer train")
    described: Any = content.get("config")  # from_dict says what is wrong
    try:
        net = FloatViT(SubnetConfig.from_dict(described))
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{path}: its config is not valid: {error}") from error
    saved_network.fill(net, content, path, "config")
    notes = content["notes"]
    names = notes.get("class_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ModelError(f"{path}: class_names in its notes is not a list of names; save it again")
    if not is_whole(notes.get(ARENA_LIMIT, 1), 1):
        raise ModelError(
            f"{path}: {ARENA_LIMIT} in its notes is {shown(notes[ARENA_LIMIT])}, no number of bytes; save it again"
        )
    net.notes = notes
    return net.eval()
