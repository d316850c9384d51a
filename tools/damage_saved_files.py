# SPDX-License-Identifier: Apache-2.0
"""Damages files that the project saves or is given, reads them again, and counts what happens.

    python tools/damage_saved_files.py --count 2000 [--seed 0] [kind ...]

Kinds: subnet, supernet, checkpoint, search and evolution are what the project saves; pth (an archive of torch),
safetensors, onnx, space (YAML), config (JSON) and wav are what it is given. Damage: bits, bytes, blocks (zeroed,
random, moved, doubled, left out), a cut, junk at the end, and in archives that hold a hash, weights of repaired CRC.
Every damaged file is counted once:

    refused   a McuformerError of one line
    right     read, with every value as it was saved
    unseen    read with another value, of a format that has no checksum
    wrong     read with another value, of a format that has one
    crashed   any other error

Exits with 1 if one was wrong or crashed.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import random
import struct
import sys
import tempfile
import warnings
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file

from mcuformer import McuformerError, SubnetConfig, import_vit
from mcuformer.cli.train import read_config
from mcuformer.data import Dataset, load
from mcuformer.nas import (
    SearchSpace,
    SuperNet,
    TrainOptions,
    append_log,
    build_subnet,
    load_subnet,
    load_supernet,
    record,
    save_subnet,
    save_supernet,
    train,
)
from mcuformer.nas.cost import Budget, Cost
from mcuformer.nas.evolve_space import EvolutionOptions, evolve
from mcuformer.nas.saved_network import content_hash
from mcuformer.nas.search import SearchOptions, search
from mcuformer.nas.search_space import EvolutionRange, load_space, space_yaml

OUTCOMES = ("refused", "right", "unseen", "wrong", "crashed")
CONFIG = SubnetConfig(
    image_size=8, in_channels=1, patch_size=4, embed_dim=8, depth=1, num_heads=2, mlp_ratio=2.0, num_classes=3
)
SPACE = SearchSpace.from_dict(
    {
        "image_size": 8, "in_channels": 1, "num_classes": 3, "embed_dim": [8, 12], "depth": [1, 2], "num_heads": [2],
        "head_dim": 4, "mlp_ratio": [1.0, 2.0], "patch_size": [2, 4],
    }
)  # fmt: skip
RANGE = EvolutionRange(
    rank_ratio=(0.2, 0.4, 0.6, 0.8),
    patch_size=(2, 4, 8),
    window=(1, 1),
    threshold=(0.1, 1.0),
    start=((0, 0), (1, 0), (0, 1)),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """make(path) writes a file; read(path) reads it, and returns what it holds or leads to, for ==.

    name: of the file, below an empty folder. checksum: whether its format has one. hash: whether it holds a hash, too.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    name: str = "saved"
    checksum: bool = True
    hash: bool = True


def _subnet(path: Path) -> object:
    net = load_subnet(path)
    return content_hash({"config": net.config.to_dict(), "state": net.state_dict(), "notes": net.notes})


def _supernet(path: Path) -> object:
    net = load_supernet(path)
    return content_hash({"space": net.space.to_dict(), "state": net.state_dict(), "notes": net.notes})


