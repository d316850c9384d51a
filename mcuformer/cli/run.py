# SPDX-License-Identifier: Apache-2.0
"""mcuformer run: a model on this machine, and as firmware in QEMU; compared with the reference."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.markup import escape
from rich.table import Table

from mcuformer.checks import whole
from mcuformer.cli.common import (
    CONSOLE,
    PATH,
    check_outputs,
    data_option,
    json_option,
    load_data,
    out,
    top1_of,
    write_json,
)
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cores import CORES
from mcuformer.errors import ConfigError, ModelError
from mcuformer.pictures import ENDINGS, check_pictures

if TYPE_CHECKING:
    import numpy as np

    from mcuformer.cli.firmware import Simulated
    from mcuformer.confusion import Confusion, Mistake
    from mcuformer.data import Dataset
    from mcuformer.gallery import Gallery, Neighbours
    from mcuformer.interpreter import Images, Interpreter

MACHINE_NAMES = ", ".join(f"{core.machine.name} ({core.key})" for core in CORES.values() if core.machine is not None)
SHOWN_NEIGHBOURS = 10  # images in the table
WORST = 24  # images that are named and drawn
SHOWN_WORST = 10  # of them in the table
THE_REFERENCE = "the integer reference"
REFERENCE_IMAGES = 2_000  # numpy takes many times as long as the kernels: of more images, so many
KERNELS_ALONE = "engine c"


@dataclass(frozen=True, eq=False)
class HostRun:
    """A model on this machine. engine: as Interpreter.engine; logits: float32 [n, classes], or the embeddings of a
    network without a head; top1: from 0 to 1, None without a head; invoke_ms: the median of an image; arena: bytes of
    "total", "head" and "tail"; weights_read, weights_reads: bytes and reads of staged weights per image, 0 if they are
    in the model; neighbours: without a head, of each image, if there is more than one; gallery: the file they are in,
    None: they are images of the same run; by_class: if asked for; images_per_second: of all processes, reading
    included."""

    engine: str
    logits: np.ndarray
    top1: float | None
    invoke_ms: float
    arena: dict[str, int]
    weights_read: int
    weights_reads: int
    neighbours: Neighbours | None = None
    gallery: str | None = None
    by_class: ByClass | None = None
    images_per_second: float = 0.0
    processes: int = 1


@dataclass(frozen=True, eq=False)
class ByClass:
    """Where a network with a head is right and wrong. worst: the surest wrong answers, at most WORST."""

    confusion: Confusion
    worst: tuple[Mistake, ...]

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "per_class": [vars(row) for row in self.confusion.rows()], "confusion": self.confusion.counts.tolist(),
            "class_names": list(self.confusion.class_names), "worst": [vars(mistake) for mistake in self.worst],
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class ModelRun:
    """host; simulated: as firmware, if asked for; differing: how many of the host's logits differ, by the name of what
    they were compared with; compared: of how many images, by the same names."""

    host: HostRun
    simulated: Simulated | None
    differing: dict[str, int]
    compared: dict[str, int]
    model: str = ""
    data: str = ""

    @property
    def exact(self) -> bool | None:
        """Whether every logit that was compared is equal; None if nothing was."""
        return not any(self.differing.values()) if self.differing else None

    def to_dict(self) -> dict:
        """What --json writes."""
        from mcuformer.cli import firmware

        host = self.host
        values: dict[str, Any] = {
            "weights_read_bytes": host.weights_read, "weights_reads": host.weights_reads, "top1": host.top1,
            "images": len(host.logits), "invoke_ms": host.invoke_ms, "arena_bytes": host.arena["total"],
            "head_bytes": host.arena["head"], "engine": host.engine, "model": self.model, "data": self.data,
            "images_per_second": host.images_per_second, "processes": host.processes,
        }  # fmt: skip
        if (near := host.neighbours) is not None:
            values["nearest"] = {
                "gallery": host.gallery, "same_name": near.same, "names": list(near.names),
                "nearest": list(near.nearest), "indices": near.indices.tolist(), "cosines": near.cosines.tolist(),
            }  # fmt: skip
        if host.by_class is not None:
            values |= host.by_class.to_dict()
        if self.simulated is not None:
            values |= firmware.to_dict(self.simulated)
        return values if self.exact is None else values | {"exact": self.exact, "compared": self.compared}


def run(
    model: str | os.PathLike,
    *,
    data: str = "fashion-mnist",
    split: str = "test",
    limit: int | None = None,
    weights: str | os.PathLike | None = None,
    reference: bool = False,
    engine: str | None = None,
    on: str | None = None,
    board: str | None = None,
    ram_bytes: int | None = None,
    flash_bytes: int | None = None,
    external_flash: bool = False,
    gallery: str | os.PathLike | None = None,
    save_embeddings: str | os.PathLike | None = None,
    per_class: bool = False,
    confusion: str | os.PathLike | None = None,
    worst: str | os.PathLike | None = None,
    workers: int = 1,
    on_host: Callable[[HostRun], object] | None = None,
    progress: Progress = SILENT,
) -> ModelRun:
    """Runs a .tflite on images of `data`, as mcuformer.data.load takes it.

    limit      run only so many images; default: all, or 16 in a simulator
    weights    the file of staged weights; default: the one beside the model
    reference  also compare every logit with the integer reference; of more than REFERENCE_IMAGES those of so many,
               evenly spread, and all of the interpreter's with engine c's
    engine     what runs it on this machine, as in Interpreter
    on, board  also run it as firmware, on this QEMU machine or this board's; ram_bytes, flash_bytes: its limits;
               external_flash: its constants are read in place from flash beside the chip
    gallery    without a head: an .npz of stored embeddings to find the nearest in; default: among the images
    save_embeddings  without a head: write the images' embeddings, float32, and their classes' names to this .npz
    per_class  with a head: also say which classes it is right and wrong about, and the surest wrong answers
    confusion  with a head: which classes were taken for which is drawn here: .png, .svg or .pdf
    worst      with a head: the images with the surest wrong answers are drawn here: .png, .svg or .pdf
    workers    processes at most, where images are many: see mcuformer/workers.py
    on_host    called with the host's part before the simulation begins, which takes longer
    """
    import numpy as np

    from mcuformer.cli import firmware as cli_firmware
    from mcuformer.interpreter import Interpreter
    from mcuformer.simulator import firmware

    whole("workers", workers, 1)
    check_outputs(save_embeddings, confusion, worst)
    check_pictures(confusion, worst)
    if gallery and save_embeddings and Path(gallery).resolve() == Path(save_embeddings).resolve():
        raise ConfigError(f"--save-embeddings {save_embeddings}: the gallery that is read; give another name")
    chosen = None
    if on is not None or board is not None:
        chosen = cli_firmware.choose_machine(on, board, ram_bytes, flash_bytes, external_flash)
        firmware.require_tools(chosen[0].core)
        limit = cli_firmware.IMAGES if limit is None else limit
    elif ram_bytes is not None or flash_bytes is not None or external_flash:
        what = "--external-flash is" if external_flash else "--ram-bytes and --flash-bytes are limits"
        raise ConfigError(f"{what} of firmware: give --on or --board too")
    interpreter = Interpreter(model, weights=weights, engine=engine)
    embeddings = _embeddings(interpreter, model, gallery, save_embeddings)
    per_class = per_class or confusion is not None or worst is not None
    if per_class and not interpreter.class_names:
        raise ConfigError(
            f"{model}: has no head and gives embeddings; --per-class, --confusion and --worst are for classes"
        )
    dataset = _images_for(interpreter, model, data, split, limit)
    host = _run_on_host(interpreter, dataset, embeddings, per_class, workers, progress)
    _draw(host, dataset, Path(model).name, confusion, worst)
    if on_host is not None:
        on_host(host)
    others, simulated = {}, None
    if reference:
        others = _references(interpreter, model, weights, dataset.images, workers, progress)
    if chosen is not None:
        machine, ram, flash, external = chosen
        simulated = cli_firmware.run_on(interpreter, dataset.images[:], machine, ram, flash, progress, external)
        others[simulated.machine.name] = np.arange(len(host.logits)), simulated.logits
    differing = {name: int((logits != host.logits[images]).sum()) for name, (images, logits) in others.items()}
    compared = {name: len(images) for name, (images, _) in others.items()}
    return ModelRun(host, simulated, differing, compared, str(model), str(data))


def _references(
    interpreter: Interpreter, model: str | os.PathLike, weights: str | os.PathLike | None, images: Images, workers: int,
    progress: Progress,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """What to compare with, by name: of which images, their logits."""
    import numpy as np

    from mcuformer import workers as many
    from mcuformer.interpreter import Interpreter

    count = len(images)
    sample = np.linspace(0, count - 1, min(count, REFERENCE_IMAGES)).astype(int)
    chosen = images[sample] if isinstance(images, np.ndarray) else images.take(sample)
    with progress.bar("reference") as update:
        found = {THE_REFERENCE: (sample, many.run(interpreter, chosen, workers, True, update).logits)}
    if len(sample) < count and interpreter.engine == "tflm":
        alone = Interpreter(model, weights=weights, engine="c")
        with progress.bar(KERNELS_ALONE) as update:
            found[KERNELS_ALONE] = np.arange(count), many.run(alone, images, workers, progress=update).logits
    return found


def _draw(
    host: HostRun, dataset: Dataset, model: str, confusion: str | os.PathLike | None, worst: str | os.PathLike | None
) -> None:
    import numpy as np

    from mcuformer import plots

    found = host.by_class
    if found is None or host.top1 is None:
        return
    if confusion is not None:
        title = f"{model}: {100 * host.top1:.2f} % of {len(host.logits):,} images"
        plots.plot_confusion(found.confusion, confusion, title)
    if worst is not None:
        captions = [
            f"{m.name}\ntaken for {m.taken_for},\n{100 * m.probability:.0f} %, image {m.image}" for m in found.worst
        ]
        images = dataset.images[np.array([m.image for m in found.worst], int)]
        plots.plot_worst(images, captions, worst, f"{model}: the surest wrong answers")


def _images_for(
    interpreter: Interpreter, model: str | os.PathLike, data: str, split: str, limit: int | None
) -> Dataset:
    """ConfigError if they are of other classes than the model's."""
    channels = interpreter.graph.tensors[interpreter.graph.inputs[0]].shape[-1]
    front_end = interpreter.info.get("front_end")
    dataset = load_data(data, split, interpreter.image_size, limit, front_end, channels)
    if interpreter.class_names and len(dataset.class_names) != len(interpreter.class_names):
        raise ConfigError(
            f"{data}: has {len(dataset.class_names)} classes, {model} has {len(interpreter.class_names)}: "
            "give the data it was trained on"
        )
    return dataset


