"""BentoML with adaptive batching, onnxruntime.

    python bentoml_onnx.py --model model.onnx --port 8000 [--workers 1] [--batch 64] [--latency-ms 1000]

BentoML batches lists in JSON, not raw bodies: a request is `{"files": ["<base64 of what the others get>"]}`, its answer
a list of one.
"""

import argparse
import base64
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import classifier

WORKERS, BATCH, LATENCY = "BENTOML_PEER_WORKERS", "BENTOML_PEER_BATCH", "BENTOML_PEER_LATENCY_MS"


@bentoml.service(
    workers=int(os.environ.get(WORKERS, "1")),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30},
)
class Digits:
    def __init__(self) -> None:
        self.classifier = classifier.Classifier()

    @bentoml.api(
        batchable=int(os.environ.get(BATCH, "64")) > 1,
        max_batch_size=max(2, int(os.environ.get(BATCH, "64"))),  # 1 is not taken, batched or not
        max_latency_ms=int(os.environ.get(LATENCY, "1000")),
        route="/predictions/digits",
    )
    async def predict(self, files: list[str]) -> list[dict[str, Any]]:
        return self.classifier.answers([classifier.pixels_of(base64.b64decode(file)) for file in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of a session")
    parser.add_argument("--batch", type=int, default=64, help="1: no batching")
    parser.add_argument("--latency-ms", type=int, default=1000, help="beyond which requests are refused")
    asked = parser.parse_args()
    os.environ |= {
        classifier.MODEL: asked.model, classifier.THREADS: str(asked.threads), WORKERS: str(asked.workers),
        BATCH: str(asked.batch), LATENCY: str(asked.latency_ms), "BENTOML_DO_NOT_TRACK": "True",
    }  # fmt: skip
    serve = ["serve", "bentoml_onnx:Digits", "--host", "127.0.0.1", "--port", str(asked.port)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *serve, "--working-dir", str(Path(__file__).parent)])


if __name__ == "__main__":
    main()
