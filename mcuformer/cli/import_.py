# SPDX-License-Identifier: Apache-2.0
"""mcuformer import: a checkpoint of another library as a subnet.pt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from mcuformer.cli.common import PATH, check_outputs, json_option, out, write_json
from mcuformer.cli.training import assignments
from mcuformer.errors import ConfigError
from mcuformer.sizes import Size, read_size

if TYPE_CHECKING:
    from mcuformer.converter.subnet_config import SubnetConfig


@dataclass(frozen=True)
class ImportedSubnet:
    """A subnet, written to path.

    settings          all that the weights do not say, as used
    left_out          tensors that the network does not need -> why
    low_rank_errors   (matrix, error relative to it) of each that became two factors
    class_names       None: not known
    """

    path: Path
    source: str
    family: str
    config: SubnetConfig
    parameters: int
    settings: dict[str, Any]
    left_out: dict[str, str]
    low_rank_errors: tuple[tuple[str, float], ...]
    class_names: tuple[str, ...] | None

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "subnet": str(self.path), "source": self.source, "family": self.family, "config": self.config.to_dict(),
            "parameters": self.parameters, "settings": self.settings, "left_out": self.left_out,
            "low_rank_errors": dict(self.low_rank_errors),
            "class_names": None if self.class_names is None else list(self.class_names),
        }  # fmt: skip


def import_(
    checkpoint: str | os.PathLike,
    family: str | None,
    *,
    settings: dict[str, Any] | None = None,
    output: str | os.PathLike = "subnet.pt",
    **options: Any,
) -> ImportedSubnet:
    """Reads a checkpoint of another library and writes it as a subnet.pt.

    settings  what the checkpoint does not say, by family: docs/import.md
    options   image_size, classes, new_head, low_rank, low_rank_attention, config, weights: as for mcuformer.import_vit
    """
    from mcuformer.converter.importers import import_vit
    from mcuformer.nas import save_subnet

    output = Path(output)
    check_outputs(output)
    net = import_vit(checkpoint, family, **options, **(settings or {}))
    save_subnet(net, output, net.notes)
    notes, names = net.notes["imported"], net.notes.get("class_names")
    return ImportedSubnet(
        path=output, source=notes["source"], family=notes["family"], config=net.config,
        parameters=sum(value.numel() for value in net.parameters()), settings=notes["settings"],
        left_out=notes["left_out"], low_rank_errors=tuple((n, e) for n, e in notes.get("low_rank_errors", ())),
        class_names=None if names is None else tuple(names),
    )  # fmt: skip


def show(made: ImportedSubnet) -> None:
    config = made.config
    height, width, channels = config.image_shape
    out.print(
        f"{made.source}, family {made.family}: images {height}x{width}x{channels}, {config.tokens} tokens "
        f"({config.prefix_tokens} before the patches) of width {config.embed_dim}, {config.depth} layers, "
        f"{config.outputs} {'classes' if config.num_classes else 'values, no head'}, {made.parameters:,} parameters"
    )
    out.print("not in the weights: " + ", ".join(f"{name} {_plain(value)}" for name, value in made.settings.items()))
    reasons: dict[str, list[str]] = {}
    for name, reason in made.left_out.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        out.print(f"left out: {names[0]}{more} ({reason})", highlight=False)
    if made.low_rank_errors:
        table = Table("matrix", "error of its two factors, %")
        for name, error in made.low_rank_errors:
            table.add_row(name, f"{100 * error:.2f}")
        out.print(table)
    out.print(f"wrote {made.path}")


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _size(text: str | None) -> Size | None:
    if text is None or (size := read_size(text)) is not None:
        return None if text is None else size
    raise ConfigError(f"--image-size {text}: write pixels, such as 96, or height x width, such as 120x160")


@click.command("import")
@click.argument(
    "checkpoint", type=PATH, help="A .safetensors, .pt, .pth, .bin or .onnx file, or a folder that holds one."
)
@click.option("--family", help="timm, hf, torchvision, vit-pytorch or autoformer. Always needed.")
@click.option(
    "--set", "settings", multiple=True, help="What the checkpoint does not say, such as --set num_heads=3. Repeatable."
)
@click.option("--image-size", help="Other than it was trained with: 96, or height x width, 120x160.")
@click.option("--classes", type=PATH, help="Classes of the head to keep: a number and a name in each line.")
@click.option("--new-head", type=int, help="An untrained head of so many classes, for finetune; 0: none.")
@click.option("--low-rank", type=float, help="MLP matrices as two factors, of this rank by width, such as 0.5.")
@click.option("--low-rank-attention", type=float, help="The same for the matrices before and after attention.")
@click.option("--config", type=PATH, help="Hugging Face's or timm's config.json; default: the one beside it.")
@click.option("--weights", help="Which weights, if the file holds several, such as model_ema; of ONNX the module.")
@click.option("--out", "-o", "output", type=PATH, default="subnet.pt", help="The subnet.")
@json_option
def command(
    checkpoint: Path, family: str | None, settings: tuple[str, ...], image_size: str | None, classes: Path | None,
    new_head: int | None, low_rank: float | None, low_rank_attention: float | None, config: Path | None,
    weights: str | None, output: Path, json_file: Path | None,
) -> None:  # fmt: skip
    """Read a Vision Transformer that another library trained."""
    check_outputs(output, json_file)
    made = import_(
        checkpoint, family, settings=assignments(settings, "--set"), image_size=_size(image_size), classes=classes,
        new_head=new_head, low_rank=low_rank, low_rank_attention=low_rank_attention, config=config,
        weights=weights, output=output,
    )  # fmt: skip
    show(made)
    write_json(json_file, made.to_dict())
