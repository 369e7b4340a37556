"""Our network by OpenVINO, in single precision as everywhere here."""

from __future__ import annotations

import threading

import numpy as np
import openvino as ov

from ..package import read
from .base import Options
from .ours import Ours


class Compiled:
    """A network compiled once for each size of input, which is faster than any size."""

    def __init__(self, options: Options, threads: int) -> None:
        self.core = ov.Core()
        self.core.set_property(
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": threads if options.tiles else 1,
                # It would take bfloat16 by itself where the processor has it.
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.onnx = read(options.model).onnx
        self.channels = self.core.read_model(self.onnx).output(0).partial_shape[1].get_length()
        self.lock = threading.Lock()
        self.compiled: dict[tuple[int, ...], ov.CompiledModel] = {}
        # One request for each thread and size: a request runs one image at a time.
        self.requests = threading.local()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if not hasattr(self.requests, "own"):
            self.requests.own = {}
        own: dict[tuple[int, ...], ov.InferRequest] = self.requests.own
        if image.shape not in own:
            own[image.shape] = self._compile(image.shape).create_infer_request()
        request = own[image.shape]
        request.infer([image])
        return request.get_output_tensor(0).data

    def _compile(self, shape: tuple[int, ...]) -> ov.CompiledModel:
        with self.lock:
            if shape not in self.compiled:
                network = self.core.read_model(self.onnx)
                network.reshape(list(shape))
                self.compiled[shape] = self.core.compile_model(network, "CPU")
            return self.compiled[shape]


def load(options: Options, threads: int) -> Ours:
    compiled = Compiled(options, threads)
    return Ours(options, compiled, compiled.channels, threads)
