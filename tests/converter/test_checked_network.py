# SPDX-License-Identifier: Apache-2.0
"""Networks that are not what their config says, or not float32 on the CPU: converted right, or named with the fix."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import HEADLESS, TINY, lively_subnet, structured_images
from torch import nn
from torch.nn.utils.prune import l1_unstructured as prune

from mcuformer import convert
from mcuformer.converter.report import agreement, error_report, float_outputs
from mcuformer.errors import ConfigError, McuformerError, ModelError
from mcuformer.nas import SearchSpace, SuperNet, load_subnet, save_subnet
from mcuformer.nas.qat import fake_quantised

CONV = dataclasses.replace(TINY, stem="conv", rank_ratio=0.5)
BLOCK = dataclasses.replace(CONV, stem_blocks=(2,))
RANK = dataclasses.replace(TINY, rank_ratio=0.25)
PRE = dataclasses.replace(TINY, norm_pre=True)


@pytest.fixture
def net():
    return lively_subnet(TINY, 3)


@pytest.fixture(scope="module")
def images():
    return structured_images(TINY, 32, seed=1)


def refused(net, images, match, error=ModelError):
    with pytest.raises(error, match=match) as caught:
        convert(net, images)
    assert "\n" not in str(caught.value)


# what is converted


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted(net, images, dtype):
    other = copy.deepcopy(net).to(dtype)
    model = convert(other, images)
    assert model.content == convert(copy.deepcopy(other).float(), images).content
    assert next(other.parameters()).dtype == dtype  # it stays as it was
    agreed = agreement(float_outputs(other, images), model.reference(images), has_head=True)
    assert agreed.mean_cosine > 0.99
    assert len(error_report(model, other, images)) == len(model.graph.ops)


WRAPPED = {
    "DataParallel": lambda net: nn.DataParallel(net),
    "torch.compile": lambda net: torch.compile(net),
    "both": lambda net: nn.DataParallel(torch.compile(net)),
    "average": lambda net: torch.optim.swa_utils.AveragedModel(net),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrapped_networks_are_converted_and_saved(net, images, wrap, tmp_path):
    wrapped = WRAPPED[wrap](net)
    assert convert(wrapped, images).content == convert(net, images).content
    save_subnet(wrapped, tmp_path / "subnet.pt")
    loaded = load_subnet(tmp_path / "subnet.pt").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())


def without_affine(config):
    """LayerNorms without weight and bias, and the same network with ones and zeros."""
    net = lively_subnet(config, 3)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.LayerNorm):
            parent, _, last = name.rpartition(".")
            bare = nn.LayerNorm(module.normalized_shape, eps=module.eps, elementwise_affine=False)
            setattr(net.get_submodule(parent), last, bare)
            nn.init.ones_(module.weight), nn.init.zeros_(module.bias)
    return net


@pytest.mark.parametrize("config", [TINY, CONV, PRE, HEADLESS], ids=["plain", "conv", "pre", "headless"])
@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_norms_without_affine_are_converted(config, schedule):
    images, net = structured_images(config, 16), without_affine(config)
    want = lively_subnet(config, 3)
    for module in want.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight), nn.init.zeros_(module.bias)
    model = convert(net, images, schedule=schedule)
    assert model.content == convert(want, images, schedule=schedule).content


@pytest.mark.parametrize(
    "config", [TINY, CONV, dataclasses.replace(TINY, rank_ratio=0.25)], ids=["plain", "conv", "rank"]
)
def test_networks_without_biases_are_converted(config):
    images, net, want = structured_images(config, 16), lively_subnet(config, 3), lively_subnet(config, 3)
    for one, other in zip(net.modules(), want.modules(), strict=True):
        if isinstance(one, nn.Linear | nn.Conv2d) and one.bias is not None:
            one.bias = None
            nn.init.zeros_(other.bias)
    assert convert(net, images).content == convert(want, images).content
    assert next(module for module in net.modules() if isinstance(module, nn.Linear)).bias is None


def test_modules_that_are_never_called_do_not_matter(net, images):
    want = convert(net, images).content
    net.dropped = nn.Identity()
    net.layers[0].other = nn.Dropout(0.5)
    assert convert(net, images).content == want


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_network_on_a_gpu_is_converted(net, images):
    assert convert(copy.deepcopy(net).cuda(), images).content == convert(net, images).content


# what is named


def test_a_head_of_other_classes_is_named(net, images):
    """Its model had names for 5 classes and logits of 7: firmware printed (null)."""
    net.head = nn.Linear(24, 7)
    refused(net, images, r"head.weight has shape \[7, 24\], but \[5, 24\] by its config: .*num_classes=7")
    net.config = dataclasses.replace(net.config, num_classes=7)
    assert convert(net, images).class_names == tuple("0123456")


def change_position(net):
    net.position = nn.Parameter(torch.zeros(1, 9, 24))


CHANGES = {
    "head.weight has shape": lambda net: setattr(net, "head", nn.Linear(20, 5)),
    "head is a Identity, not a Linear.*num_classes = 0": lambda net: setattr(net, "head", nn.Identity()),
    "head is missing.*num_classes = 0": lambda net: setattr(net, "head", None),
    'norm is a Identity.*final_norm = "none"': lambda net: setattr(net, "norm", nn.Identity()),
    "norm is missing.*final_norm": lambda net: setattr(net, "norm", None),
    "norm_pre is there": lambda net: setattr(net, "norm_pre", nn.LayerNorm(24)),
    "prefix is ": lambda net: setattr(net, "prefix", nn.Parameter(torch.zeros(1, 1, 24))),
    "layers.0.norm1 is a Identity, not a LayerNorm": lambda net: setattr(net.layers[0], "norm1", nn.Identity()),
    "layers.0.norm2 is a RMSNorm": lambda net: setattr(net.layers[0], "norm2", nn.RMSNorm(24)),
    "position has shape": change_position,
    "layers.1.mlp.fc1.weight has shape": lambda net: setattr(net.layers[1].mlp, "fc1", nn.Linear(24, 95)),
    "layers.1.mlp.activation = relu, but gelu": lambda net: setattr(
        net.layers[1].mlp, "activation", nn.functional.relu
    ),
    "layers.1.mlp.activation": lambda net: setattr(net.layers[1].mlp, "activation", nn.GELU()),
    "layers.1 is missing": lambda net: net.layers.__delitem__(1),
    "layers.0.attention.qkv is a .*Wider.*with another forward": lambda net: setattr(
        net.layers[0].attention, "qkv", type("Wider", (nn.Linear,), {"forward": lambda self, x: x})(24, 60)
    ),
    "layers.0.attention is a Attention, with another forward": lambda net: setattr(
        net.layers[0].attention, "forward", lambda *_: 0
    ),
    "layers.0.attention.layer = ": lambda net: setattr(
        net.layers[0].attention, "layer", dataclasses.replace(TINY, num_heads=4, head_dim=5).layers[0]
    ),
    "layers.1.post_norm = True, but False": lambda net: setattr(net.layers[1], "post_norm", True),
    "stem.padding = ": lambda net: setattr(net.stem, "padding", (1, 1)),
    "head.weight is torch.int8": lambda net: setattr(
        net.head, "weight", nn.Parameter(torch.zeros(5, 24, dtype=torch.int8), requires_grad=False)
    ),
    "head.weight is torch.complex64": lambda net: setattr(net.head, "weight", nn.Parameter(net.head.weight + 1j)),
    "head.weight is a tensor of an unusual kind.*meta": lambda net: net.head.to("meta"),
    "head.weight_mask is nothing|head.weight_orig is nothing": lambda net: prune(net.head, "weight", 0.5),
    "head has a parametrization": lambda net: nn.utils.parametrizations.weight_norm(net.head),
    "net.config is a dict": lambda net: setattr(net, "config", net.config.to_dict()),
    "head.lora is nothing that the network": lambda net: net.head.register_parameter(
        "lora", nn.Parameter(torch.ones(3))
    ),
    r"weight layers.0.mlp.fc1.weight\[3, 2\] = 1e\+20": lambda net: (
        net.layers[0].mlp.fc1.weight.data[3].__setitem__(2, 1e20)
    ),
    r"weight position\[0, 3, 1\] = -1e\+06": lambda net: net.position.data[0, 3].__setitem__(1, -1e6),
    "weight head.bias holds 1 NaN": lambda net: net.head.bias.data.__setitem__(1, torch.nan),
}


@pytest.mark.parametrize("match", CHANGES)
def test_a_network_that_is_not_what_its_config_says_is_named(net, images, match):
    CHANGES[match](net)
    refused(net, images, match)


def test_parts_that_lowering_does_not_read_are_named(images):
    """A bias where the network has none would be left out without a word."""
    net = lively_subnet(RANK, 3)
    net.layers[0].mlp.fc1.down.bias = nn.Parameter(torch.ones(6))
    refused(net, images, "layers.0.mlp.fc1.down.bias is nothing that the network")
    net = lively_subnet(CONV, 3)
    net.stem.convs[0] = nn.Conv2d(1, net.stem.convs[0].out_channels, 3, stride=2, padding=1)
    refused(net, images, "stem.convs.0.bias is nothing that the network")
    net = lively_subnet(CONV, 3)
    net.stem.norms[0] = nn.BatchNorm2d(net.stem.norms[0].num_features, track_running_stats=False)
    refused(net, images, "stem.norms.0.running_mean is missing")
    net = lively_subnet(BLOCK, 3)
    net.stem.blocks["0"].depthwise.groups = 1
    refused(net, images, "stem.blocks.0.depthwise.groups = 1, but")
    net = lively_subnet(BLOCK, 3)
    net.stem.blocks["0"].forward = lambda x, *_: x
    refused(net, images, "stem.blocks.0 is a StemBlock, with another forward")
    net = lively_subnet(BLOCK, 3)
    net.config = CONV
    refused(net, images, "stem.blocks.0 is there, but not in the network of its config")
    net = lively_subnet(CONV, 3)
    net.config = BLOCK
    refused(net, images, "stem.blocks.0 is missing, but in the network of its config")
    net = lively_subnet(TINY, 3)
    net.layers.append(net.layers[0])
    refused(net, images, "layers.2 is there, but not in the network of its config")
    net = lively_subnet(dataclasses.replace(TINY, relative_position="bias"), 3)
    net.config = TINY
    refused(net, images, "layers.0.attention.relative is there, but not in the network of its config")
    net = lively_subnet(HEADLESS, 3)
    net.head = nn.Linear(24, 5)
    refused(net, structured_images(HEADLESS, 8), "head is there, but not in the network of its config")


def test_a_double_beyond_float32_is_named(net, images):
    net = net.double()
    net.head.weight.data[0, 0] = 1e300
    refused(net, images, "weight head.weight holds 1 NaN or infinite")


def test_a_network_in_quantisation_aware_training_is_named(net, images):
    with fake_quantised(net, torch.zeros(4, 1, 16, 16)):
        refused(net, images, "has a parametrization: convert after leaving fake_quantised")
    convert(net, images)


SPACE = SearchSpace.from_dict(
    {
        "image_size": 16, "in_channels": 1, "num_classes": 5, "embed_dim": [16], "depth": [1], "num_heads": [2],
        "head_dim": 8, "mlp_ratio": [1.0], "patch_size": [4],
    }
)  # fmt: skip
NOT_NETWORKS = {
    "a str .*load_subnet": lambda net: "subnet.pt",
    "a .*Path .*load_subnet": lambda net: __import__("pathlib").Path("subnet.pt"),
    "a OrderedDict .*load_state_dict": lambda net: net.state_dict(),
    "a dict .*load_state_dict": lambda net: {f"module.{name}": value for name, value in net.state_dict().items()},
    "a SubnetConfig .*build_subnet": lambda net: net.config,
    "a SuperNet .*extract": lambda net: SuperNet(SPACE),
    "a Linear .*import_vit": lambda net: nn.Linear(3, 4),
    "a NoneType .*load_subnet": lambda net: None,
    "a type": lambda net: type(net),
    "a Model": lambda net: convert(net, structured_images(TINY, 4)),
}


@pytest.mark.parametrize("match", NOT_NETWORKS)
def test_what_is_no_network_is_named_with_the_fix(net, images, match, tmp_path):
    refused(NOT_NETWORKS[match](net), images, match, ConfigError)
    with pytest.raises(ConfigError, match=match):
        save_subnet(NOT_NETWORKS[match](net), tmp_path / "subnet.pt")


class Odd:
    """Has no truth, no length, no order."""

    def __bool__(self):
        raise TypeError("no truth")

    def __repr__(self):
        return "Odd()"


ODD = [
    None, 0, -1, 3.5, float("nan"), True, "x", b"x", [], [1], {}, {"a": 1}, (), np.zeros(3), torch.zeros(2), Odd(),
    np.zeros((2, 16, 16, 1)), [[1], [2, 3]], torch.zeros(2, 16, 16, 1, device="meta"), np.array(["a"]), "a\nb", 10**400,
]  # fmt: skip
ARGUMENTS = "calibration schedule board strips weights scratch quantisation class_names front_end progress".split()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_odd_argument_works_or_is_named(net, images, name):
    for value in ODD:
        arguments = {"calibration": images[:4], name: value}
        try:
            convert(net, **arguments)
        except McuformerError as error:
            assert "\n" not in str(error), (name, value)


def test_calibration_images_as_a_tensor_or_a_list(net, images):
    want = convert(net, images).content
    assert convert(net, torch.from_numpy(images)).content == want
    assert convert(net, list(images)).content == want


def test_class_names_that_are_a_word_are_no_list(net, images):
    with pytest.raises(ConfigError, match="class_names = 'abcde': must be a list of str"):
        convert(net, images, class_names="abcde")
    assert convert(net, images, class_names=iter("abcde")).class_names == tuple("abcde")


def test_every_config_is_what_it_says():
    """The check itself takes all that configs describe."""
    post = dataclasses.replace(TINY, norm="post", activation="relu", pool="token", prefix_tokens=2)
    ranks = dataclasses.replace(PRE, attention_rank_ratio=0.25, relative_position="tables", prefix_tokens=1)
    for config in (CONV, PRE, HEADLESS, post, ranks, dataclasses.replace(ranks, relative_position="bias")):
        convert(lively_subnet(config, 1), structured_images(config, 4))
