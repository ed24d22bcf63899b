"""FastAPI on uvicorn (httptools, uvloop), onnxruntime in the event loop, raw body in, orjson out.

python fastapi_onnx.py --model model.onnx --port 8000 [--workers 2] [--threads 1]
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import classifier
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response


@asynccontextmanager
async def loaded(app: FastAPI) -> AsyncIterator[None]:
    app.state.classifier = classifier.Classifier()
    yield


app = FastAPI(lifespan=loaded)


@app.post("/predictions/{name}")
async def predict(name: str, request: Request) -> Response:
    (answer,) = app.state.classifier.answers([classifier.pixels_of(await request.body())])
    return Response(orjson.dumps(answer), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a session of its own")
    parser.add_argument("--threads", type=int, default=1, help="of a session")
    asked = parser.parse_args()
    os.environ |= {classifier.MODEL: asked.model, classifier.THREADS: str(asked.threads)}
    uvicorn.run("fastapi_onnx:app", port=asked.port, workers=asked.workers, loop="uvloop", http="httptools",
                log_level="warning", access_log=False)  # fmt: skip


if __name__ == "__main__":
    main()