class Embeddings(NamedTuple):
    """What is done with those of a network without a head: stored: where the nearest is looked for, None: among the
    images; gallery: the file of `stored`; save: the .npz to write them to."""

    stored: Gallery | None
    gallery: str | None
    save: str | os.PathLike | None


def _embeddings(interpreter: Interpreter, model: str | os.PathLike, gallery, save) -> Embeddings:
    """ConfigError for a network with a head; DataError for a gallery that is not of its length."""
    from mcuformer.gallery import read_gallery

    if interpreter.class_names and (gallery is not None or save is not None):
        raise ConfigError(f"{model}: has a head and gives classes; --gallery and --save-embeddings are for embeddings")
    if gallery is None:
        return Embeddings(None, None, save)
    length = interpreter.graph.tensors[interpreter.graph.output].shape[-1]
    return Embeddings(read_gallery(gallery, length), str(gallery), save)


def _run_on_host(
    interpreter: Interpreter, dataset: Dataset, embeddings: Embeddings, per_class: bool, workers: int,
    progress: Progress,
) -> HostRun:  # fmt: skip
    from mcuformer import workers as many
    from mcuformer.confusion import confusion_of
    from mcuformer.confusion import worst as worst_of
    from mcuformer.gallery import Gallery, neighbours

    images, has_head = dataset.images, bool(interpreter.class_names)
    with progress.bar("running") as update:
        outputs = many.run(interpreter, images, workers, progress=update)
    logits = outputs.logits
    assert outputs.invoke_ms is not None  # a data set has images
    near, by_class = None, None
    if per_class:
        classes = tuple(interpreter.class_names)
        found = tuple(worst_of(logits, dataset.labels, classes, WORST))
        by_class = ByClass(confusion_of(logits, dataset.labels, classes), found)
    if not has_head:
        names, stored = tuple(dataset.class_names[label] for label in dataset.labels), embeddings.stored
        near = neighbours(logits, names, stored) if stored is not None or len(images) > 1 else None
        if embeddings.save is not None:
            Gallery(logits, names).save(embeddings.save)
    return HostRun(
        interpreter.engine, logits, top1_of(logits, dataset.labels) if has_head else None, outputs.invoke_ms,
        interpreter.allocations, *interpreter.weights_read, near, embeddings.gallery, by_class,
        outputs.images_per_second, outputs.processes,
    )  # fmt: skip


