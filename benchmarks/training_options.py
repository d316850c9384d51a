# SPDX-License-Identifier: Apache-2.0
"""What each option of training is worth to a small hybrid network on little data, and how a supernet's time is spent.

    python benchmarks/training_options.py                       # 3 seeds
    python benchmarks/training_options.py plain teacher --seeds 5

Networks: hybrid-128k of baselines.py, 10 epochs of the images in the package less those held out, on which the
accuracy is measured; test images are not looked at. gain: over `plain` of the same seed, mean and standard error. The
averages of weights (EMA) are of the plain trainings. Drop path and random erasing are no options of `mcuformer train`:
they live here until they pay. The teacher is inverted-residual-32k, trained for 20 epochs.

Supernets: the space fashion-mnist, `alternate` for 20 epochs and `sandwich`, which trains four subnets a step, for 5:
as many passes.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import random
import sys

# Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import baselines
import numpy as np
import table
import torch
from cnns import Cnn

from mcuformer import nas
from mcuformer.data import Dataset, hold_out
from mcuformer.nas import TrainOptions, recipes
from mcuformer.nas.train import Training, _update_average

NETWORK = baselines.BASELINES["hybrid-128k"]
TEACHER = baselines.BASELINES["inverted-residual-32k"]
TEACHER_SEED, TEACHER_EPOCHS = 100, 20
SEEDS = 3
AVERAGES = (0.98, 0.99, 0.995, 0.998)
OPTIONS = {
    "plain": {},
    "no label smoothing": {"label_smoothing": 0.0},
    "mixup": {"mixup": 0.5},
    "cutmix": {"cutmix": 0.5},
    "teacher": {"teacher_weight": 0.5, "teacher_temperature": 2.0},
    "drop path": {},
    "random erasing": {},
}
DROPPED, ERASED = 0.1, 0.25
EPOCHS, PASSES = 20, 4
DRAWN = 20  # subnets whose accuracy is averaged


def split() -> tuple[Dataset, Dataset]:
    return hold_out(baselines.images_of("train", NETWORK.config.image_shape))


def drop_paths(net, seed: int) -> list:
    """In training, each half of a layer is left out for some images, the last for DROPPED of them. Hooks to remove."""
    generator = torch.Generator().manual_seed(seed)
    halves = [half for layer in net.layers for half in (layer.attention, layer.mlp)]

    def hook(module, _inputs, output, dropped):
        if not module.training:
            return output
        kept = torch.rand(len(output), 1, 1, generator=generator) >= dropped
        return output * kept / (1 - dropped)

    return [
        half.register_forward_hook(functools.partial(hook, dropped=DROPPED * (i + 1) / len(halves)))
        for i, half in enumerate(halves)
    ]


class ErasedBatches:
    """The batches with a rectangle of noise in ERASED of the images (Zhong et al., "Random Erasing", 2017)."""

    def __init__(self, batches, seed: int):
        self.batches, self.size, self.steps = batches, batches.size, batches.steps
        self.rng = np.random.default_rng(seed)

    def of(self, epoch: int):
        for images, *rest in self.batches.of(epoch):
            images = images.clone()
            for i in np.flatnonzero(self.rng.random(len(images)) < ERASED):
                self._erase(images[i])
            yield images, *rest

    def _erase(self, image: torch.Tensor) -> None:
        _, height, width = image.shape
        area = self.rng.uniform(0.02, 0.2) * height * width
        aspect = np.exp(self.rng.uniform(-np.log(3), np.log(3)))
        rows, columns = (int(np.clip(round((area * a) ** 0.5), 1, height)) for a in (aspect, 1 / aspect))
        top, left = self.rng.integers(0, height - rows + 1), self.rng.integers(0, width - columns + 1)
        noise = self.rng.uniform(-1, 1, (len(image), rows, columns)).astype(np.float32)
        image[:, top : top + rows, left : left + columns] = torch.from_numpy(noise)


@functools.cache
def teacher() -> nas.Teacher:
    """A CNN that sees no border and none of the held-out images."""
    images, _ = split()
    net = Cnn(TEACHER.config, TEACHER_SEED)
    options = dataclasses.replace(TEACHER.options(TEACHER_SEED), epochs=TEACHER_EPOCHS)
    cropped = dataclasses.replace(images, images=np.ascontiguousarray(images.images[:, 2:-2, 2:-2]))
    baselines.train(net, cropped, options)
    return nas.Teacher(lambda x: net(x[:, :, 2:-2, 2:-2]))


def accuracies(name: str, seed: int) -> dict[str, float]:
    """Held-out accuracy of one training, and for `plain` of the averages of its weights."""
    images, kept = split()
    options: TrainOptions = dataclasses.replace(NETWORK.options(seed), **OPTIONS[name])
    net = NETWORK.untrained(seed).to(memory_format=torch.channels_last)
    run = Training(net, images, options, teacher() if name == "teacher" else None)
    hooks = drop_paths(net, seed) if name == "drop path" else []
    if name == "random erasing":
        run.batches = ErasedBatches(run.batches, seed)
    averages = {decay: copy.deepcopy(net.state_dict()) for decay in AVERAGES if name == "plain"}
    steps = iter(range(options.epochs * run.steps))

    def after_step(_progress) -> None:
        step = next(steps)
        for decay, average in averages.items():
            _update_average(average, net.state_dict(), decay, step)

    for _ in range(options.epochs):
        run.epoch(after_step)
    for handle in hooks:
        handle.remove()
    found = {name: nas.evaluate(net, kept)}
    for decay, average in averages.items():
        net.load_state_dict(average)
        found[f"EMA {decay}"] = nas.evaluate(net, kept)
    return found


def gains(scores: dict[str, list[float]]) -> list[dict]:
    """A row for each option; the gain is over plain of the same seed."""
    rows = []
    for name, found in scores.items():
        row: dict = {"option": name, "top1": found}
        if name != "plain" and "plain" in scores:
            gain = np.subtract(found, scores["plain"])
            row |= {"gain": float(gain.mean()), "error": float(gain.std(ddof=1) / len(gain) ** 0.5)}
        rows.append(row)
    return rows


def supernet_scores(sampling: str, seed: int) -> dict[str, float]:
    """Held-out accuracy of subnets of a supernet: largest, smallest, mean of random ones."""
    images, kept = split()
    supernet = nas.SuperNet(nas.load_space("fashion-mnist"), seed)
    epochs = EPOCHS // PASSES if sampling == "sandwich" else EPOCHS
    nas.train(
        supernet, images, dataclasses.replace(recipes.SUPERNET_OPTIONS, epochs=epochs, sampling=sampling, seed=seed)
    )
    space, rng = supernet.space, random.Random(0)
    drawn = [space.sample(rng) for _ in range(DRAWN)]
    return {
        "largest": nas.evaluate(supernet, kept, config=space.largest()),
        "smallest": nas.evaluate(supernet, kept, config=space.smallest()),
        f"mean of {DRAWN}": float(np.mean([nas.evaluate(supernet, kept, config=config) for config in drawn])),
    }


def main() -> int:
    known = (*OPTIONS, "supernets")
    parser = table.parser(__doc__)
    parser.add_argument("options", nargs="*", metavar="OPTION", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"trainings of each, at least 2 (default {SEEDS})")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.options if name not in known]:
        parser.error(f"unknown option {unknown[0]!r}: use some of {', '.join(known)}")
    if arguments.seeds < 2:
        parser.error(f"--seeds {arguments.seeds}: must be at least 2")
    torch.set_num_threads(1)
    chosen, result = arguments.options or known, {}
    scores: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        for name in [name for name in chosen if name in OPTIONS]:
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            for kind, top1 in accuracies(name, seed).items():
                scores.setdefault(kind, []).append(top1)
    if scores:
        rows = result["options"] = gains(scores)
        table.show(
            ["option", "held-out %", "gain, points"],
            [[r["option"], baselines.percent(r["top1"]),
              f"{100 * r['gain']:+.2f} ± {100 * r['error']:.2f}" if "gain" in r else None] for r in rows],
        )  # fmt: skip
        print()
    if "supernets" in chosen:
        found = {
            sampling: [supernet_scores(sampling, seed) for seed in range(arguments.seeds)]
            for sampling in ("alternate", "sandwich")
        }
        result["supernets"] = found
        kinds = list(found["alternate"][0])
        table.show(
            ["sampling", *(f"{kind} %" for kind in kinds)],
            [[name, *(baselines.percent([s[kind] for s in runs]) for kind in kinds)] for name, runs in found.items()],
        )
    return table.finish(result, [], arguments.json)


if __name__ == "__main__":
    sys.exit(main())
