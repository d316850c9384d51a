# SPDX-License-Identifier: Apache-2.0
"""convert(): a float network and calibration images -> Model, the int8 network with its memory plan."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mcuformer.boards import Board, get_board, is_board_file
from mcuformer.checks import flag, one_of, shown, whole
from mcuformer.converter import tflite_file
from mcuformer.converter.calibrate import calibrate, check_images
from mcuformer.converter.checked_network import checked
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import Graph
from mcuformer.converter.lower import QuantisationOptions, lower
from mcuformer.converter.memory.arena import ArenaPlan, plan_arena
from mcuformer.converter.memory.board_arena import board_arena_bytes
from mcuformer.converter.passes.packing import packed, packing_of
from mcuformer.converter.passes.scratch import fill_arena, fit_heads, fit_scratch
from mcuformer.converter.passes.staging import is_staged, staged, weights_content, weights_info, weights_path
from mcuformer.converter.passes.stem import streamed_stem_of
from mcuformer.converter.passes.streamed import streamed
from mcuformer.converter.passes.strips import in_strips
from mcuformer.converter.quickest import ScheduleCost, quickest
from mcuformer.converter.skeleton import SCHEDULES, Schedule
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, PlanError
from mcuformer.files import write_bytes
from mcuformer.sound import LogMel

AUTO = "auto"


@dataclass(frozen=True)
class Model:
    """An int8 network: graph, memory plan, and what is known about it. Made by convert().

    board: the name of the one it was made for; class_names: empty for a network without a head, whose output is an
    embedding; costs: of every schedule, if the quickest that fits was to be taken and the instructions of the board's
    core are known, else empty; core: the key of the board's, if the board is a user's YAML file, else None.
    """

    graph: Graph
    plan: ArenaPlan
    config: SubnetConfig
    schedule: str
    board: str | None
    class_names: tuple[str, ...]
    front_end: LogMel | None = None
    costs: tuple[ScheduleCost, ...] = ()
    core: str | None = None

    @cached_property
    def content(self) -> bytes:
        """The bytes of the .tflite file: written, read back and compared."""
        content = tflite_file.write(self.graph, self.offsets, self.info)
        stored = tflite_file.read(content)
        if difference := tflite_file.same(self.graph, stored.graph):
            raise AssertionError(f"the written model does not read back the same: {difference}")
        if list(stored.offsets) != self.offsets:
            raise AssertionError("the written memory plan does not read back the same")
        return content

    @property
    def offsets(self) -> list[int]:
        """Offset of each graph tensor in the arena, -1 for constants."""
        return self.plan.tensor_offsets(self.graph)

    @property
    def info(self) -> dict:
        return {
            "config": self.config.to_dict(),
            "schedule": self.schedule,
            "board": self.board,
            **({} if self.core is None else {"core": self.core}),
            "class_names": list(self.class_names),
            "weights": weights_info(self.weights_content) if is_staged(self.graph) else None,
            **({} if self.front_end is None else {"front_end": self.front_end.to_dict()}),
            **self.plan.sizes,
        }

    @cached_property
    def weights_content(self) -> bytes:
        """The bytes of the weights file; none if weights are in the model."""
        return weights_content(self.graph)

    @property
    def model_bytes(self) -> int:
        """Size of the .tflite file."""
        return len(self.content)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the .tflite file, after any staged weights (to weights_path(path)); each whole or not at all."""
        if is_staged(self.graph):
            write_bytes(weights_path(path), self.weights_content)
        write_bytes(path, self.content)

    def reference(self, images: np.ndarray) -> np.ndarray:
        """The integer reference's logits. images uint8 [n, H, W, C] -> float32 [n, classes]; exact, numpy integers."""
        return self.graph.reference(check_images(images, self.config))

    def arena_bytes(self, board: str | Board) -> int:
        """Bytes of arena that are always enough on a 32-bit board.

        Usually less than plan.arena_bytes, which the 64-bit interpreter takes; the same for every board in the table.
        """
        if not isinstance(board, Board):
            get_board(board)  # ConfigError if there is none of that name
        return board_arena_bytes(self.graph, self.plan)