def show_host(host: HostRun) -> None:
    from mcuformer.engines import ENGINES

    arena = host.arena
    found = "embeddings of" if host.top1 is None else f"top-1 {100 * host.top1:.2f} % on"
    out.print(
        f"{found} {len(host.logits)} images {ENGINES[host.engine]}, {host.invoke_ms:.2f} ms "
        f"per image on this machine, arena {arena['total']:,} bytes (head {arena['head']:,}, tail {arena['tail']:,})"
    )
    if host.processes > 1:
        out.print(f"{host.images_per_second:,.0f} images a second, in {host.processes} processes")
    if host.weights_reads:
        out.print(f"staged weights: {host.weights_read:,} bytes per image in {host.weights_reads:,} reads")
    if host.neighbours is not None:
        show_neighbours(host.neighbours, host.gallery)


def show_neighbours(near: Neighbours, gallery: str | None) -> None:
    table = Table("image", "its class", "nearest", "its name", "cosine")
    for i in range(min(SHOWN_NEIGHBOURS, len(near.names))):
        table.add_row(str(i), near.names[i], str(near.indices[i]), near.nearest[i], f"{near.cosines[i]:.4f}")
    out.print(table)
    where = "the other images" if gallery is None else gallery
    out.print(f"nearest of {where} by cosine: {100 * near.same:.2f} % have the image's class")


