# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, and training that rounds as int8 does."""

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from spaces import CONV, PATCH, digits

from mcuformer import Interpreter, SubnetConfig, convert
from mcuformer.converter.pixels import to_float
from mcuformer.nas import SuperNet, TrainOptions, build_subnet, evaluate, train
from mcuformer.nas.evaluation import calibration_images
from mcuformer.nas.finetune import FINETUNE_OPTIONS, finetune, finetune_options
from mcuformer.nas.qat import RoundedActivation, RoundedWeight, fake_quantised
from mcuformer.nas.recipes import NETWORK_CONFIG, mirror_notes

OPTIONS = TrainOptions(epochs=4, batch_size=64, learning_rate=3e-3, flip=False, threads=1)


@pytest.fixture(scope="module", params=[PATCH, CONV], ids=["patch", "conv"])
def trained(request):
    supernet = SuperNet(request.param)
    train(supernet, digits(0, 1400), dataclasses.replace(OPTIONS, epochs=5, learning_rate=1e-2))
    return supernet


@pytest.mark.parametrize("quantised", [False, True])
def test_a_subnet_gets_better_on_its_own(trained, quantised):
    space = trained.space
    config = dataclasses.replace(space.sample(random.Random(3)), patch_size=space.patch_size[-1])
    net, held_out = trained.extract(config), digits(1400, 1797, "test")
    before = evaluate(net, held_out)
    names = sorted(net.state_dict())
    result = finetune(net, digits(0, 1400), OPTIONS, quantised=quantised, validation=held_out)
    assert sorted(net.state_dict()) == names and not net.training
    assert evaluate(net, held_out) > before and abs(evaluate(net, held_out) - result.top1) < 0.05
    assert evaluate(trained, held_out, config=config) == before  # the supernet keeps its weights


def test_the_rounded_network_is_near_the_int8_one(trained):
    """Nearer to the interpreter's logits than the float network is, or as near."""
    net = trained.extract(trained.space.largest())
    images = digits(1400, 1600)
    model = convert(net, digits(0, 256).images)
    int8 = torch.from_numpy(Interpreter(model)(images.images))
    x = to_float(images.images)
    with torch.inference_mode():
        plain = net(x)
    with fake_quantised(net, calibration_images(digits(0, 256))), torch.inference_mode():
        rounded = net(x)
    spread = plain.std()
    assert (rounded - plain).abs().max() > 1e-3 * spread
    assert (rounded - int8).square().mean() < 0.05 * spread**2
    with torch.inference_mode():
        assert torch.equal(net(x), plain)  # nothing of it is left


OPTIONS_OF = {
    "post": {"norm": "post", "prefix_tokens": 1, "pool": "token", "final_norm": "none", "activation": "relu"},
    "pre": {"norm_pre": True, "prefix_tokens": 2, "pool": "token+mean", "final_norm": "after", "activation": "silu"},
    "two": {"prefix_tokens": 1, "pool": "token+mean", "activation": "quick-gelu", "norm_epsilon": 1e-3},
    "all": {"prefix_tokens": 3, "pool": "mean-all", "final_norm": "none", "activation": "hardswish"},
    "post-after": {"norm": "post", "norm_pre": True, "pool": "mean", "final_norm": "after", "activation": "gelu-tanh"},
    "bias": {"prefix_tokens": 1, "pool": "token", "relative_position": "bias"},
    "tables": {"prefix_tokens": 1, "relative_position": "tables"},
    "tables-without-prefix": {"kv_heads": 1, "norm": "post", "relative_position": "tables"},
    "embedding": {"prefix_tokens": 2, "pool": "token+token", "num_classes": 0},
    "embedding-mean": {"prefix_tokens": 1, "pool": "mean", "final_norm": "none", "norm": "post", "num_classes": 0},
    "around": {"attention_rank_ratio": (0.4, 0.7), "rank_ratio": 0.5},
}  # fmt: skip


