"""Our model package, and Reticle's own pre-processing in numpy (crates/segment/src/normalise.rs)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


# Between these lies what the network gets (RANGE in normalise.rs).
RANGE = (np.float32(-1), np.float32(2))


@dataclass(frozen=True)
class Normalisation:
    """Table `[normalisation]` of model.toml; a key that is not here is an error."""

    low_percentile: float
    high_percentile: float
    min_span_sigmas: float

    def span(self, pixels: np.ndarray) -> tuple[np.float32, np.float32]:
        """The grey values that become 0 and 1."""
        histogram = np.bincount(pixels.ravel())
        low = np.float32(_percentile(histogram, self.low_percentile))
        high = np.float32(_percentile(histogram, self.high_percentile))
        least = np.float32(max(self.min_span_sigmas * _noise_sigma(pixels), 1.0))
        return low, low + max(high - low, least)


def scaled(pixels: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Grey values → the network's input."""
    out = pixels.astype(np.float32)
    out -= low
    out /= high - low
    return np.clip(out, *RANGE, out=out)


@dataclass(frozen=True)
class Postprocessing:
    """Table `[postprocessing]` of model.toml; a key that is not here is an error."""

    foreground_threshold: float
    seed_threshold: float
    merge_height: float
    contact_weight: float
    smoothing_passes: int
    min_area: int
    # Packages made before there was that key keep no object that is too low.
    sure_threshold: float = 1.0


@dataclass(frozen=True)
class Package:
    """What is needed to use a network as Reticle does."""

    onnx: Path
    normalisation: Normalisation
    postprocessing: Postprocessing


def read(folder: Path) -> Package:
    """Reads model.toml."""
    manifest = tomllib.loads((folder / "model.toml").read_text())
    return Package(
        onnx=folder / manifest["network"]["file"],
        normalisation=Normalisation(**manifest["normalisation"]),
        postprocessing=Postprocessing(**manifest["postprocessing"]),
    )


def _percentile(histogram: np.ndarray, percent: float) -> float:
    """The smallest value with at least `percent` of all pixels at or below it."""
    rank = max(int(np.ceil(percent / 100.0 * histogram.sum())), 1)
    return float(np.searchsorted(np.cumsum(histogram), rank))


def _noise_sigma(pixels: np.ndarray) -> float:
    rows = pixels[::4].astype(np.int32)
    if rows.shape[1] < 3:
        return 0.0
    halves = np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:])
    return _percentile(np.bincount(halves.ravel()), 50.0) / 2.0 / 0.6745 / 1.5**0.5
