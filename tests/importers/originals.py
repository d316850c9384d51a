# SPDX-License-Identifier: Apache-2.0
"""Small networks of other libraries, with random weights: what the importers must reproduce.

make_fixtures.py keeps their weights and outputs as files; test_live.py builds them again where the library imports.
The library is imported by the function that builds its network, and nowhere else.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"mean": [0.5], "std": [0.5]}
CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


@dataclass(frozen=True)
class Original:
    """A network of another library.

    build     makes the module, with the library's own weights
    run       (module, float NCHW as the module wants it) -> output [N, outputs]
    pixels    mean and std of the module's input, from pixels in [0, 1]
    settings  what the module knows and its state dict does not
    live      what even the module does not know
    resize    (module, (height, width)) -> how to run it on images of that size; None: it cannot
    resized_settings  what else it changes
    libraries whose versions the fixture names
    """

    family: str
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    image_shape: tuple[int, int, int]
    pixels: dict[str, list[float]]
    settings: dict[str, Any]
    libraries: tuple[str, ...]
    live: dict[str, Any] = field(default_factory=dict)
    resize: Callable[[nn.Module, tuple[int, int]], Callable[[torch.Tensor], torch.Tensor]] | None = None
    resized: tuple[int, int] | None = None
    resized_settings: dict[str, Any] = field(default_factory=dict)


def call(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return module(images)


def logits(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return module(images).logits


# timm


def timm_vit(distilled: bool = False, **options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from timm.models import deit, vision_transformer

        kind = deit.VisionTransformerDistilled if distilled else vision_transformer.VisionTransformer
        given = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
        return kind(**{**given, **options})

    return build


def timm_beit(**options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from timm.models import beit

        given = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
        return beit.Beit(**{**given, "use_abs_pos_emb": False, "init_values": 0.1, **options})

    return build


def timm_resize(module: nn.Module, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
    module.set_input_size(img_size=size)
    return module


def timm_flexi(patch_size: tuple[int, int]) -> Callable:
    """As timm_resize(), with patches of another size."""

    def resize(module: nn.Module, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
        module.set_input_size(img_size=size, patch_size=patch_size)
        return module

    return resize


def timm_original(
    settings: dict, pixels: dict = IMAGENET, shape=(16, 16, 3), resized=None, build=timm_vit, **options
) -> Original:
    known = {"num_heads": 2, "activation": "gelu", "norm_epsilon": 1e-6, **settings}
    return Original(
        "timm", build(**options), call, shape, pixels, known, ("timm", "torch"), resize=timm_resize,
        resized=resized,
    )  # fmt: skip


def quick_gelu(**options) -> dict:
    """Options of timm's networks with CLIP's weights."""

    class QuickGELU(nn.Module):  # as timm's, which is named when it is built
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    return {"act_layer": QuickGELU, "norm_layer": _layer_norm(1e-5), **options}


def _layer_norm(epsilon: float) -> Callable[..., nn.Module]:
    def make(features: int, **options) -> nn.Module:
        return nn.LayerNorm(features, eps=epsilon, **options)

    return make


# transformers


def hf_model(kind: str, config_kind: str, **options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        given = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
        config = getattr(transformers, config_kind)(**{**given, **options})
        return getattr(transformers, kind)(config)

    return build


def hf_resize_asked(module: nn.Module, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: module(images, interpolate_pos_encoding=True).logits


def hf_resize(module: nn.Module, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: module(images).logits


def hf_original(kind, config_kind, settings, run=logits, resize=None, resized=None, **options) -> Original:
    known = {"num_heads": 2, "activation": "gelu", **settings}
    return Original(
        "hf", hf_model(kind, config_kind, **options), run, (16, 16, 3), IMAGENET, known, ("transformers", "torch"),
        live=dict(IMAGENET), resize=resize, resized=resized,
    )  # fmt: skip


# torchvision


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10
    )


# vit-pytorch: before 0.40 its patches had no LayerNorm


def vit_pytorch_vit(**options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from vit_pytorch.vit import ViT

        given = {"image_size": 16, "patch_size": 4, "num_classes": 10, "dim": 32, "depth": 2, "heads": 2}
        return ViT(**{**given, "dim_head": 12, "mlp_dim": 48, **options})

    return build


def simple_vit() -> nn.Module:
    from vit_pytorch.simple_vit import SimpleViT

    return SimpleViT(
        image_size=(16, 24), patch_size=(4, 8), num_classes=10, dim=32, depth=2, heads=2, dim_head=12, mlp_dim=48
    )


# Keyword transformers (Berg et al., 2021) are in no package: by hand, with names of vit-pytorch, as ports have them.


class KeywordTransformer(nn.Module):
    """Spectrogram -> patches of one time step -> class token, layers with LayerNorm after each sum."""

    def __init__(self, image_size: tuple[int, int], patch_size: tuple[int, int], dim: int, heads: int, depth: int):
        super().__init__()
        inner = patch_size[0] * patch_size[1]
        self.patch_size, self.heads = patch_size, heads
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(inner, dim))
        patches = image_size[0] // patch_size[0] * (image_size[1] // patch_size[1])
        self.pos_embedding = nn.Parameter(torch.zeros(1, patches + 1, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([self._half(dim, self._attention(dim)), self._half(dim, self._mlp(dim))])
            for _ in range(depth)
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 12))

    @staticmethod
    def _half(dim: int, fn: nn.Module) -> nn.Module:
        half = nn.Module()
        half.norm, half.fn = nn.LayerNorm(dim), fn
        return half

    @staticmethod
    def _attention(dim: int) -> nn.Module:
        attention = nn.Module()
        attention.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        attention.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Identity())
        return attention

    @staticmethod
    def _mlp(dim: int) -> nn.Module:
        mlp = nn.Module()
        mlp.net = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))
        return mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = nn.functional.unfold(x, self.patch_size, stride=self.patch_size).transpose(1, 2)  # one channel
        x = self.to_patch_embedding(patches)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        for attention, mlp in self.transformer.layers:
            x = attention.norm(x + self._attend(attention.fn, x))
            x = mlp.norm(x + mlp.fn.net(x))
        return self.mlp_head(x[:, 0])

    def _attend(self, attention: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in attention.to_qkv(x).chunk(3, 2))
        scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        return attention.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def keyword_transformer(image_size: tuple[int, int], patch_size: tuple[int, int], heads: int = 2) -> Original:
    settings = {
        "num_heads": heads, "patch_size": list(patch_size), "pool": "token", "norm": "post",
        "grid_shape": [image // patch for image, patch in zip(image_size, patch_size, strict=True)],
    }  # fmt: skip
    return Original(
        "vit-pytorch", lambda: KeywordTransformer(image_size, patch_size, 24, heads, 2), call, (*image_size, 1),
        {"mean": [0.4], "std": [0.25]}, settings, ("torch",),
    )  # fmt: skip


# AutoFormer and MCUFormer are no packages: AUTOFORMER and MCUFORMER name folders with their sources. The fixtures are
# of AutoFormer/ in github.com/microsoft/Cream at 4a13c4091e78f9abd2160e7e01c02e48c1cf8fb9, and of
# github.com/liangyn22/MCUFormer at 6468aaeaf44c95276422325ad56d06e6d81b0148.

SUBNET = {"layer_num": 2, "embed_dim": [24, 24], "num_heads": [1, 2], "mlp_ratio": [2.0, 3.0]}
SMALL_SUBNET = {"layer_num": 1, "embed_dim": [16], "num_heads": [1], "mlp_ratio": [2.0]}


def supernet(library: str, rank_ratio: float | None = None, **options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        folder = os.environ.get(library.upper())
        if not folder or not Path(folder).is_dir():
            raise ModuleNotFoundError(name=f"{library} (a folder of sources, named by {library.upper()})")
        for name in [name for name in sys.modules if name == "model" or name.startswith("model.")]:
            del sys.modules[name]
        # AutoFormer imports what torch had until 1.8.
        sys.modules.setdefault("torch._six", types.SimpleNamespace(container_abcs=collections.abc))  # type: ignore
        sys.path.insert(0, folder)
        try:
            kind = importlib.import_module("model.supernet_transformer").Vision_TransformerSuper
        finally:
            sys.path.remove(folder)
        given: dict[str, Any] = {
            "img_size": 16, "patch_size": 4, "num_classes": 10, "embed_dim": 128, "depth": 3, "num_heads": 2,
            "mlp_ratio": 1.0, "qkv_bias": True, "change_qkv": True, "gp": True,
        }  # fmt: skip
        if rank_ratio is not None:
            given["rank_ratio"] = rank_ratio
        module = kind(**{**given, **options})
        return module

    return build


def sample(subnet: dict) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    def run(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        module.set_sample_config(subnet)  # its slices are of the weights as they are now
        return module(images)

    return run


def supernet_original(
    library: str, settings: dict, rank_ratio: float | None = None, shape: tuple[int, int, int] = (16, 16, 3),
    subnet: dict = SUBNET, **options,
) -> Original:  # fmt: skip
    """With relative_position the offsets of the 4 x 4 patches go further than the tables."""
    known = {
        "embed_dim": subnet["embed_dim"][0], "depth": subnet["layer_num"], "num_heads": subnet["num_heads"],
        "mlp_ratio": subnet["mlp_ratio"], **settings,
    }  # fmt: skip
    build = supernet(library, rank_ratio, **options)
    return Original("autoformer", build, sample(subnet), shape, IMAGENET, known, ("torch",), live=dict(IMAGENET))


def padded(patch_size: int, image_shape: tuple[int, int], in_chans: int = 3) -> Original:
    """MCUFormer's supernet of a patch that it pads the image for."""
    around = 2 * {28: 6, 32: 8}[patch_size]
    settings = {
        "pool": "mean", "change_qkv": True, "rank_ratio": 0.5, "image_size": list(image_shape),
        "grid_shape": [(side + around) // patch_size for side in image_shape],
    }  # fmt: skip
    original = supernet_original(
        "mcuformer", settings, rank_ratio=0.5, shape=(*image_shape, in_chans), img_size=image_shape,
        patch_size=patch_size, in_chans=in_chans, subnet=SMALL_SUBNET, embed_dim=64, depth=1,
        num_heads=1,
    )  # fmt: skip
    pixels = IMAGENET if in_chans == 3 else {"mean": [0.3], "std": [0.2]}
    live = {**pixels, "grid_shape": settings["grid_shape"]}
    return dataclasses.replace(original, pixels=pixels, live=live)


ORIGINALS: dict[str, Original] = {
    "timm-class-token": timm_original({"pool": "token"}, resized=(24, 24)),
    "timm-mean-fc-norm": timm_original({"pool": "mean"}, global_pool="avg", resized=(24, 12)),
    "timm-mean": dataclasses.replace(
        timm_original({"pool": "mean"}, HALF, global_pool="avg", fc_norm=False, class_token=False),
        resize=timm_flexi((6, 3)), resized=(24, 18), resized_settings={"patch_size": [6, 3]},
    ),
    "timm-mean-all": timm_original(
        {"pool": "mean-all", "grid_shape": [3, 4]}, shape=(24, 16, 3), img_size=(24, 16), patch_size=(8, 4),
        global_pool="avg", pool_include_prefix=True,
    ),
    "timm-layer-scale": timm_original(
        {"pool": "token", "num_heads": 3}, init_values=0.1, qkv_bias=False, embed_dim=24, num_heads=3
    ),
    "timm-registers": timm_original({"pool": "token"}, reg_tokens=4, no_embed_class=True, init_values=1.0),
    "timm-distilled": timm_original({}, distilled=True, resized=(20, 20)),
    "timm-beit": timm_original(
        {"pool": "mean"}, HALF, build=timm_beit, use_rel_pos_bias=True, resized=(24, 20)
    ),
    "timm-beit-shared": timm_original(
        {"pool": "token", "grid_shape": [3, 4]}, shape=(24, 16, 3), img_size=(24, 16), patch_size=(8, 4),
        build=timm_beit, use_shared_rel_pos_bias=True, use_rel_pos_bias=True, use_abs_pos_emb=True, init_values=None,
        global_pool="token", resized=(16, 20),
    ),
    "timm-clip": timm_original(
        {"pool": "token", "activation": "quick-gelu", "norm_epsilon": 1e-5}, CLIP, pre_norm=True, **quick_gelu()
    ),
    "timm-no-head": timm_original({"pool": "token"}, num_classes=0),
    "timm-grey": timm_original(
        {"pool": "token", "activation": "silu"}, HALF, shape=(16, 16, 1), in_chans=1, act_layer=nn.SiLU
    ),
    "hf-vit": hf_original(
        "ViTForImageClassification", "ViTConfig", {"pool": "token", "norm_epsilon": 1e-12}, intermediate_size=64,
        num_labels=10, resize=hf_resize_asked, resized=(24, 24),
    ),
    "hf-vit-no-head": hf_original(
        "ViTModel", "ViTConfig", {"pool": "token", "norm_epsilon": 1e-12}, intermediate_size=64, qkv_bias=False,
        run=lambda module, images: module(images).last_hidden_state[:, 0],
    ),
    "hf-deit-teacher": hf_original(
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", {"norm_epsilon": 1e-12}, intermediate_size=64,
        num_labels=10,
    ),
    "hf-deit": hf_original(
        "DeiTForImageClassification", "DeiTConfig", {"pool": "token", "norm_epsilon": 1e-12}, intermediate_size=64,
        num_labels=10,
    ),
    "hf-beit": hf_original(
        "BeitForImageClassification", "BeitConfig", {"pool": "mean", "norm_epsilon": 1e-12}, intermediate_size=64,
        num_labels=10, use_relative_position_bias=True, use_mask_token=True, resize=hf_resize, resized=(20, 24),
    ),
    "hf-beit-no-head": hf_original(
        "BeitModel", "BeitConfig", {"pool": "token", "norm_epsilon": 1e-12}, intermediate_size=64,
        use_shared_relative_position_bias=True, use_absolute_position_embeddings=True, use_mean_pooling=False,
        layer_scale_init_value=0.0, run=lambda module, images: module(images).pooler_output,
    ),
    "hf-beit-no-head-4": hf_original(
        "BeitModel", "BeitConfig", {"pool": "token", "norm_epsilon": 1e-12}, hidden_size=16, intermediate_size=16,
        num_hidden_layers=1, use_shared_relative_position_bias=True, use_mean_pooling=False,
        run=lambda module, images: module(images).pooler_output,
    ),
    "hf-data2vec": hf_original(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", {"pool": "mean", "norm_epsilon": 1e-12},
        intermediate_size=64, num_labels=10, use_relative_position_bias=True, use_shared_relative_position_bias=True,
    ),
    "hf-dinov2": hf_original(
        "Dinov2ForImageClassification", "Dinov2Config", {"pool": "token+mean", "norm_epsilon": 1e-6}, num_labels=10,
        mlp_ratio=2, resize=hf_resize, resized=(24, 20),
    ),
    "hf-dinov2-no-head": hf_original(
        "Dinov2Model", "Dinov2Config", {"pool": "token", "norm_epsilon": 1e-6}, mlp_ratio=2,
        run=lambda module, images: module(images).pooler_output,
    ),
    "hf-dinov2-registers": hf_original(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
        {"pool": "token+mean", "norm_epsilon": 1e-6}, num_labels=10, mlp_ratio=2, resize=hf_resize, resized=(20, 24),
    ),
    "torchvision": Original(
        "torchvision", torchvision_vit, call, (16, 16, 3), IMAGENET, {"num_heads": 2, "norm_epsilon": 1e-6},
        ("torchvision", "torch"), live=dict(IMAGENET),
    ),
    "vit-pytorch": Original(
        "vit-pytorch", vit_pytorch_vit(), call, (16, 16, 3), IMAGENET,
        {"num_heads": 2, "patch_size": 4, "pool": "token"}, ("vit-pytorch", "torch"), live=dict(IMAGENET),
    ),
    "vit-pytorch-mean": Original(
        "vit-pytorch", vit_pytorch_vit(pool="mean", heads=1, dim_head=32), call, (16, 16, 3), IMAGENET,
        {"num_heads": 1, "patch_size": 4, "pool": "mean-all"}, ("vit-pytorch", "torch"), live=dict(IMAGENET),
    ),
    "vit-pytorch-simple": Original(
        "vit-pytorch", simple_vit, call, (16, 24, 3), IMAGENET,
        {"num_heads": 2, "patch_size": [4, 8], "grid_shape": [4, 3], "pool": "mean"}, ("vit-pytorch", "torch"),
        live={**IMAGENET, "grid_shape": [4, 3]},
    ),
    "autoformer": supernet_original("autoformer", {"pool": "mean", "change_qkv": True}),
    "autoformer-post-norm": supernet_original(
        "autoformer", {"pool": "token", "change_qkv": False}, change_qkv=False, pre_norm=False, gp=False
    ),
    "autoformer-relative": supernet_original(
        "autoformer", {"pool": "mean", "change_qkv": True}, relative_position=True, max_relative_position=2
    ),
    "mcuformer-relative": supernet_original(
        "mcuformer", {"pool": "token", "change_qkv": False, "rank_ratio": 0.5}, rank_ratio=0.5, change_qkv=False,
        embed_dim=48, num_heads=1, mlp_ratio=2.0, gp=False, relative_position=True,
    ),
    "mcuformer": supernet_original(
        "mcuformer", {"pool": "mean", "change_qkv": True, "rank_ratio": 0.5}, rank_ratio=0.5
    ),
    "kwt": keyword_transformer((98, 40), (1, 40)),
    "kwt-columns": keyword_transformer((40, 98), (40, 1), heads=1),
    "mcuformer-28": padded(28, (60, 44)),
    "mcuformer-32": padded(32, (48, 80), in_chans=1),
}  # fmt: skip
"""By the fixture's name."""

for _name in ("hf-vit", "hf-dinov2-registers", "hf-beit"):  # as transformers 4 names them
    ORIGINALS[f"{_name}-4"] = ORIGINALS[_name]

GRAIN = 2.0**-9  # what all weights are multiples of, below 4: float16 holds them


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Random weights that float16 represents exactly, and that all matter; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    norms = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim < 2:
                scale = name in norms or name.endswith(
                    (".gamma", ".lambda1", "gamma_1", "gamma_2", "lambda_1", "lambda_2")
                )
                noise = (1.0 if scale else 0.0) + 0.2 * noise
            elif "pos" in name or "token" in name:
                noise = 0.4 * noise
            else:
                noise = noise * value[0].numel() ** -0.5
            value.copy_((noise / GRAIN).round().clamp(-1023, 1023) * GRAIN)
    return module.eval()


def blank_unused(module: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> None:
    """Sets to 0.5 what the output does not depend on: of a supernet, all that its subnet leaves out."""
    module.requires_grad_(True)
    run(images).square().sum().backward()
    with torch.no_grad():
        for value in module.parameters():
            value[value.grad == 0 if value.grad is not None else ...] = 0.5
    module.requires_grad_(False)


def image_of(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """One uint8 image with coarse structure and noise."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    coarse = rng.uniform(20, 235, (-(-height // 4), -(-width // 4), channels)).repeat(4, 0).repeat(4, 1)
    return np.clip(np.rint(coarse[:height, :width] + rng.normal(0, 12, shape)), 0, 255).astype(np.uint8)


def pixels_of(image: np.ndarray, pixels: dict[str, list[float]]) -> torch.Tensor:
    """The float NCHW batch of one image that the original saw."""
    values = image[None].astype(np.float64) / 255
    values = (values - np.array(pixels["mean"])) / np.array(pixels["std"])
    return torch.tensor(values.transpose(0, 3, 1, 2), dtype=torch.float32)
