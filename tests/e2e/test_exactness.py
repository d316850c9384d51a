# SPDX-License-Identifier: Apache-2.0
"""200 random networks: the logits of the interpreter and of the kernels alone equal the integer reference bit for bit,
its arena the plan's; both schedules give the same logits, and so does an image in strips."""

import numpy as np
import pytest
from conftest import lively_subnet, structured_images
from random_networks import CONFIGS, random_config

from mcuformer import Interpreter, QuantisationOptions, SubnetConfig, convert
from mcuformer.converter import model as model_module
from mcuformer.converter.estimate import feasibility
from mcuformer.converter.lower import WIDE_NETWORKS
from mcuformer.converter.passes.staging import is_staged, traffic
from mcuformer.converter.passes.strips import takes_strips

GROUP = 10
WIDE = 9  # networks with an int16 residual stream


@pytest.fixture
def lowered_once(monkeypatch):
    """A network that is converted in several ways is calibrated and quantised once; the ways begin after that."""
    last, known_again = {}, set()

    def remembered(function):
        def call(net, *arguments, **options):
            known, result = last.get(function, (None, None))
            if known is net:
                known_again.add(function.__name__)
            else:
                result = function(net, *arguments, **options)
                last[function] = net, result
            return result

        return call

    names = {"checked", "calibrate", "lower"}
    for name in names:
        monkeypatch.setattr(model_module, name, remembered(getattr(model_module, name)))
    yield
    assert known_again == names


@pytest.mark.parametrize("group", range(CONFIGS // GROUP))
def test_interpreter_equals_reference(group, lowered_once):
    for seed in range(group * GROUP, (group + 1) * GROUP):
        rng = np.random.default_rng(seed)
        config = random_config(rng)
        images = structured_images(config, 4, seed)
        outliers = np.random.default_rng([seed, 1])
        images[3] = rng.integers(0, 2, images[3].shape) * 255  # far from what it was calibrated with
        options = QuantisationOptions(
            method=str(rng.choice(["minmax", "percentile", "mse"])),
            residual=str(rng.choice(["per-channel", "per-channel", "per-tensor"])),
            gelu=str(rng.choice(["erf", "sigmoid"])),
            fuse_gelu=bool(rng.random() < 0.8),
            ranges=str(outliers.choice(["own", "own", "outputs"])),
            rounding=str(outliers.choice(["nearest", "nearest", "compensated"])),
        )
        by_default = options.residual == "per-channel" and options.fuse_gelu
        net = lively_subnet(config, seed)
        model = convert(net, images[:3], quantisation=options, schedule="overwrite")
        want = model.reference(images)
        check(model, images, want, f"seed {seed}: {config}", by_default)
        if options.fuse_gelu:
            streamed = convert(net, images[:3], quantisation=options, schedule="streamed")
            np.testing.assert_array_equal(streamed.reference(images), want, err_msg=f"seed {seed}: {config}")
            check(streamed, images, want, f"seed {seed}, streamed: {config}", by_default)
            assert streamed.plan.arena_bytes < model.plan.arena_bytes or config.tokens < 9
        schedule = "streamed" if options.fuse_gelu else "overwrite"
        strips = convert(net, images[:3], quantisation=options, schedule=schedule, strips=True)
        check(strips, images, want, f"seed {seed}, strips: {config}", by_default)
        schedule = "streamed" if options.fuse_gelu and seed % 3 else "overwrite"
        strips = bool(seed % 2)
        scratch = None if seed % 5 else 40_000
        staged = convert(
            net, images[:3], quantisation=options, schedule=schedule, strips=strips, weights="staged", scratch=scratch
        )
        check(staged, images[2:], want[2:], f"seed {seed}, staged: {config}", by_default and scratch is None)


def check(model, images, want, case, by_default):
    """by_default: quantised and placed as feasibility assumes."""
    interpreter = Interpreter(model, engine="tflm")
    for _ in range(2):  # the second time on a used arena
        np.testing.assert_array_equal(interpreter(images), want, err_msg=case)
    if by_default:
        strips, weights = takes_strips(model.graph), "staged" if is_staged(model.graph) else "xip"
        residual = "int16" if model.graph.is_wide else "per-channel"
        expected = feasibility.arena_bytes(model.config, model.schedule, strips, weights, residual)
        assert expected == model.plan.arena_bytes, case
    read = [traffic(model.graph, op) for op in model.graph.ops]
    assert interpreter.weights_read == tuple(map(sum, zip(*read, strict=True))), case
    used = interpreter.allocations
    assert used["head"] == model.plan.head_bytes, case
    assert used["tail"] == model.plan.tail_bytes, case
    alone = Interpreter(model, engine="c")
    np.testing.assert_array_equal(alone(images), want, err_msg=case)
    assert alone.weights_read == interpreter.weights_read and alone.arena_used_bytes <= used["head"], case


def test_int16_residual_streams():
    """Those of the random networks that take one; the arena grows by the stream."""
    found = 0
    for seed in range(CONFIGS):
        config = random_config(np.random.default_rng(seed))
        if any(getattr(config, field) not in known for field, known in WIDE_NETWORKS.items()):
            continue
        images, found = structured_images(config, 4, seed), found + 1
        images[3] = 255 * (images[3] > 128)
        net, want, ranges = lively_subnet(config, seed), None, ("own", "outputs")[found % 2]
        options = QuantisationOptions(
            residual="int16", ranges=ranges, rounding=("nearest", "compensated")[found // 2 % 2]
        )
        ways = ({}, {"strips": True}, {"weights": "staged"}, {"weights": "staged", "strips": True, "scratch": 40_000})
        for way in ways if found == 1 else (ways[found % 4],):
            model = convert(net, images[:3], quantisation=options, **way)
            want = model.reference(images) if want is None else want
            np.testing.assert_array_equal(model.reference(images), want)
            check(model, images, want, f"seed {seed}, int16, {way}: {config}", "scratch" not in way)
        if found == WIDE:
            return
    raise AssertionError(f"only {found} networks")


@pytest.mark.parametrize("size, tokens", [(92, 529), (132, 1089)])
def test_more_than_512_tokens(size, tokens):
    """Where attention's numerators lose one bit, and two."""
    config = SubnetConfig(
        image_size=size, in_channels=1, patch_size=4, embed_dim=12, depth=1, num_heads=2, head_dim=5, mlp_ratio=2.0,
        num_classes=3,
    )  # fmt: skip
    assert config.tokens == tokens
    images, net = structured_images(config, 2, tokens), lively_subnet(config, 0)
    want = None
    for schedule in ("overwrite", "streamed"):
        model = convert(net, images, schedule=schedule)
        want = model.reference(images) if want is None else want
        check(model, images, want, f"{tokens} tokens, {schedule}", by_default=True)
        np.testing.assert_array_equal(Interpreter(model, engine="c")(images), want)
