# SPDX-License-Identifier: Apache-2.0
"""Networks that were trained elsewhere, as a FloatViT: one module a family, the same way for all.

    weights, what the module or its config says, settings -> read() of the family -> VitParts -> resize, classes, low
    rank -> assemble() -> FloatViT

Every tensor is used, known and left out with its reason, or refused with one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mcuformer.checks import is_number, is_whole
from mcuformer.converter.checked_network import innermost
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.importers import (
    assemble,
    autoformer,
    checkpoint,
    foreign,
    hf,
    live,
    timm,
    torchvision,
    vit_pytorch,
)
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights
from mcuformer.converter.subnet_config import MAX_FEATURES, Size
from mcuformer.errors import ConfigError, McuformerError, ModelError
from mcuformer.files import read_text

FAMILIES: dict[str, Any] = {module.NAME: module for module in (timm, hf, torchvision, vit_pytorch, autoformer)}
"""By name. Each has NAME, TITLE, MARK (a tensor's name that all its networks have, or its end), SETTINGS, NEEDED,
FOREIGN, settings_of(module) and read(weights, settings)."""


def import_vit(
    source: nn.Module | str | os.PathLike | Mapping[str, torch.Tensor],
    family: str | None = None,
    *,
    image_size: Size | None = None,
    classes: str | os.PathLike | list[int] | None = None,
    new_head: int | None = None,
    low_rank: float | None = None,
    low_rank_attention: float | None = None,
    config: str | os.PathLike | Mapping[str, Any] | None = None,
    weights: str | None = None,
    **settings: Any,
) -> FloatViT:
    """A network of another library as a FloatViT, whose input is a uint8 image x as x / 127.5 - 1.

    source      a module (its family is found, its library not imported), a checkpoint (.pt, .pth, .bin, .safetensors,
                .onnx, a folder of save_pretrained) or a state dict
    family      of a file or state dict: a key of FAMILIES
    image_size  other than it was trained with: its positions are interpolated as its library does
    classes     of the head, in order: their numbers, or a file with a number and a name in each line
    new_head    an untrained head of so many classes; 0: none, the pooled tokens are the output
    low_rank    both MLP matrices as two factors of rank round(low_rank * embed_dim)
    low_rank_attention  the same of q, k and v together, and of the projection after attention
    config      Hugging Face's or timm's config.json, or its content; default: the one beside the file
    weights     which state dict of the file, if it holds several, such as "model_ema"; of ONNX the module
    settings    what the source does not say: docs/import.md lists them by family

    Notes of the network: "imported" (family, settings used, tensors left out and why, errors of low ranks), and
    "class_names" if they are known. McuformerError, one line, if anything is missing, unknown or not supported.
    """
    found = _open(source, family, config, weights, settings)
    parts = found.family.read(found.weights, found.settings)
    notes: dict[str, Any] = {"family": found.family.NAME, "source": found.name, "settings": found.settings.used}
    if parts.class_names is None and found.class_names and parts.heads:
        parts.class_names = found.class_names
    if parts.class_names is not None and len(parts.class_names) != parts.heads[0].outputs:
        parts.class_names = None
    found.weights.leave_out(foreign.LEFT_OUT)
    found.weights.finish()
    if classes is not None and new_head is not None:
        raise ConfigError("classes and new_head: give one of them")
    if classes is not None:
        numbers, names = _classes(classes)
        parts = assemble.with_classes(parts, numbers, names)
    if new_head is not None:
        if not is_whole(new_head, 0, MAX_FEATURES):
            raise ConfigError(f"new_head = {new_head!r}: must be a number of classes from 0 to {MAX_FEATURES}")
        parts = assemble.with_new_head(parts, new_head)
    parts, image_shape = assemble.resized(assemble.with_patch_size(parts), image_size)
    _check_ratios(low_rank=low_rank, low_rank_attention=low_rank_attention)
    parts, errors = assemble.with_low_rank(parts, low_rank, low_rank_attention)
    if errors:
        notes["low_rank_errors"] = [[name, error] for name, error in errors]
    net = assemble.assemble(parts, image_shape, found.name)
    notes["left_out"] = found.weights.left_out
    net.notes = {"imported": notes}
    if parts.class_names is not None:
        net.notes["class_names"] = parts.class_names
    return net


def _check_ratios(**ratios: float | None) -> None:
    for name, ratio in ratios.items():
        if ratio is not None and (not is_number(ratio) or not 0 < ratio <= 1):
            raise ConfigError(f"{name} = {ratio!r}: must be a number in (0, 1], the rank by embed_dim")


class _Source:
    """A source, opened. said: what its module or config says."""

    def __init__(self, family, weights: Weights, said: Mapping[str, Any], says: str, given: Mapping[str, Any]):
        self.family, self.weights, self.name = family, weights, weights.source
        self.settings = Settings(family.NAME, family.SETTINGS, family.NEEDED, given, said, says)
        self.class_names: list[str] | None = None


def _open(source, family: str | None, config, weights: str | None, given: Mapping[str, Any]) -> _Source:
    if isinstance(source, nn.Module):
        return _open_module(innermost(source), family, given)
    if isinstance(source, Mapping):
        return _open_state(dict(checkpoint.unwrap(source, "the state dict", weights)), "the state dict", family, config,
                           None, given)  # fmt: skip
    path = checkpoint.find(source)
    state = checkpoint.read(path, weights)
    return _open_state(state, str(path), family, config, path.parent, given)


def _open_module(module: nn.Module, family: str | None, given: Mapping[str, Any]) -> _Source:
    name = f"module {type(module).__name__}"
    if any(value.is_meta for value in module.parameters()):
        raise ModelError(f"{name}: on the meta device, so without weights; load them first")
    for one in FAMILIES.values():
        try:
            said = one.settings_of(module)
        except McuformerError as error:
            raise type(error)(f"{name}: {error}") from error
        if said is None:
            continue
        if family is not None and family != one.NAME:
            raise ConfigError(f"family = {family!r}: the module is of family {one.NAME}")
        if "arch" in given:
            raise ConfigError(f"arch = {given['arch']!r}: the module says it all; leave it out")
        # A pretrained config's pixels are advice: the network may have been trained further with others.
        said = {key: value for key, value in said.items() if key not in ("mean", "std") or key not in given}
        opened = _Source(one, Weights(live.state_dict(module), name), _known(said), "the module", given)
        if one is hf:
            opened.class_names = hf.class_names(module.config.to_dict())  # type: ignore[operator, union-attr]
        opened.weights.refuse([*one.FOREIGN, *foreign.FOREIGN])
        return opened
    known = "; ".join(one.TITLE for one in FAMILIES.values())
    raise ModelError(f"{live.class_name(module)}: no network that is known ({known}); give its state_dict() and family")


def _known(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _open_state(
    state: dict[str, torch.Tensor], name: str, family: str | None, config, folder: Path | None, given: Mapping[str, Any]
) -> _Source:
    if family is None:
        likely = next((f"; its names are those of {one.NAME}" for one in FAMILIES.values() if _is_of(one, state)), "")
        raise ConfigError(f"{name}: family is not given: one of {', '.join(FAMILIES)}{likely}")
    if family not in FAMILIES:
        raise ConfigError(f"family = {family!r}: must be one of {', '.join(FAMILIES)}")
    one = FAMILIES[family]
    opened_weights = Weights(state, name)
    if not _is_of(one, state):
        others = [other.NAME for other in FAMILIES.values() if _is_of(other, state)]
        hint = f"its names are those of family {others[0]}" if others else f"its first tensor is '{next(iter(state))}'"
        raise opened_weights.error(f"no tensor '{one.MARK}', so not of family {family}; {hint}")
    opened_weights.refuse([*one.FOREIGN, *foreign.FOREIGN])
    if one not in (hf, timm) and config is not None:
        raise ConfigError(f"config is given: family {family} has none; only hf and timm do")
    said, says, names = _hf_config(config if one is hf else None, folder if one is hf else None)
    if one is timm and (config is not None or "arch" not in given):
        given = {**_timm_config(config, folder), **given}
    if one is timm and isinstance(given.get("arch"), str):
        given = {**timm.architecture(given["arch"]), **given}
    opened = _Source(one, opened_weights, said, says, given)
    opened.class_names = names
    return opened


def _is_of(family: Any, state: Mapping[str, torch.Tensor]) -> bool:
    return any(name == family.MARK or name.endswith(f".{family.MARK}") for name in state)


def _hf_config(config, folder: Path | None) -> tuple[dict[str, Any], str, list[str] | None]:
    """What config.json and preprocessor_config.json say, in which file, and the classes' names."""
    if config is None and folder is not None and (folder / "config.json").is_file():
        config = folder / "config.json"
    if config is None:
        return {}, "the checkpoint", None
    content = config if isinstance(config, Mapping) else checkpoint.read_json(config)
    says = "the config" if isinstance(config, Mapping) else str(config)
    try:
        said = hf.config_settings(content)
        if not isinstance(config, Mapping) and (Path(config).parent / "preprocessor_config.json").is_file():
            said |= hf.processor_settings(checkpoint.read_json(Path(config).parent / "preprocessor_config.json"))
    except KeyError as error:
        raise ModelError(f"{says}: no {error} in it; give the config.json that lies beside the weights") from error
    except ModelError as error:
        raise ModelError(f"{says}: {error}") from error
    return said, says, hf.class_names(content)


def _timm_config(config, folder: Path | None) -> dict[str, Any]:
    """What timm's config.json says; nothing if the one beside the weights is another library's."""
    beside = config is None
    if beside:
        config = folder / "config.json" if folder is not None else None
        if config is None or not config.is_file():
            return {}
    content = config if isinstance(config, Mapping) else checkpoint.read_json(config)
    if beside and "architecture" not in content:
        return {}
    says = "the config" if isinstance(config, Mapping) else str(config)
    try:
        return timm.config_settings(content)
    except KeyError as error:
        raise ModelError(f"{says}: no {error} in it; give the config.json that lies beside the weights") from error
    except McuformerError as error:
        raise ModelError(f"{says}: {error}") from error


def _classes(classes: str | os.PathLike | list[int]) -> tuple[list[int], list[str] | None]:
    """Numbers of classes, and names if a file gives them: each line a number, and its name after a space."""
    if isinstance(classes, str | os.PathLike):
        try:
            lines = [line.split(maxsplit=1) for line in read_text(classes).splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{classes}: cannot be read ({error})") from error
        for number, line in enumerate(lines, 1):
            if not line[0].isdecimal():
                raise ConfigError(f"{classes}: entry {number} begins with {line[0]!r}, not with a class's number")
        numbers = [int(line[0]) for line in lines]
        names = [line[1].strip() if len(line) > 1 else line[0] for line in lines]
    else:
        numbers, names = list(classes) if isinstance(classes, list | tuple | range) else [classes], None
        if not all(is_whole(number, 0) for number in numbers):
            raise ConfigError(f"classes = {numbers}: must be numbers of classes, from 0")
    if not numbers:
        raise ConfigError(f"classes = {classes}: none; give at least one")
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ConfigError(f"classes: {twice} is given twice")
    return numbers, names