def _training(path: Path) -> object:
    """Its two epochs are in the checkpoint: they are not trained again."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    data = Dataset(images, np.arange(8) % 3, ("a", "b", "c"), "damage", "train")
    net = build_subnet(CONFIG)
    result = train(net, data, TrainOptions(epochs=2, batch_size=4, warmup_epochs=0, seed=1), checkpoint=path)
    return content_hash({"state": net.state_dict(), "losses": result.losses})


def _pretended(config: SubnetConfig) -> Cost:
    return Cost(config.tokens * config.embed_dim, config.depth * config.embed_dim, config.tokens * config.depth)


def _search(path: Path) -> object:
    """A line that is left out is evaluated again, to the same accuracy."""
    options = SearchOptions(population=6, generations=1, parents=3, children=4)
    return search(
        SPACE, lambda config: zlib.crc32(config.to_json().encode()) / 2**32, _pretended, Budget(), options, log=path
    )


def _evolution(path: Path) -> object:
    def measure(place: tuple[int, int], epochs: int) -> tuple[float, float]:
        return 0.05 * place[0] + epochs / 97, 0.3

    return evolve(RANGE, lambda patch: (8 // patch) ** 2, measure, EvolutionOptions(), log=path)


# what the project is given


def _foreign_state() -> dict[str, torch.Tensor]:
    """A ViT with timm's names, of one layer."""
    shapes = {
        "cls_token": (1, 1, 8), "pos_embed": (1, 5, 8), "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,), "blocks.0.attn.qkv.weight": (24, 8), "blocks.0.attn.qkv.bias": (24,),
        "blocks.0.attn.proj.weight": (8, 8), "blocks.0.attn.proj.bias": (8,), "blocks.0.mlp.fc1.weight": (16, 8),
        "blocks.0.mlp.fc1.bias": (16,), "blocks.0.mlp.fc2.weight": (8, 16), "blocks.0.mlp.fc2.bias": (8,),
        "head.weight": (3, 8), "head.bias": (3,),
    }  # fmt: skip
    for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        shapes |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _save_onnx(path: Path) -> None:
    """As torch.onnx.export writes it: matrices lie transposed, under the numbers of their products."""
    held, nodes = [], []
    for number, (name, value) in enumerate(_foreign_state().items()):
        if name.startswith("blocks") and value.ndim == 2:
            owner, name, value = name.removesuffix(".weight"), f"onnx::MatMul_{number}", value.T.contiguous()
            at = "/" + owner.replace("blocks.0.", "blocks/blocks.0/").replace(".qkv", "/qkv").replace(".proj", "/proj")
            at = at.replace(".fc", "/fc")
            nodes.append(onnx.helper.make_node("MatMul", ["x", name], [f"y{number}"], f"{at}/MatMul"))
        held.append(onnx.numpy_helper.from_array(value.numpy(), name))
    graph = onnx.helper.make_graph(nodes, "network", [], [], held)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def _imported(path: Path) -> object:
    net = import_vit(
        path, "timm", num_heads=2, activation="gelu", norm_epsilon=1e-6, pool="token", mean=[0.5] * 3, std=[0.5] * 3
    )
    return content_hash({"config": net.config.to_dict(), "state": net.state_dict()})


def _save_config(path: Path) -> None:
    path.write_text(CONFIG.to_json())


