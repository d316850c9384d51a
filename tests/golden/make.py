# SPDX-License-Identifier: Apache-2.0
"""Made the files of tests/golden/<version>: one of every kind that the project writes, and what was computed from each.

    python tests/golden/make.py FOLDER            writes them; FOLDER must not exist
    python tests/golden/make.py FOLDER --compare  makes them again elsewhere and prints which files of FOLDER differ

A version that changes a format adds a folder and leaves the others as they are. The tests read the files and never make
them. It uses public names alone, so that it runs with any version.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import mcuformer
from mcuformer import Interpreter, QuantisationOptions, SubnetConfig, convert
from mcuformer.data import Dataset
from mcuformer.nas import SearchSpace, SuperNet, TrainOptions, build_subnet, save_subnet, save_supernet, train
from mcuformer.nas.cost import Budget, Cost
from mcuformer.nas.evolve_space import EvolutionOptions, evolve
from mcuformer.nas.search import SearchOptions, search
from mcuformer.nas.search_space import EvolutionRange

PATCH = SubnetConfig(
    image_size=16, in_channels=1, patch_size=4, embed_dim=16, depth=1, num_heads=2, head_dim=8, mlp_ratio=2.0,
    num_classes=5,
)  # fmt: skip
NETWORKS = {
    "patch": PATCH,
    "conv": dataclasses.replace(PATCH, stem="conv", in_channels=3),
    "low_rank": dataclasses.replace(
        PATCH, in_channels=3, depth=2, head_dim=4, num_heads=(2, 4), kv_heads=(1, 2), mlp_ratio=(3.0, 2.0),
        rank_ratio=(0.25, 1.0),
    ),
    "odd": dataclasses.replace(PATCH, image_size=18, patch_size=5, embed_dim=15, num_heads=1, head_dim=7),
}  # fmt: skip
# file -> its network, and the options of convert()
MODELS = {
    "overwrite": ("patch", {"schedule": "overwrite"}),
    "overwrite_gelu": (
        "patch",
        {"schedule": "overwrite", "quantisation": QuantisationOptions(gelu="sigmoid", fuse_gelu=False)},
    ),
    "overwrite_staged": ("patch", {"schedule": "overwrite", "weights": "staged"}),
    "streamed": ("patch", {"schedule": "streamed", "quantisation": QuantisationOptions(residual="per-tensor")}),
    "strips": ("patch", {"schedule": "streamed", "strips": True}),
    "staged": ("patch", {"schedule": "streamed", "weights": "staged"}),
    "staged_strips_packed": (
        "low_rank",
        {"schedule": "streamed", "weights": "staged", "strips": True, "board": "nano33ble"},
    ),
    "packed": ("patch", {"schedule": "streamed", "board": "nano33ble"}),
    "conv": ("conv", {"schedule": "overwrite"}),
    "conv_packed": ("conv", {"schedule": "streamed", "board": "portenta-h7"}),
    "low_rank": ("low_rank", {"schedule": "streamed"}),
    "low_rank_overwrite": ("low_rank", {"schedule": "overwrite", "board": "corstone300"}),
    "odd": ("odd", {"schedule": "overwrite"}),
    "odd_packed": ("odd", {"schedule": "streamed", "board": "nano33ble"}),
}
SPACE = SearchSpace(
    image_size=8, in_channels=1, num_classes=4, patch_size=(2, 4), embed_dim=(8, 12), depth=(1, 2), head_dim=4,
    num_heads=(1, 2), kv_heads=(1, "all"), mlp_ratio=(1.0, 2.0), rank_ratio=(0.25, 1.0),
)  # fmt: skip
CONV_SPACE = dataclasses.replace(SPACE, patch_size=(4,), stem="conv", rank_ratio=None)
RANGE = EvolutionRange(
    rank_ratio=(0.2, 0.4, 0.6, 0.8), patch_size=(2, 3, 4), window=(2, 1), threshold=(0.4, 0.02),
    start=((0, 0), (1, 0), (0, 1)),
)  # fmt: skip
TRAINING = TrainOptions(epochs=2, batch_size=16, ema_decay=0.9, threads=1)
SEARCH = SearchOptions(population=6, generations=3, parents=3, children=4, drawn=3, seed=2)
EVOLUTION = EvolutionOptions(eta=1.0, neighbours=3, epochs=1, visits=8)


def pictures(config: SubnetConfig, count: int, seed: int) -> np.ndarray:
    """uint8 [count, H, W, C]: waves of random direction and colour, with noise."""
    rng = np.random.default_rng(seed)
    side = np.arange(config.image_size) / config.image_size
    shape = (count, 1, 1, config.in_channels)
    phase = rng.uniform(-2, 2, shape) * side[:, None, None] + rng.uniform(-2, 2, shape) * side[:, None]
    images = 0.5 + 0.4 * np.sin(2 * np.pi * (phase + rng.uniform(0, 1, shape)))
    return np.rint(255 * np.clip(images + rng.normal(0, 0.05, images.shape), 0, 1)).astype(np.uint8)


@torch.no_grad()
def shaken(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The network with random weights that all matter."""
    generator = torch.Generator().manual_seed(seed)
    for value in net.parameters():
        size = 0.2 if value.dim() < 2 else value[0].numel() ** -0.5
        value.add_(size * torch.randn(value.shape, generator=generator))
    for name, value in net.named_buffers():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(drawn + 0.5 if "var" in name else drawn - 0.5)
    return net.eval()