def test_two_pooled_parts_have_a_scale_each_and_a_post_norms_stream_has_one():
    config = SubnetConfig(
        image_size=8, in_channels=1, patch_size=2, embed_dim=64, depth=2, num_heads=2, prefix_tokens=1
    )
    x, entered, seen = torch.linspace(-1, 1, 4096).reshape(64, 1, 8, 8), {}, {}
    for options in ({"pool": "token+mean"}, {"norm": "post"}):
        net = build_subnet(dataclasses.replace(config, **options)).eval()
        with fake_quantised(net, x), torch.inference_mode():
            for name, module in (("head", net.head), ("layer", net.layers[1])):  # after the rounding ones
                module.register_forward_pre_hook(lambda _m, inputs, name=name: entered.__setitem__(name, inputs[0]))
            net(x, seen.__setitem__)
        if "pool" in options:
            token, mean = entered["head"].split(64, dim=1)
            assert len(token.unique()) <= 256 and len(mean.unique()) <= 256
            assert len(entered["head"].unique()) > 256
        else:
            assert torch.equal(entered["layer"], seen["layers.0.norm2"])


def test_tables_of_relative_positions_have_one_scale_and_so_have_keys_at_least():
    config = SubnetConfig(
        image_size=(6, 8), in_channels=1, patch_size=2, embed_dim=16, depth=2, num_heads=2, prefix_tokens=1,
        relative_position="tables",
    )  # fmt: skip
    net, x, seen = build_subnet(config), torch.linspace(-1, 1, 16 * 48).reshape(16, 1, 6, 8), {}
    relative = net.layers[0].attention.relative
    with torch.no_grad():
        relative.key_columns[2, 3], relative.value_prefix[0, 1] = -254.0, 12.7  # scales 2 and 0.1
        relative.key_rows.copy_(torch.linspace(-7, 7, 5 * 8).reshape(5, 8))
    before = {name: value.clone() for name, value in net.named_parameters()}
    with fake_quantised(net, x):
        assert torch.equal(relative.key_rows, (before["layers.0.attention.relative.key_rows"] / 2).round() * 2)
        assert relative.key_columns[2, 3].item() == -254
        net(x).square().sum().backward()
        gradients = [value.grad for name, value in net.named_parameters() if ".relative." in name]
        assert len(gradients) == 12 and all(gradient.abs().sum() > 0 for gradient in gradients)
        net.layers[0].attention.qkv.register_forward_hook(lambda _m, _i, output: seen.__setitem__("qkv", output))
        net.eval()(x)
    q, k, v = seen["qkv"].detach().split(16, dim=-1)
    for part, step in ((k, 2.0), (v, 0.1)):
        torch.testing.assert_close(part / step, (part / step).round(), rtol=0, atol=1e-3)
    assert len(q.unique()) > 20
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not torch.nn.utils.parametrize.is_parametrized(relative)