def _save_words(path: Path) -> None:
    """The file and its neighbours: two classes of five."""
    for number in range(10):
        place = path.parents[1] / ("no", "yes")[number // 5] / f"{number % 5}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        tone = [round(8000 * math.sin((0.1 + number / 50) * t)) for t in range(2000)]
        with wave.open(str(place), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(np.array(tone, "<i2").tobytes())


def _words(path: Path) -> object:
    data = load(path.parents[1], "all")
    return content_hash({"images": torch.from_numpy(data.images), "labels": data.labels.tolist()})


NOTES = {"class_names": ["a", "b", "c"], "top1": 0.5}
KINDS = {
    "subnet": Kind(lambda path: save_subnet(build_subnet(CONFIG, 1), path, NOTES), _subnet),
    "supernet": Kind(lambda path: save_supernet(SuperNet(SPACE, 1), path, NOTES), _supernet),
    "checkpoint": Kind(_training, _training),
    "search": Kind(_search, _search),
    "evolution": Kind(_evolution, _evolution),
    "pth": Kind(lambda path: torch.save(_foreign_state(), path), _imported, "network.pth", hash=False),
    "safetensors": Kind(lambda path: save_file(_foreign_state(), path), _imported, "a.safetensors", checksum=False),
    "onnx": Kind(_save_onnx, _imported, "network.onnx", checksum=False),
    "space": Kind(lambda path: path.write_text(space_yaml(SPACE)), load_space, "space.yaml", checksum=False),
    "config": Kind(
        lambda path: path.write_text(CONFIG.to_json()),
        lambda path: read_config(path, None),
        "config.json",
        checksum=False,
    ),
    "wav": Kind(_save_words, _words, "words/yes/3.wav", checksum=False),
}


def damaged(content: bytes, rng: random.Random, hash: bool) -> bytes:
    """The file with something else in it. hash: whether it holds a hash, which tells more than a CRC."""
    while True:
        kinds = [_bit, _bit, _byte, _zeroed, _random, _moved, _doubled, _left_out, _cut, _junk]
        if content[:2] == b"PK" and hash:
            kinds += [_weight, _weight, _weight]
        elif content[:1] == b"{":
            kinds += [_digit, _digit, _line_left_out, _lines_shuffled]
        made = rng.choice(kinds)(content, rng)
        if made != content:
            return made


def _bit(content: bytes, rng: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def _byte(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice((b"\0", b"\xff", b"\n", rng.randbytes(1))) + content[at + 1 :]


def _block(content: bytes, rng: random.Random) -> tuple[int, int]:
    start, size = rng.randrange(len(content)), rng.choice((1, 2, 4, 16, 64, 512, 4096))
    return start, min(len(content), start + size)


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    start, stop = _block(content, rng)
    return content[:start] + bytes(stop - start) + content[stop:]


def _random(content: bytes, rng: random.Random) -> bytes:
    start, stop = _block(content, rng)
    return content[:start] + rng.randbytes(stop - start) + content[stop:]


def _moved(content: bytes, rng: random.Random) -> bytes:
    start, stop = _block(content, rng)
    rest, at = content[:start] + content[stop:], rng.randrange(len(content))
    return rest[:at] + content[start:stop] + rest[at:]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    start, stop = _block(content, rng)
    return content[:stop] + content[start:stop] + content[stop:]


def _left_out(content: bytes, rng: random.Random) -> bytes:
    start, stop = _block(content, rng)
    return content[:start] + content[stop:]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _junk(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice((1, 16, 1000)))


def _weight(content: bytes, rng: random.Random) -> bytes:
    """Weights damaged, and the checksum of their part in the archive repaired."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = rng.choice([e for e in archive.infolist() if "/data/" in e.filename and e.file_size])
    name_bytes, more_bytes = struct.unpack_from("<HH", content, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_bytes + more_bytes
    made = bytearray(content)
    made[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
    crc = struct.pack("<I", zlib.crc32(made[start : start + entry.file_size]))
    return bytes(made).replace(struct.pack("<I", entry.CRC), crc)


def _digit(content: bytes, rng: random.Random) -> bytes:
    """As edited by hand: another number."""
    at = rng.choice([i for i, byte in enumerate(content) if 48 <= byte < 58])
    return content[:at] + str(rng.randrange(10)).encode() + content[at + 1 :]


def _line_left_out(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _lines_shuffled(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def attack(kind: str, count: int, seed: int, folder: Path, say: Callable[[str], object] = print) -> Counter[str]:
    """Outcomes of `count` damaged files of a kind."""
    of, found = KINDS[kind], Counter[str]()
    path = folder / kind / of.name
    path.parent.mkdir(parents=True)
    of.make(path)
    content, want = path.read_bytes(), of.read(path)
    for number in range(count):
        path.write_bytes(damaged(content, random.Random(f"{kind} {seed} {number}"), of.hash))
        try:
            outcome = "right" if of.read(path) == want else "wrong" if of.checksum else "unseen"
        except McuformerError as error:
            outcome = "refused" if "\n" not in str(error) else "crashed"
        except Exception as error:
            outcome = "crashed"
            say(f"{kind} {number}: {type(error).__name__}: {error}")
        if outcome == "wrong":
            say(f"{kind} {number}: read with other values")
        found[outcome] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"some of {', '.join(KINDS)}; default: all")
    parser.add_argument("--count", type=int, default=2000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # A log states them; longer ones would move the damage, and so change the counts, from machine to machine.
    append_log.versions = lambda: dict.fromkeys(record.versions(), "1.0")
    print(f"{'kind':12}{'tried':>8}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or KINDS:
            found = attack(kind, arguments.count, arguments.seed, Path(folder))
            print(
                f"{kind:12}{arguments.count:>8}" + "".join(f"{found[outcome]:>9}" for outcome in OUTCOMES), flush=True
            )
            bad += found["wrong"] + found["crashed"]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
