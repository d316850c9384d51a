# SPDX-License-Identifier: Apache-2.0
"""Makes tests/importers/fixtures from the original libraries. They were made once; a test needs none of the libraries.

    pip install torch timm transformers torchvision    # each fixture's .json names the versions
    python tests/importers/make_fixtures.py [name ...]

Without names: all whose library can be imported. fixtures/NAME.npz holds the weights (float16, exact), one uint8 image,
the float input that the original saw and its float32 output, perhaps for a second image size too; NAME.json the rest.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from originals import ORIGINALS, Original, blank_unused, fill, image_of, pixels_of

FIXTURES = Path(__file__).parent / "fixtures"


def make(name: str, original: Original) -> str:
    """Writes one fixture; its line for the log."""
    seed = sum(name.encode())
    module = fill(original.build(), seed)
    image = image_of(original.image_shape, seed)
    images = pixels_of(image, original.pixels)
    if original.family == "autoformer":
        blank_unused(module, lambda x: original.run(module, x), images)
    with torch.no_grad():
        arrays = {"image": image, "input": images.numpy(), "output": original.run(module, images).numpy()}
    state = module.state_dict()
    if original.resize is not None and original.resized is not None:
        arrays["resized_image"] = image_of((*original.resized, original.image_shape[2]), seed + 1)
        with torch.no_grad():
            run = original.resize(module, original.resized)
            arrays["resized_output"] = run(pixels_of(arrays["resized_image"], original.pixels)).numpy()
    for key, value in state.items():
        half = value.numpy().astype(np.float16)
        assert np.array_equal(half.astype(np.float32), value.numpy()), f"{name}: {key} is not exact in float16"
        arrays[f"weights/{key}"] = half
    np.savez_compressed(FIXTURES / f"{name}.npz", **arrays)
    kind = type(module)
    facts = {
        "family": original.family, "class": f"{kind.__module__}.{kind.__qualname__}",
        "versions": {library: importlib.metadata.version(library) for library in original.libraries},
        "config": config_of(module), "pixels": original.pixels, "settings": original.settings,
    }  # fmt: skip
    if original.resized_settings:
        facts["resized_settings"] = original.resized_settings
    (FIXTURES / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    size = (FIXTURES / f"{name}.npz").stat().st_size
    return f"{name}: {size:,} bytes, {len(state)} tensors, outputs {arrays['output'].std():.3f}"


def config_of(module: torch.nn.Module) -> dict | None:
    """The config that the library's file of weights has beside it; None if it has none."""
    config = getattr(module, "config", None)
    if config is None:
        return None
    return {**json.loads(config.to_json_string()), "architectures": [type(module).__name__]}


def main() -> None:
    torch.set_num_threads(1)
    FIXTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ORIGINALS:
        if name.endswith("-4") != (transformers_major() == 4) and ORIGINALS[name].family == "hf":
            print(f"{name}: needs transformers {4 if name.endswith('-4') else 5}")
            continue
        try:
            print(make(name, ORIGINALS[name]))
        except ModuleNotFoundError as error:
            print(f"{name}: {error.name} is not installed")


def transformers_major() -> int | None:
    try:
        return int(importlib.metadata.version("transformers").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
