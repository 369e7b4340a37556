"""Our network by ONNX Runtime."""

from __future__ import annotations

import onnxruntime as ort

from ..package import read
from .base import Options
from .ours import Ours


def load(options: Options, threads: int) -> Ours:
    settings = ort.SessionOptions()
    # Tiles run side by side, so that each run has one thread.
    settings.intra_op_num_threads = 1 if options.tiles else threads
    settings.inter_op_num_threads = 1
    # Threads that wait for work by spinning would be counted as work.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    onnx = read(options.model).onnx
    session = ort.InferenceSession(onnx, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    channels = session.get_outputs()[0].shape[1]
    return Ours(options, lambda image: session.run(None, {name: image})[0], channels, threads)
