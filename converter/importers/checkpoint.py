# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of other libraries: the state dict that they hold, read without running code from them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from mcuformer import torch_file
from mcuformer.converter.checked_network import without_wrappers
from mcuformer.converter.importers import onnx_file
from mcuformer.errors import ModelError
from mcuformer.files import read_text

TRAINERS = ("model", "backbone", "encoder_q")  # where Lightning, DINO and MoCo keep the network
PICKLE = b"\x80"  # how one of torch before 1.6 begins
COUNTERS = ("n_averaged", "module.n_averaged")  # of torch's averaged model


def find(path: str | os.PathLike) -> Path:
    """The file of weights: path, or the one in the folder that `save_pretrained` wrote. ModelError if there is none."""
    path = Path(path)
    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin", "model.onnx"):
            if (path / name).is_file():
                return path / name
        raise ModelError(f"{path}: a folder without model.safetensors; give the file of weights")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    return path


def read(path: Path, weights: str | None = None) -> dict[str, torch.Tensor]:
    """The state dict of a .safetensors, .pt, .pth, .bin or .onnx file.

    weights: which one, if the file holds several, such as "model_ema"; of an ONNX file the module. ModelError if the
    file is damaged, holds more than weights, or none.
    """
    if path.suffix == ".onnx":
        return unwrap(onnx_file.read(path, weights), str(path))
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    return unwrap(content, str(path), weights)


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a readable .safetensors file ({error}); copy it again") from error


def _torch(path: Path) -> object:
    _check_whole(path)
    try:
        # Training scripts keep their options beside the weights; a Namespace is plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise ModelError(
                f"{path}: holds more than weights, and code from a file is not run; save them alone, with "
                "torch.save(module.state_dict(), ...)"
            ) from error
        raise ModelError(f"{path}: not a readable checkpoint ({type(error).__name__}); copy it again") from error


def _check_whole(path: Path) -> None:
    """torch.load does not look at the checksums in its file, and takes a text for code that it must not run."""
    if not torch_file.is_archive(path):
        with path.open("rb") as file:
            if file.read(1) != PICKLE:
                raise ModelError(f"{path}: no checkpoint of torch, or not all of one; copy it again")
        return
    if damage := torch_file.damage(path, packed=True):
        raise ModelError(f"{path}: damaged ({damage}); copy it again")


def unwrap(content: object, source: str, weights: str | None = None) -> dict[str, torch.Tensor]:
    """The state dict in what a training script saved, without the wrappers before its names."""
    found = dict(_state_dicts(content, ""))
    if weights is not None:
        if weights not in found:
            held = ", ".join(name or "the file itself" for name in found) or "none"
            raise ModelError(f"{source}: weights = {weights!r} is no state dict in it; it holds: {held}")
        found = {weights: found[weights]}
    if not found:
        raise ModelError(f"{source}: holds no state dict (a mapping of names to tensors); save module.state_dict()")
    if len(found) > 1:
        first = next(iter(found))
        raise ModelError(f"{source}: holds {len(found)} state dicts ({', '.join(found)}): choose one, weights={first}")
    state = {name: value for name, value in next(iter(found.values())).items() if name not in COUNTERS}
    return without_wrappers(state, TRAINERS)


def _state_dicts(content: object, name: str) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """(path in the file, state dict), not going into state dicts. Optimisers hold tensors too: by number, not name."""
    if not isinstance(content, Mapping) or not content:
        return
    tensors = [isinstance(value, torch.Tensor) for value in content.values()]
    if all(tensors) and all(isinstance(key, str) for key in content):
        if any("." in key for key in content):  # a network's, not a table of buffers
            yield name, dict(content)
        return
    for key, value in content.items():
        if isinstance(key, str):
            yield from _state_dicts(value, f"{name}.{key}" if name else key)


def read_json(path: str | os.PathLike) -> dict:
    """A config.json; ModelError if it is none."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable config ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a config (a {type(content).__name__}, not a mapping)")
    return content