@pytest.mark.parametrize("options", OPTIONS_OF.values(), ids=OPTIONS_OF)
def test_so_is_that_of_every_option(options):
    """Per tensor at most 256 values in int8, per channel where the residual stream is rounded per channel."""
    config = SubnetConfig(
        image_size=(9, 12), in_channels=1, patch_size=(3, 2), embed_dim=24, depth=2, num_heads=2, **options
    )
    net, generator = build_subnet(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim < 2 or ".relative." in name:
                scale = 1.0 if name.endswith("relative.bias") else 0.2
                value.add_(scale * torch.randn(value.shape, generator=generator))
    images = np.random.default_rng(0).integers(0, 256, (80, 9, 12, 1), np.uint8)
    int8 = torch.from_numpy(convert(net, images[:64]).reference(images[64:])).float()
    x, seen = to_float(images[64:]), {}
    with torch.inference_mode():
        plain = net(x)
    with fake_quantised(net, to_float(images[:64])), torch.inference_mode():
        rounded = net(x, seen.__setitem__)
    spread = plain.std()
    assert (rounded - plain).abs().max() > 1e-3 * spread
    assert (rounded - int8).square().mean() < 0.005 * spread**2
    per_tensor = [name for name in seen if name == "norm" or name.endswith(("norm1", "norm2"))]
    assert len(per_tensor) == 4 + (net.norm is not None)
    assert all(len(seen[name].unique()) <= 256 for name in per_tensor)
    for channels in [seen["norm_pre"].unbind(-1)] if config.norm_pre else []:
        assert all(len(channel.unique()) <= 256 for channel in channels) and len(seen["norm_pre"].unique()) > 512
    with torch.inference_mode():
        assert torch.equal(net(x), plain)


def test_blocks_of_a_stem_are_rounded_as_they_are_in_int8():
    """What each convolution of a block reads, and what the block makes."""
    config = SubnetConfig(
        image_size=(9, 12), in_channels=1, patch_size=8, embed_dim=24, depth=1, num_heads=2, stem="conv",
        stem_channels=(6, 10), stem_blocks=(0, 4),
    )  # fmt: skip
    net, images = build_subnet(config).eval(), np.random.default_rng(0).integers(0, 256, (80, 9, 12, 1), np.uint8)
    int8 = torch.from_numpy(convert(net, images[:64]).reference(images[64:])).float()
    x, read = to_float(images[64:]), {}
    with torch.inference_mode():
        plain = net(x)
    block = net.stem.blocks["1"]
    readers = {"block": block, "depthwise": block.depthwise, "project": block.project, "conv": net.stem.convs[2]}
    with fake_quantised(net, to_float(images[:64])), torch.inference_mode():
        hooks = [
            module.register_forward_pre_hook(lambda _m, inputs, name=name: read.__setitem__(name, inputs[0]))
            for name, module in readers.items()
        ]
        rounded = net(x)
        steps = block.depthwise.weight * 127 / block.depthwise.weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert all(10 < len(read[name].unique()) <= 256 for name in readers) and read["conv"].min() < 0
    spread = plain.std()
    assert (rounded - plain).abs().max() > 1e-3 * spread
    assert (rounded - int8).square().mean() < 0.005 * spread**2
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        assert torch.equal(net(x), plain)


def test_hidden_values_are_rounded_down_to_the_activations_floor():
    """SiLU of -5 is -0.03: with the floor of GELU, -4, it would be -0.07."""
    config = SubnetConfig(
        image_size=4, in_channels=1, patch_size=2, embed_dim=8, depth=1, num_heads=1, activation="silu"
    )
    net, x, seen = build_subnet(config).eval(), torch.linspace(-1, 1, 256).reshape(16, 1, 4, 4), {}
    with torch.no_grad():
        net.layers[0].mlp.fc1.bias.fill_(-5.0)
        net.layers[0].mlp.fc1.weight.mul_(0.1)
    with fake_quantised(net, x), torch.inference_mode():
        net(x, seen.__setitem__)
    assert seen["layers.0.fc1.pre"].amin() < -4.9


def test_rounding_is_to_255_steps_and_passes_gradients_inside_the_range():
    x = torch.linspace(-1, 3, 1001)[:, None].requires_grad_()
    rounding = RoundedActivation()
    y = rounding(x)
    assert len(y.unique()) <= 256 and (y - x).abs().max() <= 4 / 255 * 0.51
    rounding.eval()(2 * x).sum().backward()
    inside = (2 * x >= -0.95) & (2 * x <= 2.95)
    assert (x.grad[inside] == 2).all() and (x.grad[(2 * x < -1.1) | (2 * x > 3.1)] == 0).all()
    weight = torch.randn(4, 100)
    rounded = RoundedWeight()(weight)
    assert all(len(row.unique()) <= 255 for row in rounded) and (rounded - weight).abs().max() < 0.02
    heads = torch.randn(3, 5, 8) * torch.tensor([1.0] * 4 + [100.0] * 4)
    assert (RoundedActivation(groups=2)(heads) - heads)[..., :4].abs().max() < 0.02  # a scale a head


def test_images_are_mirrored_only_if_they_were_before():
    net = build_subnet(NETWORK_CONFIG)
    assert finetune_options(net) == FINETUNE_OPTIONS and FINETUNE_OPTIONS.flip
    net.notes = mirror_notes(TrainOptions(flip=False))
    assert finetune_options(net) == dataclasses.replace(FINETUNE_OPTIONS, flip=False)
    assert mirror_notes(net.notes) == net.notes and mirror_notes({}) == mirror_notes(TrainOptions()) == {}


def test_an_interruption_leaves_the_network_as_it_was(trained):
    net = trained.extract(trained.space.smallest())
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError), fake_quantised(net, calibration_images(digits(0, 64))):
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
