# SPDX-License-Identifier: Apache-2.0
"""The kinds of export, and `export`, which `mcuformer export` calls.

    result = export("model.tflite", "tflm", "folder", board="nano33ble")
    result.values["arena_bytes"]
    export(["a.tflite", "b.tflite"], "c", "folder", name=["alpha", "beta"])

A kind is a Target: a name, the options it takes and a function. The command line makes its options from the list.
docs/add_a_target.md says how to add one.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mcuformer.boards import BOARDS, Board, get_board
from mcuformer.converter.export.folder import check_folder
from mcuformer.cores import CORES, Core, get_core
from mcuformer.errors import ConfigError, ModelError
from mcuformer.files import read_bytes

if TYPE_CHECKING:  # `mcuformer export --help` reads this table, and is quick without numpy
    from mcuformer.converter.graph import Graph
    from mcuformer.interpreter import Interpreter
    from mcuformer.sound import LogMel


@dataclass(frozen=True)
class Option:
    """An option of an export: a keyword of its function, and an option of the command line.

    name     the keyword
    help     one sentence, its first letter small: the command line puts the kinds that take it in front
    default  its type is what the command line reads: text, a number, False for a switch
    flag     on the command line; default: -- and the name
    owner    what it belongs to, for the error if another kind is given it
    parse    turns the given value into the option's; ConfigError if it is wrong
    repeated  it may be given several times: the command line reads a list of text
    """

    name: str
    help: str
    default: Any = None
    flag: str = ""
    owner: str = ""
    parse: Callable[[Any], Any] | None = None
    repeated: bool = False

    def __post_init__(self) -> None:
        if not self.flag:
            object.__setattr__(self, "flag", f"--{self.name.replace('_', '-')}")


def _board(value: str | Board) -> Board:
    return value if isinstance(value, Board) else get_board(value)


def _core(value: str | Core) -> Core:
    return value if isinstance(value, Core) else get_core(value)


NAME = Option(
    "name", "what a model's files, functions and macros begin with, once for each model; default: model, or of several "
    "the names of their files.", repeated=True,
)  # fmt: skip
IMAGE = Option("image", "where the image lies: arena (least RAM in all) or caller (smallest arena).", "arena")
BOARD = Option("board", "refuse what does not fit (arduino: nano33ble).", parse=_board)
EXTERNAL = Option(
    "external_flash", "the model goes into the board's flash beside the chip, mapped to memory: its size is the limit.",
    False,
)  # fmt: skip
CORE = Option(
    "core", "the processor core to pack weights for, such as m7; default: the board's.", parse=_core
)  # fmt: skip
DATA = Option(
    "data", "where the sketches' test images come from (see `mcuformer run --data`).", "fashion-mnist",
    owner="where the images of sketches come from",
)  # fmt: skip
GALLERY = Option(
    "gallery", "an .npz of `mcuformer run --save-embeddings`: stored embeddings for a network without a head.",
    owner="stored embeddings are an Arduino library's",
)  # fmt: skip
ZIP = Option(
    "make_zip", "also write OUT.zip, which the Arduino IDE installs.", False, flag="--zip",
    owner="an Arduino library's",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A model that is exported. content: the .tflite file; graph: the graph in it, with its staged weights if it has
    any; front_end: what makes the network's images out of sound, None if it takes images; name: what its files,
    functions and macros begin with; core: that it will run on, None: any."""

    content: bytes
    graph: Graph
    class_names: tuple[str, ...]
    front_end: LogMel | None = None
    name: str = "model"
    core: Core | None = None


@dataclass(frozen=True)
class Result:
    """folder: where the export is; lines: for the command line to print; values: for its JSON."""

    folder: Path
    lines: tuple[str, ...]
    values: dict[str, Any]


class ExportFunction(Protocol):
    """Writes models, no two of one name, to `folder`. options: a value for each option of its Target but `name`.

    McuformerError if the folder is not empty, without force, or a model cannot be exported this way.
    """

    def __call__(self, sources: Sequence[Source], folder: Path, force: bool, **options: Any) -> Result: ...


