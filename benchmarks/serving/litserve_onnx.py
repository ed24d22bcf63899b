"""LitServe with batching, onnxruntime, raw body in, orjson out.

python litserve_onnx.py --model model.onnx --port 8000 [--workers 1] [--api-servers 1] [--batch 64] [--delay-ms 1]
"""

import argparse
import os
from typing import Annotated, Any

import classifier
import litserve
import orjson
from fastapi import Body, Response

Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = classifier.Classifier()

    def decode_request(self, request: Raw) -> classifier.Pixels:
        return classifier.pixels_of(request)

    def batch(self, inputs: list[classifier.Pixels]) -> list[classifier.Pixels]:
        return inputs

    def predict(self, inputs: Any) -> Any:
        # Without batching LitServe passes an input itself, and wants its output.
        return self.classifier.answers(inputs) if isinstance(inputs, list) else self.classifier.answers([inputs])[0]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> Response:
        return Response(orjson.dumps(output), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that run the model")
    parser.add_argument("--api-servers", type=int, default=1, help="processes that speak HTTP")
    parser.add_argument("--threads", type=int, default=1, help="of a session")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--delay-ms", type=float, default=1, help="for a batch to fill")
    parser.add_argument("--fast-queue", action="store_true", help="ZeroMQ between the processes")
    asked = parser.parse_args()
    os.environ |= {classifier.MODEL: asked.model, classifier.THREADS: str(asked.threads)}
    api = Api(max_batch_size=asked.batch, batch_timeout=asked.delay_ms / 1000, api_path="/predictions/digits")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=asked.workers, fast_queue=asked.fast_queue)
    server.run(host="127.0.0.1", port=asked.port, num_api_servers=asked.api_servers, log_level="warning",
               access_log=False, generate_client_file=False)  # fmt: skip


if __name__ == "__main__":
    main()
