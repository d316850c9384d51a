# SPDX-License-Identifier: Apache-2.0
"""200 random networks: the interpreter's logits equal the integer reference bit for bit, its arena the plan's; both
schedules give the same logits, and so does an image in strips."""

import numpy as np
import pytest
from conftest import lively_subnet, structured_images

from mcuformer import Interpreter, QuantisationOptions, SubnetConfig, convert
from mcuformer.converter import feasibility
from mcuformer.converter.staging import is_staged, traffic
from mcuformer.converter.strips import takes_strips

CONFIGS, GROUP = 200, 10


def random_config(rng: np.random.Generator) -> SubnetConfig:
    """Tokens 1 to 200, widths 8 to 200, 1 to 4 heads, shared key/value heads, dense and low rank, both stems."""
    depth = int(rng.integers(1, 4))
    channels = int(rng.choice([1, 3]))
    conv = rng.random() < 0.2
    if conv:
        patch, size = int(rng.choice([2, 4, 8])), int(rng.integers(8, 34))
    else:
        grid, patch = int(rng.integers(1, 15)), int(rng.choice([1, 2, 3, 4, 5, 7, 8]))
        size = grid * patch + int(rng.integers(patch))
    heads = [int(rng.integers(1, 5)) for _ in range(depth)]
    divisors = [[d for d in range(1, h + 1) if h % d == 0] for h in heads]
    return SubnetConfig(
        image_size=size,
        in_channels=channels,
        patch_size=patch,
        embed_dim=int(rng.integers(8, 201)),
        depth=depth,
        num_heads=tuple(heads),
        head_dim=int(rng.integers(1, 49)),
        kv_heads=tuple(int(rng.choice(d)) for d in divisors),
        mlp_ratio=tuple(float(rng.uniform(0.5, 4)) for _ in range(depth)),
        rank_ratio=None if rng.random() < 0.5 else tuple(float(rng.uniform(0.05, 1)) for _ in range(depth)),
        num_classes=int(rng.integers(2, 30)),
        stem="conv" if conv else "patch",
    )


@pytest.mark.parametrize("group", range(CONFIGS // GROUP))
def test_interpreter_equals_reference(group):
    for seed in range(group * GROUP, (group + 1) * GROUP):
        rng = np.random.default_rng(seed)
        config = random_config(rng)
        images = structured_images(config, 4, seed)
        images[3] = rng.integers(0, 2, images[3].shape) * 255  # far from what it was calibrated with
        options = QuantisationOptions(
            method=str(rng.choice(["minmax", "percentile", "mse"])),
            residual=str(rng.choice(["per-channel", "per-channel", "per-tensor"])),
            gelu=str(rng.choice(["erf", "sigmoid"])),
            fuse_gelu=bool(rng.random() < 0.8),
        )
        net = lively_subnet(config, seed)
        model = convert(net, images[:3], quantisation=options, schedule="overwrite")
        want = model.reference(images)
        check(model, images, want, f"seed {seed}: {config}")
        if options.fuse_gelu:
            streamed = convert(net, images[:3], quantisation=options, schedule="streamed")
            np.testing.assert_array_equal(streamed.reference(images), want, err_msg=f"seed {seed}: {config}")
            check(streamed, images, want, f"seed {seed}, streamed: {config}")
            assert streamed.plan.arena_bytes < model.plan.arena_bytes or config.tokens < 9
        if config.stem == "patch":
            schedule = "streamed" if options.fuse_gelu else "overwrite"
            strips = convert(net, images[:3], quantisation=options, schedule=schedule, strips=True)
            check(strips, images, want, f"seed {seed}, strips: {config}")
        schedule = "streamed" if options.fuse_gelu and seed % 3 else "overwrite"
        strips = config.stem == "patch" and bool(seed % 2)
        scratch = None if seed % 5 else 40_000
        staged = convert(
            net, images[:3], quantisation=options, schedule=schedule, strips=strips, weights="staged", scratch=scratch
        )
        check(staged, images[2:], want[2:], f"seed {seed}, staged: {config}", scratch)


def check(model, images, want, case, scratch=None):
    interpreter = Interpreter(model)
    for _ in range(2):  # the second time on a used arena
        np.testing.assert_array_equal(interpreter(images), want, err_msg=case)
    kinds, names = {op.kind for op in model.graph.ops}, {tensor.name for tensor in model.graph.tensors}
    if "IntGeLU" not in kinds and "norm/factor" in names and scratch is None:  # quantised as by default
        strips, weights = takes_strips(model.graph), "staged" if is_staged(model.graph) else "xip"
        expected = feasibility.arena_bytes(model.config, model.schedule, strips, weights)
        assert expected == model.plan.arena_bytes, case
    read = [traffic(model.graph, op) for op in model.graph.ops]
    assert interpreter.weights_read == tuple(map(sum, zip(*read, strict=True))), case
    used = interpreter.allocations
    assert used["head"] == model.plan.head_bytes, case
    assert used["tail"] == model.plan.tail_bytes, case
