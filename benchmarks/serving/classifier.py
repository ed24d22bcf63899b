"""What the ONNX peers share: session, decode and answer. Needs numpy, onnxruntime and Pillow."""

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
MODEL = "CLASSIFIER_MODEL"
"""Environment variable with the `.onnx` file: these servers start their workers by import, without arguments."""
THREADS = "CLASSIFIER_THREADS"


class Classifier:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get(THREADS, "1"))
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ[MODEL], options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """`uint8 [n, 28, 28]` → `float32 [n, classes]`."""
        return self._session.run(None, {self._input: pixels[:, None]})[0]

    def answers(self, requests: list[Pixels]) -> list[dict[str, Any]]:
        """Run all the requests' images as one batch, and share the result out."""
        scores = self.logits(requests[0] if len(requests) == 1 else np.concatenate(requests))
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        found, first = [], 0
        for pixels in requests:
            rows = odds[first : first + len(pixels)]
            first += len(pixels)
            predictions = [
                {"class": label, "probability": row[label], "probabilities": row}
                for label, row in zip(rows.argmax(axis=1).tolist(), rows.tolist(), strict=True)
            ]
            found.append({"predictions": predictions} if len(predictions) > 1 else predictions[0])
        return found


def pixels_of(body: bytes) -> Pixels:
    """A PNG, or a `.npy` array `uint8 [n, 28, 28]` → `uint8 [n, 28, 28]`."""
    if body.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(body), allow_pickle=False)
    return np.asarray(Image.open(io.BytesIO(body)))[None]