def show_classes(found: ByClass) -> None:
    """Accuracy of each class, and the surest wrong answers."""
    table = Table("class", "images", "accuracy %", "precision %", "most taken for")
    for row in found.confusion.rows():
        shares = ("" if share is None else f"{100 * share:.2f}" for share in (row.accuracy, row.precision))
        other = "" if row.mistaken_for is None else f"{row.mistaken_for} ({row.mistaken:,})"
        table.add_row(escape(row.name), f"{row.images:,}", *shares, escape(other))
    out.print(table)
    if not found.worst:
        return
    table = Table("image", "its class", "taken for", "at %", "its class at %", title="surest wrong answers")
    for m in found.worst[:SHOWN_WORST]:
        table.add_row(
            str(m.image), escape(m.name), escape(m.taken_for), f"{100 * m.probability:.1f}",
            f"{100 * m.own_probability:.1f}",
        )  # fmt: skip
    out.print(table)


def show(done: ModelRun) -> None:
    """Everything except the host's part."""
    from mcuformer.cli import firmware

    if done.simulated is not None:
        firmware.show(done.simulated)
    images = len(done.host.logits)
    for name, count in done.differing.items():
        one, compared = "value" if done.host.top1 is None else "logit", done.compared[name]
        some = "" if compared == images else f" of {compared:,} of the {images:,} images"
        out.print(f"{count} {one}s{some} differ from {name}" if count else f"every {one}{some} equals {name}")


@click.command("run")
@click.argument("model", type=PATH, help="A .tflite made by `mcuformer convert`.")
@data_option
@click.option("--split", default="test", help="train or test.")
@click.option("--limit", type=int, help="Run only this many images (with --on: 16 by default).")
@click.option("--weights", type=PATH, help="The file of staged weights; default: the one beside the model.")
@click.option(
    "--reference/--no-reference",
    help="Also compare every logit with the integer reference; of more than "
    f"{REFERENCE_IMAGES:,} images so many, and all with engine c.",
)
@click.option(
    "--engine", help="tflm (the tflite-micro interpreter, the default where it is installed) or c (without it)."
)
@click.option("--on", help=f"Also run it as firmware in QEMU, on a machine or a core: {MACHINE_NAMES}.")
@click.option("--board", help="As --on, with this board's core, RAM and flash.")
@click.option("--ram-bytes", type=int, help="RAM of the firmware.")
@click.option("--flash-bytes", type=int, help="Flash of the firmware.")
@click.option("--external-flash", is_flag=True, help="Its constants lie in flash beside the chip, read in place.")
@click.option(
    "--gallery",
    type=PATH,
    help="Without a head: an .npz to find each image's nearest embedding in; default: the images.",
)
@click.option(
    "--save-embeddings", type=PATH, help="Without a head: write embeddings and class names to this .npz, a gallery."
)
@click.option("--per-class", is_flag=True, help="Accuracy of each class, and the surest wrong answers.")
@click.option("--confusion", type=PATH, help=f"Draw which classes were taken for which ({ENDINGS}).")
@click.option("--worst", type=PATH, help=f"Draw the images with the surest wrong answers ({ENDINGS}).")
@click.option("--workers", type=int, help="Processes at most, where images are many; default: one for each core.")
@json_option
def command(
    model: Path, data: str, split: str, limit: int | None, weights: Path | None, reference: bool, engine: str | None,
    on: str | None, board: str | None, ram_bytes: int | None, flash_bytes: int | None, external_flash: bool,
    gallery: Path | None, save_embeddings: Path | None, per_class: bool, confusion: Path | None, worst: Path | None,
    workers: int | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Run a model on this machine, as firmware in QEMU too if you like; prints its top-1, or without a head the nearest
    of each image's embedding."""
    from mcuformer.workers import cores

    check_outputs(save_embeddings, confusion, worst, json_file)
    done = run(
        model, data=data, split=split, limit=limit, weights=weights, reference=reference, engine=engine, on=on,
        board=board, ram_bytes=ram_bytes, flash_bytes=flash_bytes, external_flash=external_flash, gallery=gallery,
        save_embeddings=save_embeddings, per_class=per_class, confusion=confusion, worst=worst,
        workers=cores() if workers is None else workers, on_host=show_host, progress=CONSOLE,
    )  # fmt: skip
    show(done)
    if per_class and done.host.by_class is not None:
        show_classes(done.host.by_class)
    for path in (confusion, worst):
        if path is not None:
            out.print(f"wrote {path}")
    write_json(json_file, done.to_dict())
    if wrong := [name for name, count in done.differing.items() if count]:
        raise ModelError(f"{model}: the kernels and {' and '.join(wrong)} disagree; please report this with the model")