def convert(
    net: FloatViT,
    calibration: np.ndarray,
    *,
    schedule: str | None = None,
    board: str | None = None,
    sram: int | None = None,
    strips: bool = False,
    weights: str = "xip",
    scratch: int | None = None,
    external_flash: bool = False,
    quantisation: QuantisationOptions | None = None,
    class_names: Sequence[str] | None = None,
    front_end: LogMel | dict | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Converts a float network to int8. It may be of any float type, on any device, and wrapped by DataParallel or
    torch.compile; it stays as it is. ModelError if it is not the network that its config describes.

    calibration   uint8 NHWC images, a few dozen to a few hundred, like those the network will see
    schedule      "overwrite": op by op, tokens overwriting themselves; "streamed": every half-layer in place on the
                  residual stream, a few tokens at a time: the same logits from a smaller arena; "auto": of the two,
                  the one of fewer instructions whose arena fits the board, reading of staged weights not counted.
                  Default: "auto" with a board and without staged weights, else "streamed"
    board         a board's name: PlanError if arena or model exceed its budget; its core decides how weights are
                  packed. None: no limit, plain rows
    sram          the most bytes of arena on the board; default: all that its firmware leaves. ConfigError without a
                  board
    strips        the image comes a few rows at a time through a callback and is never whole in the arena
    weights       "xip": read in place from flash; "staged": in a file of their own (see Model.save), read tile by
                  tile through a callback: for flash that is not memory-mapped
    scratch       the most bytes of scratch that one op may take; PlanError if that is too little. Default: what is
                  fastest; with staged weights, what reads least in the board's arena or, without a board, in the
                  smallest arena
    external_flash  the model goes into the board's flash beside the chip, mapped to memory and read in place: that
                  flash is the limit. ConfigError without such a board, and with staged weights
    quantisation  how to quantise; the default measured best
    front_end     what makes the network's images out of sound, or its to_dict(): exports bring it along
    progress      called with (images done, images in all) while calibrating
    """
    quantisation = QuantisationOptions() if quantisation is None else quantisation
    if not isinstance(quantisation, QuantisationOptions):
        raise ConfigError(f"quantisation = {shown(quantisation)}: must be QuantisationOptions(...)")
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress = {shown(progress)}: must be a function of (images done, images in all)")
    strips = flag("strips", strips)
    if scratch is not None:
        whole("scratch", scratch, 0, unit="bytes")
    limits = None if board is None else get_board(board)
    schedules = _schedules(schedule, limits, strips, weights, quantisation)
    if sram is not None:
        limits = _with_sram(limits, sram)
    net = checked(net)
    quantisation.check_takes(net.config)
    if external_flash:
        limits = _with_external_flash(limits, weights)
    config, names = net.config, _checked_names(class_names, net.config)
    front_end = _checked_front_end(front_end, config)
    samples = calibrate(net, calibration, progress=progress)
    lowered = packed(lower(net, samples, quantisation), packing_of(limits))
    graphs = _all_arranged(lowered, schedules, strips, weights == "staged", scratch, limits)
    made_for = None if limits is None else limits.name
    core = limits.core.key if limits is not None and is_board_file(board) else None
    models = [
        Model(graph, plan_arena(graph), config, name, made_for, names, front_end, core=core)
        for name, graph in graphs.items()
    ]
    model = models[0] if limits is None or len(models) == 1 else quickest(models, limits)
    if limits is not None:
        check_fits(model, limits, limited=sram is not None)
    return model


def _schedules(
    schedule: str | None, board: Board | None, strips: bool, weights: str, quantisation: QuantisationOptions
) -> tuple[str, ...]:
    """The schedules to choose from. ConfigError if there is none such, or there is no board to choose for."""
    fuse_gelu = quantisation.fuse_gelu
    if schedule is None:
        schedule = "streamed" if board is None or weights == "staged" else AUTO
    schedule = one_of("schedule", schedule, (*SCHEDULES, AUTO))
    if quantisation.wide and schedule == "overwrite":
        raise ConfigError('residual = "int16" with schedule = "overwrite": must be "streamed"')
    if quantisation.wide and board is not None:
        schedule = "streamed"
    if schedule != AUTO:
        Schedule(schedule, strips, weights, fuse_gelu=fuse_gelu)
        return (schedule,)
    if board is None:
        raise ConfigError('schedule = "auto": the quickest that fits which board? Give board too')
    Schedule("overwrite", strips, weights, fuse_gelu=fuse_gelu)
    return ("streamed", "overwrite") if fuse_gelu else ("overwrite",)  # the first if nothing can be compared


def _with_sram(board: Board | None, sram: int) -> Board:
    """The board with `sram` bytes for the arena. ConfigError without a board, or if it has less."""
    if board is None:
        raise ConfigError(f"sram = {shown(sram)}: the arena of which board? Give board too")
    whole("sram", sram, 1, board.sram_bytes, unit="bytes")
    return dataclasses.replace(board, reserved_sram_bytes=board.sram_bytes - sram)


def _arranged(
    graph: Graph, schedule: str, strips: bool, staging: bool, scratch: int | None, limits: Board | None
) -> Graph:
    """The ops of a lowered graph as convert()'s arguments of the same names want them."""
    graph = streamed_stem_of(graph)
    if schedule == "streamed":
        graph = streamed(graph)
    if strips:
        graph = in_strips(graph)
    if staging:
        graph = staged(graph)
    if scratch is not None:
        return fit_scratch(graph, scratch)
    if not staging:
        return fit_heads(graph)
    least = board_arena_bytes(graph, plan_arena(graph))
    return fill_arena(graph, 0 if limits is None else max(0, limits.sram_budget - least))


def _all_arranged(
    graph: Graph, schedules: Sequence[str], strips: bool, staging: bool, scratch: int | None, limits: Board | None
) -> dict[str, Graph]:
    """_arranged() for each schedule that `scratch` allows. The last PlanError if it allows none."""
    found, refused = {}, None
    for schedule in schedules:
        try:
            found[schedule] = _arranged(graph, schedule, strips, staging, scratch, limits)
        except PlanError as error:
            refused = error
    if not found and refused is not None:
        raise refused
    return found


def _with_external_flash(board: Board | None, weights: str) -> Board:
    """ConfigError if there is no such board, or weights are not read in place."""
    if weights != "xip":
        raise ConfigError(f"external_flash: weights={weights!r} are not read in place; use one of the two")
    if board is None:
        raise ConfigError("external_flash: of which board? Give board too")
    return board.with_external_flash()


def _checked_names(class_names: Sequence[str] | None, config: SubnetConfig) -> tuple[str, ...]:
    """One per class; numbers if there are no names. ConfigError if there are too many or too few, or no names."""
    if class_names is not None:
        if isinstance(class_names, str | bytes | Mapping) or not isinstance(class_names, Iterable):
            raise ConfigError(f"class_names = {shown(class_names)}: must be a list of str, one for each class")
        class_names = tuple(class_names)
        if odd := [name for name in class_names if not isinstance(name, str)]:
            raise ConfigError(f"class_names has {shown(odd[0])}, a {type(odd[0]).__name__}: must be a list of str")
    names = tuple(str(i) for i in range(config.num_classes)) if class_names is None else class_names
    if names and config.num_classes == 0:
        raise ConfigError(f"class_names has {len(names)} names for a network without a head: leave class_names out")
    if len(names) != config.num_classes:
        raise ConfigError(f"class_names has {len(names)} names for num_classes = {config.num_classes}")
    return names


def _checked_front_end(front_end: LogMel | dict | None, config: SubnetConfig) -> LogMel | None:
    """ConfigError if it makes images of another size than the network takes."""
    if front_end is not None and not isinstance(front_end, LogMel):
        front_end = LogMel.from_dict(front_end)
    if front_end is not None and front_end.image_shape != config.image_shape:
        raise ConfigError(
            f"front_end makes images of {front_end.image_shape}, the network takes {config.image_shape}: give the "
            "front end that it was trained with"
        )
    return front_end


def check_fits(model: Model, board: Board, limited: bool = False) -> None:
    """Raises PlanError if the arena or the model file exceeds the board's budget. limited: its SRAM is less than that
    of the board of its name."""
    if (arena := model.arena_bytes(board)) > board.sram_budget:
        whose = "the limit" if limited else f"{board.name}'s budget"
        more = "a larger limit (--sram; a searched network brings the search's)" if limited else "a larger board"
        schedule = 'schedule="streamed", ' if model.schedule == "overwrite" else ""
        raise PlanError(
            f"the arena of {arena:,} bytes exceeds {whose} of {board.sram_budget:,} bytes: use {schedule}strips, fewer "
            f"tokens, a smaller embed_dim or mlp_ratio, or {more}"
        )
    if board.flash_budget is not None and model.model_bytes > board.flash_budget:
        raise PlanError(
            f"the model of {model.model_bytes:,} bytes exceeds {board.name}'s budget of {board.flash_budget:,} bytes "
            f"of flash: {board.flash_fix}use a smaller embed_dim, depth or rank_ratio, or a larger board"
        )
