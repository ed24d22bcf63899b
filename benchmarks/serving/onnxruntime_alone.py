"""What onnxruntime alone does on these cores, with no server: a loop over one batch, as an upper bound.

    python onnxruntime_alone.py --model model.onnx [--batch 64] [--processes 2] [--threads 1] [--seconds 5]

Prints `{"images_per_second": …}`.
"""

import argparse
import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier

import classifier
import numpy as np


def run(batch: int, seconds: float, together: Barrier, counts: "multiprocessing.Queue[int]") -> None:
    model = classifier.Classifier()
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 28, 28), np.uint8)
    model.logits(pixels)
    together.wait()
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        model.logits(pixels)
        count += batch
    counts.put(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    os.environ |= {classifier.MODEL: asked.model, classifier.THREADS: str(asked.threads)}
    context = multiprocessing.get_context("spawn")
    together, counts = context.Barrier(asked.processes), context.Queue()
    each = [context.Process(target=run, args=(asked.batch, asked.seconds, together, counts))
            for _ in range(asked.processes)]  # fmt: skip
    for process in each:
        process.start()
    images = sum(counts.get() for _ in each)
    for process in each:
        process.join()
    print(json.dumps({"images_per_second": images / asked.seconds}))


if __name__ == "__main__":
    main()
