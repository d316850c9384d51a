# SPDX-License-Identifier: Apache-2.0
"""What subnet.pt and supernet.pt share: weights, a description, notes; read without unpickling code."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import torch
from torch import nn

from mcuformer.errors import ModelError
from mcuformer.files import write_whole


def write(path: str | os.PathLike, file_format: str, described: dict, module: nn.Module, notes: dict | None) -> None:
    """Writes the module's weights and its description, whole or not at all. notes: plain values kept with it."""
    state = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    content = {"format": file_format, **described, "state": state, "notes": notes or {}}
    write_whole(path, lambda file: torch.save(content, file))


def load(path: str | os.PathLike, kind: str, file_format: str, mend: str) -> dict:
    """The content that torch saved, on the CPU, without unpickling code. mend: the fix to name if it cannot be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise ModelError(f"{path}: not a readable {kind} ({type(error).__name__}); {mend}") from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        raise ModelError(f"{path}: not an MCUFormer {kind} (format {file_format!r} not found); {mend}")
    return content


def read(path: str | os.PathLike, kind: str, file_format: str, made_by: str) -> dict:
    """The file's content. kind: "subnet" or "supernet"; made_by: the command that makes one. ModelError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path}: a folder, not a {kind}.pt")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; make one with `{made_by}`")
    content = load(path, f"{kind}.pt", file_format, "train or copy it again")
    if not isinstance(content.setdefault("notes", {}), dict):
        raise ModelError(f"{path}: its notes are a {type(content['notes']).__name__}, not a mapping; save it again")
    return content


def fill(module: nn.Module, content: dict, path: str | os.PathLike, described_by: str) -> None:
    """Loads the weights; ModelError if they do not fit the module's description ("config", "space")."""
    try:
        module.load_state_dict(content["state"])
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit the {described_by}: {reason}") from error


def checksum(module: nn.Module) -> int:
    """crc32 of all weights and buffers."""
    value = 0
    for tensor in module.state_dict().values():
        value = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), value)
    return value