def float_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def data_set(config: SubnetConfig | SearchSpace, count: int, seed: int, split: str = "train") -> Dataset:
    images = pictures(config, count, seed)
    labels = np.digitize(images.mean((1, 2, 3)), np.linspace(90, 165, config.num_classes - 1)).astype(np.int64)
    return Dataset(images, labels, tuple(f"class {i}" for i in range(config.num_classes)), "golden", split)


def pretend_accuracy(config: SubnetConfig) -> float:
    """No two networks of SPACE have the same, except for choices that change nothing."""
    layers = sum(layer.num_heads + layer.kv_heads / 3 + layer.mlp_dim / 40 for layer in config.layers)
    return 1 - 1 / (1 + config.embed_dim / 17 + layers + config.tokens / 19)


def pretend_cost(config: SubnetConfig) -> Cost:
    """A cost that no better memory plan changes: with it the search draws the same networks for good."""
    return Cost(config.tokens * config.embed_dim, config.depth * config.embed_dim, config.tokens * config.depth)


def pretend_measure(place: tuple[int, int], epochs: int) -> tuple[float, float]:
    return 0.3 + 0.1 * place[0] + 0.02 * epochs, 0.2 + 0.3 * place[1]


def tokens(patch_size: int) -> int:
    return (8 // patch_size) ** 2


def command_line(folder: Path, *words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "mcuformer", *words], cwd=folder, env=environment, check=True)