@dataclass(frozen=True)
class Target:
    """A kind of export. help: a few words; refused: option -> why this kind cannot take it, for the error; core: the
    key of the core that weights are packed for where the options say none; None: that of the board the model was
    converted for."""

    name: str
    help: str
    options: tuple[Option, ...]
    export: ExportFunction
    refused: Mapping[str, str] = field(default_factory=dict)
    core: str | None = None

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A value for each of its options: given or default. ConfigError for an option it does not take."""
        known, taken = all_options(), {option.name: option for option in self.options}
        for name, value in given.items():
            if name in taken:
                continue
            if name not in known:
                raise ConfigError(f"option {name!r} of an export is unknown; choose from {', '.join(known)}")
            option = known[name]
            why = self.refused.get(name) or option.owner or f"for --to {takers(name, 'or')}"
            shown = option.flag if option.default is False else f"{option.flag} {value}"
            raise ConfigError(f"{shown}: {why}; leave it out with --to {self.name}")
        values = {name: given.get(name, option.default) for name, option in taken.items()}
        for name, option in taken.items():
            if option.parse is not None and values[name] is not None:
                values[name] = option.parse(values[name])
        return values


def _function(module: str) -> ExportFunction:
    """`to_folder` of a module of this package, imported when called."""

    def call(sources: Sequence[Source], folder: Path, force: bool, **options: Any) -> Result:
        found = importlib.import_module(f"mcuformer.converter.export.{module}")
        return found.to_folder(sources, folder, force, **options)

    return call


# What the kinds that are built from C take, and why some of them do not take --external-flash.
OF_C = (NAME, IMAGE, BOARD, CORE)
IN_FLASH = {"external_flash": "this kind's projects read the program's own flash, which counts all of it"}

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("c", "plain C99 without an interpreter", (NAME, IMAGE, BOARD, EXTERNAL, CORE), _function("c_folder")),
        Target("tflm", "for TensorFlow Lite Micro", (NAME, BOARD, EXTERNAL, CORE), _function("tflm")),
        Target(
            "arduino", "an Arduino library", (NAME, replace(BOARD, default="nano33ble"), DATA, GALLERY, ZIP),
            _function("arduino"), refused={"external_flash": "Arduino's linker scripts place nothing there"},
        ),
        Target(
            "esp-idf", "a component for ESP-IDF", OF_C, _function("esp_idf"), refused=IN_FLASH, core="m0plus"
        ),
        Target("zephyr", "a module for Zephyr", OF_C, _function("zephyr"), refused=IN_FLASH),
        Target("platformio", "a PlatformIO library", OF_C, _function("platformio"), refused=IN_FLASH),
        Target("pico", "for the Raspberry Pi Pico SDK", OF_C, _function("pico"), refused=IN_FLASH, core="m0plus"),
        Target("stm32cube", "for STM32CubeMX projects", (*OF_C, EXTERNAL), _function("stm32cube")),
        Target("cmsis-pack", "a CMSIS-Pack", (*OF_C, EXTERNAL), _function("cmsis_pack")),
    )
}  # fmt: skip


def get_target(name: str) -> Target:
    """The target called `name`; if there is none, ConfigError names them all."""
    if name not in TARGETS:
        raise ConfigError(f"--to {name}: must be one of {', '.join(TARGETS)}")
    return TARGETS[name]


def all_options() -> dict[str, Option]:
    """The options of all kinds by name, each as the first kind that takes it declares it."""
    options: dict[str, Option] = {}
    for target in TARGETS.values():
        for option in target.options:
            options.setdefault(option.name, option)
    return options


def takers(name: str, word: str = "and") -> str:
    """The targets that take an option, in words: "c, tflm and arduino"."""
    names = [target.name for target in TARGETS.values() if any(option.name == name for option in target.options)]
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def export(
    models: str | os.PathLike | Sequence[str | os.PathLike],
    to: str,
    folder: str | os.PathLike,
    *,
    force: bool = False,
    weights: str | os.PathLike | None = None,
    **options: Any,
) -> Result:
    """Exports a .tflite file, or several into one folder. to: the name of a target; options: of that target.

    weights: the file of staged weights of one model; default: the one beside it. McuformerError for a model that cannot
    be read or exported this way, an option that the target does not take, names that do not go together, or a folder
    that is not empty, without force.
    """
    from mcuformer.converter.export.folder import check_names, listed_files

    paths = [Path(model) for model in ([models] if isinstance(models, str | os.PathLike) else models)]
    target, folder = get_target(to), Path(folder)
    if not paths:
        raise ConfigError("no model: give at least one .tflite")
    if len(paths) > 1 and weights is not None:
        raise ConfigError(f"--weights {weights}: of which of {len(paths)} models? Put each one's file beside it")
    values = target.values(options)
    names = _names(paths, values.pop("name", None))
    check_names(names)
    check_folder(folder, force)
    sources, cores, core = [], {}, values.pop("core", None)
    usual = None if target.core is None else CORES[target.core]
    for path, name in zip(paths, names, strict=True):
        source, cores[path.name] = _source(path, name, weights, core, values.get("board"), usual)
        sources.append(source)
    core = _common(cores)
    earlier = listed_files(folder)
    result = target.export(sources, folder, force, **values)
    lines = (*result.lines[:-1], _packing_line(core), *_removed(folder, earlier), *result.lines[-1:])
    return replace(result, lines=lines, values={**result.values, "packing": core.packing})


def _source(
    path: Path, name: str, weights: str | os.PathLike | None, core: Core | None, board: Board | None, usual: Core | None
) -> tuple[Source, Core]:
    """A model as it is exported, and the core that its weights are packed for. usual: the kind's, which then may run on
    any core; without one and a core_of(), a Cortex-M4, the most common."""
    from mcuformer.converter.repack import repacked
    from mcuformer.interpreter import Interpreter

    try:
        content = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    interpreter = Interpreter(path, weights=weights)  # the kernels check here what an export trusts
    if core is not None or board is not None or usual is None:
        core = core_of(core, board, interpreter.info.get("board"), interpreter.info.get("core"))
    packed_for = core or usual or CORES["m4"]
    content, graph = repacked(content, interpreter.graph, packed_for)
    return Source(content, graph, tuple(interpreter.class_names), _front_end_of(interpreter), name, core), packed_for


def _common(cores: Mapping[str, Core]) -> Core:
    """The core that all models, by their files, are for. ConfigError if they are for different ones."""
    core, *others = cores.values()
    if any(other.packing != core.packing for other in others):
        found = ", ".join(f"{name} for {one.label}" for name, one in cores.items())
        raise ConfigError(f"models of different boards ({found}): give --core or --board for all of them")
    return core


def _names(paths: Sequence[Path], given: str | Sequence[str] | None) -> list[str]:
    """A name for each model. ConfigError if some are given, but not one for each."""
    if given is not None and given != []:
        names = [given] if isinstance(given, str) else list(given)
        if len(names) != len(paths):
            raise ConfigError(f"--name {' '.join(names)}: {len(names)} for {len(paths)} models; give each its own")
        return names
    return ["model"] if len(paths) == 1 else [re.sub(r"\W", "_", path.stem) for path in paths]


def _front_end_of(interpreter: Interpreter) -> LogMel | None:
    """The front end that the model carries."""
    from mcuformer.sound import LogMel

    values = interpreter.info.get("front_end")
    return None if values is None else LogMel.from_dict(values)


def core_of(core: Core | None, board: Board | None, converted_for: str | None, on: str | None = None) -> Core | None:
    """The core that an export is for: the given one, else the board's, else that of the board the model was converted
    for, else None: any. on: the key of that board's core, if it was a user's own."""
    if core is not None:
        return core
    if board is None and on in CORES:
        return CORES[on]
    if board is None and converted_for in BOARDS:
        board = get_board(converted_for)
    return None if board is None else board.core


def _removed(folder: Path, earlier: Mapping[str, str]) -> Sequence[str]:
    """What is said of files that an earlier export wrote and this one does not."""
    from mcuformer.converter.export.folder import listed_files

    others = sorted(earlier.keys() - listed_files(folder).keys())
    left = [name for name in others if (folder / name).exists()]
    found = []
    if len(left) < len(others):
        found.append(f"removed {len(others) - len(left)} files of the earlier export in {folder}")
    if left:
        found.append(f"of the earlier export, but changed since, stay: {', '.join(left)}")
    return found


def _packing_line(core: Core) -> str:
    alike = [other.label for other in CORES.values() if other.packing == core.packing and other.isa == core.isa]
    return f"weights packed for {', '.join(alike)}; any core computes the same from them"
