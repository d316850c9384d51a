# SPDX-License-Identifier: Apache-2.0
"""What subnet.pt, supernet.pt and checkpoints share: content with its hash; read without unpickling code.

The hash, "sha256", is of all values in the file: names, numbers, weights. Files of earlier versions have none; they
load with a warning, and only the archive's own checksums say that they are whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from mcuformer import torch_file
from mcuformer.checks import as_path, shown
from mcuformer.converter.checked_network import unusual, without_wrappers
from mcuformer.errors import ConfigError, McuformerWarning, ModelError
from mcuformer.files import write_bytes

HASH = "sha256"


def write(path: str | os.PathLike, file_format: str, described: dict, module: nn.Module, notes: dict | None) -> None:
    """Writes the module's weights and its description, whole or not at all. notes: plain values kept with it."""
    if notes is not None and not isinstance(notes, Mapping):
        raise ConfigError(f"notes = {shown(notes)}: must be a dict of plain values")
    state = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    write_content(path, {"format": file_format, **described, "state": state, "notes": dict(notes or {})})


def write_content(path: str | os.PathLike, content: dict) -> None:
    """Writes plain values and tensors with their hash, whole or not at all."""
    try:
        content = sealed(content)
    except TypeError as error:
        raise ConfigError(f"{path}: not written: {error}") from error
    buffer = io.BytesIO()  # torch hides why it could not write to a file
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def sealed(content: dict) -> dict:
    """The content with its hash."""
    content = {name: value for name, value in content.items() if name != HASH}
    return {**content, HASH: content_hash(content)}


def content_hash(content: object) -> str:
    """SHA-256 of values: dictionaries, lists, tuples, tensors (dtype, shape, elements), str, bytes, int, float, bool,
    None. Two that differ in anything have different ones. TypeError for other values."""
    digest = hashlib.sha256()
    for part in _parts(content, ""):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, name: str) -> Iterator[bytes | memoryview]:
    """Bytes that tell the value apart from every other one: a kind, a length, what is in it."""
    if isinstance(value, Mapping):
        yield b"d" + struct.pack("<q", len(value))
        for key, held in value.items():
            yield from _parts(key, name)
            yield from _parts(held, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield (b"l" if isinstance(value, list) else b"t") + struct.pack("<q", len(value))
        for i, held in enumerate(value):
            yield from _parts(held, f"{name}[{i}]")
    elif isinstance(value, torch.Tensor):
        if kind := unusual(value):
            raise TypeError(f"{name} is {kind}")
        head = f"{value.dtype} {tuple(value.shape)}".encode()
        yield b"w" + struct.pack("<q", len(head)) + head
        flat = value.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
        yield memoryview(cast(Any, flat.view(torch.uint8).numpy()))
    elif value is None or isinstance(value, bool):
        yield {None: b"n", True: b"y", False: b"f"}[value]
    elif type(value) is float:
        yield b"r" + struct.pack("<d", value)
    elif type(value) in (int, str, bytes):
        text = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        yield {int: b"i", str: b"s", bytes: b"b"}[type(value)] + struct.pack("<q", len(text)) + text
    else:
        raise TypeError(f"{name} is a {type(value).__name__}; only plain values and tensors can be kept")


def load(path: str | os.PathLike, kind: str, file_format: str, mend: str) -> dict:
    """The content that write_content() saved, on the CPU, without unpickling code.

    mend: the fix to name if it cannot be read, or is not what was written. A McuformerWarning says so if the file is
    from before there was a hash.
    """

    def unreadable(why: str) -> ModelError:
        return ModelError(f"{path}: not a readable {kind} ({why}); {mend}")

    try:
        with open(path, "rb") as file:
            if not torch_file.is_archive(file):
                raise unreadable("no archive of torch, or not all of it")
            file.seek(0)
            if wrong := torch_file.damage(file):
                raise unreadable(wrong)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        raise unreadable(type(error).__name__) from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        other = ", or `mcuformer import` another library's network" if kind == "subnet.pt" else ""
        raise ModelError(f"{path}: not an MCUFormer {kind} (format {file_format!r} not found); {mend}{other}")
    stated = content.pop(HASH, None)
    try:
        found = content_hash(content)
    except TypeError as error:
        raise unreadable(str(error)) from error
    if stated is None:
        warnings.warn(
            f"{path}: of an earlier version, without a hash of its values: they are believed as they are",
            McuformerWarning,
            stacklevel=2,
        )
    elif stated != found:
        raise ModelError(f"{path}: damaged or edited (its values do not have the hash that the {kind} states); {mend}")
    return content


def read(path: str | os.PathLike, kind: str, file_format: str, made_by: str) -> dict:
    """The file's content. kind: "subnet" or "supernet"; made_by: the command that makes one. ModelError otherwise."""
    path = as_path(path)
    try:
        if path.is_dir():
            raise ModelError(f"{path}: a folder, not a {kind}.pt")
        if not path.is_file():
            raise ModelError(f"{path}: no such file; make one with `{made_by}`")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    content = load(path, f"{kind}.pt", file_format, "train or copy it again")
    if not isinstance(content.setdefault("notes", {}), dict):
        raise ModelError(f"{path}: its notes are a {type(content['notes']).__name__}, not a mapping; save it again")
    return content


def fill(module: nn.Module, content: dict, path: str | os.PathLike, described_by: str) -> None:
    """Loads the weights; ModelError if they do not fit the module's description ("config", "space")."""
    try:
        state = without_wrappers(content["state"])
        check_kinds(module, state)
        module.load_state_dict(state)
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit the {described_by}: {reason}") from error


def check_kinds(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """TypeError if a tensor is of a kind that loading would convert to something else: complex or int8 as weights.

    state: from load(), which refuses other layouts.
    """
    for name, mine in module.state_dict().items():
        value = state.get(name)
        if not isinstance(value, torch.Tensor):
            continue  # loading names what is missing
        if value.is_floating_point() != mine.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name} is {value.dtype}, not {mine.dtype}")


def checksum(module: nn.Module) -> int:
    """crc32 of all weights and buffers."""
    value = 0
    for tensor in module.state_dict().values():
        value = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), value)
    return value