def make(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    values: dict[str, np.ndarray] = {}
    facts: dict = {"version": version(), "models": {}}
    make_models(folder, values, facts)
    make_networks(folder, values, facts)
    make_training(folder, values, facts)
    make_logs(folder, facts)
    np.savez_compressed(folder / "values.npz", **values)
    (folder / "golden.json").write_text(json.dumps(facts) + "\n")


def version() -> dict:
    tree = Path(mcuformer.__file__).resolve().parents[1]
    found = subprocess.run(["git", "describe", "--always"], cwd=tree, text=True, capture_output=True, check=True)
    return {"commit": found.stdout.strip(), "torch": torch.__version__, "numpy": np.__version__}


def make_models(folder: Path, values: dict, facts: dict) -> None:
    """<model>.tflite, .weights: its logits of four images, the sizes of its plan."""
    for i, (name, config) in enumerate(NETWORKS.items()):
        values[f"{name}.images"] = pictures(config, 4, 100 + i)
    for name, (network, options) in MODELS.items():
        config = NETWORKS[network]
        net = shaken(build_subnet(config, 0), list(NETWORKS).index(network))
        model = convert(net, pictures(config, 16, 7), class_names=tuple("abcde"), **options)
        model.save(folder / f"{name}.tflite")
        images = values[f"{network}.images"]
        logits, interpreter = model.reference(images), Interpreter(folder / f"{name}.tflite")
        assert np.array_equal(interpreter(images), logits) and logits.dtype == np.float32
        values[f"{name}.logits"] = logits
        facts["models"][name] = {
            "network": network,
            "config": config.to_dict(),
            "info": {key: model.info[key] for key in ("schedule", "board", "class_names")},
            "ops": [op.kind for op in model.graph.ops],
            "arena_bytes": interpreter.arena_used_bytes,
            "allocations": interpreter.allocations,
            "board_arena_bytes": model.arena_bytes("nano33ble"),
            "weights_read": interpreter.weights_read,
        }


def make_networks(folder: Path, values: dict, facts: dict) -> None:
    """subnet_*.pt and supernet_conv.pt: their logits of the images of NETWORKS, or of data.npz."""
    facts["subnets"] = {}
    for i, name in enumerate(("low_rank", "conv")):
        net = shaken(build_subnet(NETWORKS[name], 0), 20 + i)
        save_subnet(net, folder / f"subnet_{name}.pt", {"class_names": list("vwxyz"), "float_top1": 0.5})
        with torch.no_grad():
            values[f"subnet_{name}.logits"] = net(float_input(values[f"{name}.images"])).numpy()
        facts["subnets"][f"subnet_{name}"] = {"images": f"{name}.images", "config": NETWORKS[name].to_dict()}
    train_data, test_data = data_set(SPACE, 48, 50), data_set(SPACE, 16, 51)
    np.savez_compressed(
        folder / "data.npz", x_train=train_data.images, y_train=train_data.labels, x_test=test_data.images,
        y_test=test_data.labels,
    )  # fmt: skip
    supernet = shaken(SuperNet(CONV_SPACE, 0), 30)
    supernet.calibrate(float_input(train_data.images))
    save_supernet(supernet, folder / "supernet_conv.pt", {"note": "random weights"})
    (folder / "space.yaml").write_text(json.dumps(SPACE.to_dict()) + "\n")  # JSON is YAML
    command_line(
        folder, *"train --space space.yaml --data data.npz --epochs 30 --option batch_size=16 --held-out 16 "
        "--out supernet.pt".split()
    )  # fmt: skip
    facts["supernets"] = {}
    for name, space in (("supernet", SPACE), ("supernet_conv", CONV_SPACE)):
        rng, net = random.Random(4), mcuformer.nas.load_supernet(folder / f"{name}.pt")
        configs = [space.smallest(), space.largest(), space.sample(rng), space.sample(rng)]
        with torch.no_grad():
            logits = [net(float_input(test_data.images[:4]), config).numpy() for config in configs]
        values[f"{name}.logits"] = np.stack(logits)
        facts["supernets"][name] = {"notes": net.notes, "configs": [config.to_dict() for config in configs]}


class Stopped(Exception):
    pass


def make_training(folder: Path, values: dict, facts: dict) -> None:
    """training.pt after the first of two epochs: the losses and the logits at the end of the second."""
    config = dataclasses.replace(PATCH, image_size=8, embed_dim=8, num_heads=1, num_classes=4)
    data, path = data_set(config, 48, 50), folder / "training.pt"

    def stop(progress) -> None:
        if progress.epoch == 2:
            raise Stopped

    try:
        train(build_subnet(config, 1), data, TRAINING, checkpoint=path, progress=stop)
    except Stopped:
        pass
    copy = Path(tempfile.mkdtemp()) / "training.pt"
    copy.write_bytes(path.read_bytes())
    net = build_subnet(config, 2)
    result = train(net, data, TRAINING, checkpoint=copy)
    with torch.no_grad():
        values["training.logits"] = net(float_input(data.images[:4])).numpy()
    facts["training"] = {
        "config": config.to_dict(),
        "options": dataclasses.asdict(TRAINING),
        "class_names": list(data.class_names),
        "losses": list(result.losses),
    }


def make_logs(folder: Path, facts: dict) -> None:
    """search.jsonl by the command line, generations.jsonl and evolution.jsonl by the functions; how they end."""
    with tempfile.TemporaryDirectory() as other:
        command_line(
            folder, *"search supernet.pt --sram 1MB --population 6 --generations 0 --seed 3 --log-file search.jsonl "
            f"-o {other}/subnet.pt --json {other}/search.json".split()
        )  # fmt: skip
        found = json.loads((Path(other) / "search.json").read_text())
    facts["search"] = {
        "arguments": ["--sram", "1MB", "--population", "6", "--generations", "0", "--seed", "3"],
        "evaluated": found["evaluated"],
        "best": {name: found["best"][name] for name in ("config", "accuracy")},
    }
    budget = Budget(sram=150)
    result = search(SPACE, pretend_accuracy, pretend_cost, budget, SEARCH, log=folder / "generations.jsonl")
    facts["generations"] = {
        "options": dataclasses.asdict(SEARCH),
        "budget": dataclasses.asdict(budget),
        "evaluated": [[f.config.to_dict(), f.accuracy] for f in result.evaluated],
        "best": result.best.config.to_dict(),
        "front": [f.config.to_dict() for f in result.front],
        "judged": result.judged,
    }
    evolution = evolve(RANGE, tokens, pretend_measure, EVOLUTION, log=folder / "evolution.jsonl")
    facts["evolution"] = {
        "range": dataclasses.asdict(RANGE),
        "options": dataclasses.asdict(EVOLUTION),
        "visits": [dataclasses.asdict(visit) for visit in evolution.visits],
        "path": [visit.place for visit in evolution.path],
        "best": evolution.best.place,
        "converged": evolution.converged,
    }


def compare(folder: Path) -> bool:
    """Prints which files differ when they are made by this version; whether none does."""

    def content(path: Path) -> bytes:
        if not path.exists() or path.name == "training.pt":  # holds the seconds that the training took
            return b""
        if path.name == "golden.json":
            return json.dumps({**json.loads(path.read_text()), "version": None}).encode()
        return path.read_bytes()

    with tempfile.TemporaryDirectory() as other:
        made = Path(other) / "golden"
        make(made)
        names = {path.name for path in [*made.iterdir(), *folder.iterdir()]}
        different = sorted(name for name in names if content(made / name) != content(folder / name))
    print(f"{len(names)} files, {len(different)} differ{': ' if different else ''}{', '.join(different)}")
    return not different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--compare", action="store_true")
    given = parser.parse_args()
    if given.compare:
        sys.exit(0 if compare(given.folder.resolve()) else 1)
    make(given.folder.resolve())


if __name__ == "__main__":
    main()
