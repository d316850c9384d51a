# SPDX-License-Identifier: Apache-2.0
"""A teacher: a trained network, of any kind, whose answers another one learns from beside the labels (Hinton, Vinyals
and Dean, "Distilling the Knowledge in a Neural Network", 2015).

    train(net, images, options, teacher=load_teacher("teacher.pt2"))
    train(net, images, options, teacher=lambda x: resnet(x))            # any function of the images
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mcuformer import torch_file
from mcuformer.checks import as_path, shown
from mcuformer.errors import ConfigError, ModelError
from mcuformer.nas import subnet, supernet

KINDS = "a program that torch.export.save wrote (.pt2), a subnet.pt or a supernet.pt"
BATCH_OF_ANY_SIZE = 'export it with dynamic_shapes=({0: torch.export.Dim("n")},)'


class Teacher:
    """teacher(images): float NCHW in [-1, 1] -> float logits [n, classes], without gradients.

    net: any function of such images. takes: (channels, height, width) of the images it was made for; None: any. Images
    of other sizes are resized (bilinear), grey ones become red, green and blue. source: its name in errors.
    """

    def __init__(
        self, net: Callable[[torch.Tensor], torch.Tensor], takes: tuple[int, int, int] | None = None,
        source: str = "the teacher",
    ):  # fmt: skip
        if not callable(net):
            raise ConfigError(f"teacher = {shown(net)}: must be a function of images, or what load_teacher() returns")
        self.net, self.takes, self.source = net, takes, source

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.takes is not None:
            channels, *size = self.takes
            if list(images.shape[2:]) != size:
                images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
            if images.shape[1] == 1 and channels == 3:
                images = images.expand(-1, 3, -1, -1)
        return self.net(images).float()

    def prepare(self, images: torch.Tensor, classes: int) -> None:
        """Moves it to the images' device, in eval mode; ConfigError if it does not answer them with that many logits.

        images: some of those to be trained on, float NCHW.
        """
        if isinstance(self.net, nn.Module):
            self.net.to(images.device)
        try:
            answers = self(images)
        except Exception as error:  # whatever a foreign network raises
            reason = str(error).strip().splitlines() or [""]
            raise ConfigError(
                f"{self.source}: fails on {_size(images)} ({type(error).__name__}: {reason[0]}); it must take float "
                f"NCHW images in [-1, 1], any number of them: {BATCH_OF_ANY_SIZE}"
            ) from error
        if answers.shape != (len(images), classes):
            raise ConfigError(
                f"{self.source}: answers {_size(images)} with {list(answers.shape)}; it must give logits "
                f"[{len(images)}, {classes}], one for each class of the data"
            )

    def answers_crc32(self, images: torch.Tensor) -> int:
        """Tells one teacher from another: of the classes it gives to these images."""
        return zlib.crc32(self(images).argmax(dim=1).cpu().numpy().tobytes())


def as_teacher(teacher: Teacher | Callable[[torch.Tensor], torch.Tensor] | None) -> Teacher | None:
    """A Teacher of any function of images; a module is put in eval mode."""
    if teacher is None or isinstance(teacher, Teacher):
        return teacher
    return Teacher(teacher.eval() if isinstance(teacher, nn.Module) else teacher)


def load_teacher(path: str | os.PathLike) -> Teacher:
    """A teacher from a file: a program of torch.export, a subnet.pt, or a supernet.pt, whose largest subnet it is.

    ModelError if it is none of these. Loading a program may run code that it holds: open none that you do not trust.
    """
    path = as_path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a teacher is {KINDS}")
    if not torch_file.is_archive(path):
        raise ModelError(f"{path}: no archive of torch; a teacher is {KINDS}")
    if path.suffix == ".pt2":
        return _exported(path)
    kind = _format(path)
    if kind == subnet.FORMAT:
        net = subnet.load_subnet(path)
    elif kind == supernet.FORMAT:
        whole = supernet.load_supernet(path)
        net = whole.extract(whole.space.largest())
    else:
        raise ModelError(f"{path}: not a teacher, which is {KINDS}; `mcuformer import` makes subnet.pt of others")
    rows, columns, channels = net.config.image_shape
    return Teacher(net, (channels, rows, columns), str(path))


def _format(path: os.PathLike) -> object:
    """What a file of MCUFormer says that it is; None for all others. Whether it is whole is for its reader to say."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds
        return None
    return content.get("format") if isinstance(content, dict) else None


def _exported(path: os.PathLike) -> Teacher:
    """A program of torch.export."""
    try:
        program = torch.export.load(path)
        (name,) = program.graph_signature.user_inputs
        shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == name)
        net = program.module()
    except Exception as error:  # torch raises many kinds for damaged files and for other programs
        raise ModelError(
            f"{path}: not a program of torch.export with images as its only input ({type(error).__name__}); save one "
            "with torch.export.save"
        ) from error
    sizes = tuple(shape[1:])
    fixed = len(sizes) == 3 and all(isinstance(size, int) for size in sizes)
    return Teacher(net, sizes if fixed else None, str(path))


def _size(images: torch.Tensor) -> str:
    n, channels, height, width = images.shape
    return f"{n} images of {height}x{width}x{channels}"
