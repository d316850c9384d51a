# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, and training that rounds as int8 does."""

import copy
import dataclasses
import random

import pytest
import torch
from spaces import CONV, PATCH, digits

from mcuformer import Interpreter, convert
from mcuformer.converter.pixels import to_float
from mcuformer.nas import SuperNet, TrainOptions, evaluate, train
from mcuformer.nas.evaluation import calibration_images
from mcuformer.nas.finetune import finetune
from mcuformer.nas.qat import RoundedActivation, RoundedWeight, fake_quantised

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


def test_an_interruption_leaves_the_network_as_it_was(trained):
    net = trained.extract(trained.space.smallest())
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError), fake_quantised(net, calibration_images(digits(0, 64))):
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
