"""What an engine is to the worker that times it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Lap = Callable[[str], None]
"""Called at the end of each stage with its name."""


@dataclass(frozen=True)
class Result:
    """What came of one frame."""

    # Label image: an integer array, 0 is background. None where the engine finds no objects.
    labels: Any
    objects: int
    # Whether something was prepared for it (a network compiled for a size of input that was not met
    # before) that the next such frame finds ready: then it is run again, and this run not counted.
    prepared: bool = False


class Engine(Protocol):
    """Loaded and ready: from a file to measured objects."""

    def frame(self, path: Path, lap: Lap) -> Result:
        """Decodes, segments and measures one file."""
        ...


@dataclass(frozen=True)
class Options:
    """What engines are told; each takes what it needs."""

    # Our model package: a folder with model.toml and model.onnx.
    model: Path
    # Folder `stardist` with config.json, thresholds.json and weights_best.h5.
    stardist: Path
    # Cut frames as Reticle does, or run the network on whole frames.
    tiles: bool = False
    # Run the network alone, without instances and measuring.
    network_only: bool = False
    extra: dict[str, str] = field(default_factory=dict)
