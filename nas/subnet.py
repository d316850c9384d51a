# SPDX-License-Identifier: Apache-2.0
"""One subnet as a stand-alone network: built, saved, loaded."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mcuformer.converter.float_vit import FloatViT, initialise
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, ModelError
from mcuformer.files import write_whole

FORMAT = "mcuformer.subnet/1"


def build_subnet(config: SubnetConfig, seed: int = 0) -> FloatViT:
    """The float network of a config with seeded random weights.

    forward(images): float NCHW in [-1, 1] -> logits [N, num_classes]. A uint8 image x enters as x / 127.5 - 1.
    """
    return initialise(FloatViT(config), seed)


def save_subnet(net: FloatViT, path: str | os.PathLike, notes: dict | None = None) -> None:
    """Writes weights and config as `subnet.pt`, whole or not at all. notes: plain values kept with it."""
    state = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
    content = {"format": FORMAT, "config": net.config.to_dict(), "state": state, "notes": notes or {}}
    write_whole(path, lambda file: torch.save(content, file))


def load_subnet(path: str | os.PathLike) -> FloatViT:
    """Reads a `subnet.pt` without unpickling code; what was kept with it is in `.notes`.

    Raises ModelError where it is not one.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path}: a folder, not a subnet.pt")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; train one with `mcuformer train`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise ModelError(
            f"{path}: not a readable subnet.pt ({type(error).__name__}); train or copy it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path}: not an MCUFormer subnet (format {FORMAT!r} not found)")
    try:
        net = FloatViT(SubnetConfig.from_dict(content.get("config")))
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{path}: its config is not valid: {error}") from error
    try:
        net.load_state_dict(content["state"])
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        first_line = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit the config: {first_line}") from error
    notes = content.get("notes", {})
    if not isinstance(notes, dict):
        raise ModelError(f"{path}: its notes are a {type(notes).__name__}, not a mapping; save it again")
    names = notes.get("class_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ModelError(f"{path}: class_names in its notes is not a list of names; save it again")
    net.notes = notes
    return net.eval()
