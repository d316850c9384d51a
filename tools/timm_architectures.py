# SPDX-License-Identifier: Apache-2.0
"""timm's plain ViT, DeiT and BEiT architectures: which come in, which are refused and why, which fit which board.

    python tools/timm_architectures.py          # the table, from timm_architectures.json
    python tools/timm_architectures.py --make   # makes that file anew, where timm is installed; downloads nothing
    python tools/timm_architectures.py --pack   # from it, what `mcuformer import --set arch=NAME` reads

An architecture is imported with one layer of zeros, then its config gets the depth that it has: structure only.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib
import json
import re
from pathlib import Path

from mcuformer.boards import BOARDS, get_board
from mcuformer.converter.estimate.feasibility import board_arena_bytes
from mcuformer.converter.estimate.model_size import model_bytes
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import McuformerError

FILE = Path(__file__).with_suffix(".json")
MODULES = ("timm.models.vision_transformer", "timm.models.deit", "timm.models.beit")
PACKED = Path(__file__).parents[1] / "converter" / "importers" / "timm_architectures.json"
BIG_FLASH_BYTES = get_board("stm32f746").external_flash_bytes  # beside the chip of its Discovery kit


def make() -> dict:
    """timm's version, and for each architecture its config or why it is refused."""
    timm = importlib.import_module("timm")
    entries: dict[str, dict] = {}
    for name in timm.list_models():
        if timm.models.model_entrypoint(name).__module__ in MODULES:
            entries[name] = _entry(timm, name)
            print(name, entries[name].get("refused", "comes in"), flush=True)
    return {"timm": timm.__version__, "architectures": entries}


def _entry(timm, name: str) -> dict:
    torch = importlib.import_module("torch")
    importers = importlib.import_module("mcuformer.converter.importers")
    try:
        with torch.device("meta"):
            depth = len(timm.create_model(name).blocks)
        module = timm.create_model(name, depth=1)
        with torch.no_grad():
            for value in module.parameters():
                value.zero_()
        net = importers.import_vit(module)
        config = dataclasses.replace(net.config, depth=depth, **_scalars(net.config))
        used = net.notes["imported"]["settings"]
        entry = {"config": config.to_dict(), "pixels": _pixels(timm, name)}
        return entry | {key: used[key] for key in ("prefix_positions",) if key in used}  # BEiT has none
    except (McuformerError, AttributeError, TypeError) as error:
        return {"refused": str(error)}


def _pixels(timm, name: str) -> dict[str, list]:
    """Tag of pretrained weights -> mean and std of their pixels."""
    configs = {full: timm.get_pretrained_cfg(full) for full in timm.list_pretrained(f"{name}.*")}
    return {full.removeprefix(f"{name}."): [list(c.mean), list(c.std)] for full, c in sorted(configs.items())}


def pack(content: dict) -> str:
    """What the importer reads, a line an architecture: its settings by name, its width and depth, the pixels of each of
    its pretrained weights; or why it is refused."""
    lines = []
    for name, entry in content["architectures"].items():
        packed = {"refused": entry["refused"]} if "refused" in entry else _packed(entry)
        lines.append(f"{json.dumps(name)}: {json.dumps(packed)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _packed(entry: dict) -> dict:
    config = SubnetConfig.from_dict(entry["config"])
    settings = {
        "num_heads": config.num_heads,
        "activation": config.activation,
        "norm_epsilon": config.norm_epsilon,
    }
    if "prefix_positions" in entry:
        settings["prefix_positions"] = entry["prefix_positions"]
    if config.pool != "token+token":  # which the two heads say
        settings["pool"] = config.pool
    sizes = {"embed_dim": config.embed_dim, "depth": config.depth}
    return {"settings": settings, **sizes, "pixels": entry["pixels"]}


def _scalars(config: SubnetConfig) -> dict:
    """Values per layer of a network of one layer, as one for all."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value[0] for name, value in fields.items() if isinstance(value, tuple) and len(value) == 1}


def table(content: dict) -> str:
    """The table of docs/import.md."""
    entries = content["architectures"]
    configs = {name: SubnetConfig.from_dict(e["config"]) for name, e in entries.items() if "config" in e}
    reasons = collections.Counter(_reason(e["refused"]) for e in entries.values() if "refused" in e)
    lines = [
        f"timm {content['timm']}: of {len(entries)} plain ViT, DeiT and BEiT architectures {len(configs)} come in.", "",
        "| refused because | architectures |", "|---|---|",
        *(f"| {reason} | {count} |" for reason, count in reasons.most_common()), "",
        "| board | arena fits, image in strips | and the weights in its flash | and in 16 MB beside it (staged) |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for board in BOARDS.values():
        arena = [name for name, c in configs.items() if board_arena_bytes(c, strips=True) <= board.sram_budget]
        staged = [
            name for name, c in configs.items()
            if board_arena_bytes(c, strips=True, weights="staged") <= board.sram_budget
            and model_bytes(c) <= BIG_FLASH_BYTES
        ]  # fmt: skip
        flash = [n for n in arena if board.flash_budget is None or model_bytes(configs[n]) <= board.flash_budget]
        lines.append(f"| {board.name} | {len(arena)} | {_named(flash)} | {_named(staged)} |")
    return "\n".join(lines)


def _named(names: list[str]) -> str:
    return f"{len(names)}" + (f": {', '.join(names)}" if 0 < len(names) <= 3 else "")


def _reason(message: str) -> str:
    """A message without the names in it."""
    return re.sub(r"^module \w+: ", "", re.sub(r"tensor '[^']*': ", "", message)).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", action="store_true", help="make timm_architectures.json anew")
    parser.add_argument("--pack", action="store_true", help="write the importer's file from it")
    arguments = parser.parse_args()
    if arguments.make:
        FILE.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    content = json.loads(FILE.read_text(encoding="utf-8"))
    if arguments.pack:
        PACKED.write_text(pack(content), encoding="utf-8")
    print(table(content))


if __name__ == "__main__":
    main()
