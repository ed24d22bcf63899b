"""Each request's own answer over real HTTP: bad neighbours in one batch, odd images, odd HTTP."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from odd_images import IMAGES, NO_IMAGES
from raw_http import Connection, ask, request
from served_models import TIMEOUT, Models, npy, png

from deploypipe.contract.server import Server
from deploypipe.serve.service.limits import MAX_ANSWER, MAX_BODY
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.stopping import stop

ATOL = 1e-4
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    yield start(store, models=["onnx", "pair"], port=0, folder=folder, workers=1, timeout=TIMEOUT)
    stop(folder=folder)


@pytest.fixture
def patient(store: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that runs a batch when it is full, or after a long wait."""
    options = {"workers": 1, "batch": 64, "delay_ms": PATIENCE_MS, "timeout": TIMEOUT}
    yield start(store, models=["onnx"], port=0, folder=tmp_path / "patient", **options)
    stop(folder=tmp_path / "patient")


def _probabilities(models: Models, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return models.classifier(torch.from_numpy(pixels).reshape(-1, 1, 28, 28)).softmax(1).numpy()


def test_in_one_batch_of_64_five_are_bad_and_59_are_right(models: Models, patient: Server) -> None:
    bad = {3: (b"", 400), 9: (b"no image", 415), 31: (b'{"instances": [', 400), 40: (b'{"inputs": 1}', 422)}
    bad[63] = (png(models.images[63])[:400], 400)
    bodies = [bad[i][0] if i in bad else png(models.images[i]) for i in range(64)]

    async def send() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, limits=limits) as client:
            url = f"{patient.url}/predictions/onnx"
            return list(await asyncio.gather(*(client.post(url, content=body) for body in bodies)))

    begun = time.monotonic()
    responses = asyncio.run(send())
    # A batch that is not full waits for PATIENCE_MS: had there been a second one, this would have taken as long.
    assert time.monotonic() - begun < PATIENCE_MS / 1000
    wanted = models.probabilities()
    for i, response in enumerate(responses):
        assert response.status_code == (bad[i][1] if i in bad else 200), (i, response.text)
        if i in bad:
            assert response.json().keys() == {"error"}
        else:
            assert np.allclose(response.json()["probabilities"], wanted[i], atol=ATOL), i


@pytest.mark.parametrize(("data", "wanted", "atol"), IMAGES.values(), ids=IMAGES)
def test_odd_images(models: Models, server: Server, data: bytes, wanted: np.ndarray, atol: int) -> None:
    answer = ask(server, request(data))
    assert answer.status == 200, answer.body
    found = json.loads(answer.body)
    if atol == 0:
        probabilities = _probabilities(models, wanted.astype(np.uint8))[0]
        assert np.allclose(found["probabilities"], probabilities, atol=ATOL)
    else:  # the network makes of a small difference what it will
        assert len(found["probabilities"]) == 10


@pytest.mark.parametrize(("data", "status", "says"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_whole_image_is_refused(server: Server, data: bytes, status: int, says: str) -> None:
    answer = ask(server, request(data))
    assert answer.status == status, answer.body
    assert says in json.loads(answer.body)["error"]


def _protocol(**changed: object) -> bytes:
    item = {"name": "pixels", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
    return json.dumps({"inputs": [item | changed]}).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_protocol(), 200),
        (_protocol(datatype="FP32"), 422),
        (_protocol(datatype="NONSENSE"), 422),
        (_protocol(datatype=7), 422),
        (_protocol(shape=[1, 784]), 422),
        (_protocol(shape=[-1, 1, 28, 28]), 422),
        (_protocol(name="image"), 422),
        (_protocol(data=["7"] * 784), 422),
        (b'{"inputs": [', 400),
        (b'{"inputs": ' + b"[" * 100_000, 400),
        (b'\xff\xfe{"inputs": []}', 415),
        (b"[]", 422),
    ],
    ids=[
        "right", "other datatype", "unknown datatype", "no datatype", "other shape", "negative size", "other name",
        "strings", "invalid JSON", "deep JSON", "UTF-16 mark", "a list",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predictions/onnx", "/v2/models/onnx/infer"])
def test_json_that_does_not_fit(server: Server, path: str, body: bytes, status: int) -> None:
    for content_type in ("application/json", "text/plain; charset=utf-99"):
        answer = ask(server, request(body, f"Content-Type: {content_type}", path=path))
        assert answer.status == status, answer.body


IMAGE = IMAGES["PNG"][0]
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)
MULTIPART = "Content-Type: multipart/form-data; boundary=abc"
FORM = "Content-Type: application/x-www-form-urlencoded"


def _part(head: str, content: bytes = IMAGE) -> bytes:
    return f"--abc\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n--abc--\r\n"


HTTP = {
    "GET predicts too": (request(IMAGE, method="GET"), 200),
    "DELETE predicts too": (request(IMAGE, method="DELETE"), 200),
    "an unknown method predicts too": (request(IMAGE, method="BREW"), 200),
    "GET without a body": (request(method="GET", sized=False), 400),
    "POST without a body": (request(sized=False), 400),
    "OPTIONS describes": (request(method="OPTIONS", sized=False), 200),
    "chunked": (request(CHUNKED, "Transfer-Encoding: chunked", sized=False), 200),
    "chunks without a size": (request(b"zz\r\n", "Transfer-Encoding: chunked", sized=False), 400),
    "chunked and a length": (request(CHUNKED, "Transfer-Encoding: chunked", "Content-Length: 5", sized=False), 200),
    "two lengths": (request(IMAGE, "Content-Length: 5", "Content-Length: 6", sized=False), 400),
    "a length that is no number": (request(IMAGE, "Content-Length: x", sized=False), 400),
    "larger than allowed": (request(b"", f"Content-Length: {MAX_BODY + 1}", sized=False), 413),
    "larger than allowed, announced": (
        request(b"", f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue", sized=False),
        413,
    ),
    "gzip": (request(gzip.compress(IMAGE), "Content-Encoding: gzip"), 415),
    "HTTP/1.0": (request(IMAGE, version="1.0"), 200),
    "HTTP/9.9": (request(IMAGE, version="9.9"), 200),
    "HTTP/0.9": (b"GET /ping\r\n\r\n", 400),
    "a header without a colon": (request(IMAGE, "nothing"), 400),
    "a header without a name": (request(IMAGE, ": nothing"), 400),
    "a header of 10,000 bytes": (request(IMAGE, "X: " + "a" * 10_000), 400),
    "an address of 10,000 bytes": (request(IMAGE, path="/predictions/onnx?" + "a" * 10_000), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "an escape that is none": (request(IMAGE, path="/predictions/%zz"), 403),
    "unknown model": (request(IMAGE, path="/predictions/nothing"), 404),
    "unknown version": (request(IMAGE, path="/predictions/onnx/9.9"), 404),
    "version ..": (request(IMAGE, path="/predictions/onnx/%2e%2e"), 404),
    "no model": (request(IMAGE, path="/predictions"), 404),
    "multipart": (request(_part('name="data"'), MULTIPART), 200),
    "multipart of another field": (request(_part('name="file"'), MULTIPART), 400),
    "multipart of nothing": (request(IMAGE, MULTIPART), 400),
    "multipart cut off": (request(_part('name="data"')[:-20], MULTIPART), 400),
}

NOT_OURS = {
    "the protocol's path of a version": (request(_protocol(), path="/v2/models/onnx/versions/1.0/infer"), 501),
    "multipart without a boundary's name": (request(IMAGE, "Content-Type: multipart/form-data; boundary="), 500),
    "multipart without a field's name": (request(_part("x"), MULTIPART), 500),
    "an image called a form": (request(b"\x89PNG=\rx", FORM), 500),
    "a form with a wrong escape": (request(b"data=%zz", FORM), 500),
    "OPTIONS *": (request(method="OPTIONS", path="*", sized=False), 500),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 500),
}
"""What TorchServe's front end answers with a 5xx before a handler or a setting could say anything."""


@pytest.mark.parametrize(("content", "status"), [*HTTP.values(), *NOT_OURS.values()], ids=[*HTTP, *NOT_OURS])
def test_odd_http(server: Server, content: bytes, status: int) -> None:
    assert ask(server, content).status == status
    assert ask(server, request(IMAGE)).status == 200


def test_a_body_is_sent_when_the_server_says_continue(server: Server) -> None:
    with Connection(server) as connection:
        head = request(IMAGE, "Expect: 100-continue")[: -len(IMAGE)]
        connection.send(head)
        assert (answer := connection.answer()) and answer.status == 100
        connection.send(IMAGE)
        assert (answer := connection.answer()) and answer.status == 200


def test_pipelined_requests_are_answered_in_order_until_one_is_bad(models: Models, server: Server) -> None:
    wanted = models.probabilities([0, 1])
    with Connection(server) as connection:
        connection.send(request(png(models.images[0])) + request(png(models.images[1])))
        answers = [connection.answer(), connection.answer()]
        assert [json.loads(answer.body)["class"] for answer in answers if answer] == list(wanted.argmax(1))
        connection.send(request(b"bad") + request(IMAGE))
        # TorchServe closes the connection after every error, and with it goes what came behind.
        assert (answer := connection.answer()) and answer.status == 415
        assert connection.answer() is None


def test_half_a_request_waits_alone(server: Server) -> None:
    for content in (request(IMAGE, f"Content-Length: {len(IMAGE) + 1}", sized=False), b"POST /predict"):
        with Connection(server, timeout=0.5) as connection:
            connection.send(content)
            with pytest.raises(TimeoutError):
                connection.answer()
            assert ask(server, request(IMAGE)).status == 200
    assert ask(server, request(IMAGE)).status == 200


@pytest.mark.parametrize("model", ["onnx", "pair"])
def test_a_large_answer_is_its_own_requests_problem(server: Server, model: str) -> None:
    """TorchServe ends a worker whose answer is larger than it takes, and with it the whole batch."""
    if model == "onnx":
        rows = MAX_BODY // 784 - 1
        body, most = npy(np.zeros((rows, 28, 28), np.uint8)), 200
    else:
        rows = MAX_ANSWER // (3 * 20)
        x = {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": [3] * (3 * rows)}
        scale = {"name": "scale", "shape": [3], "datatype": "FP32", "data": [0.1234567, 1.234567e-3, 9.87654]}
        body, most = json.dumps({"inputs": [x, scale]}, separators=(",", ":")).encode(), 422
    assert len(body) <= MAX_BODY
    answer = ask(server, request(body, path=f"/predictions/{model}"))
    assert answer.status == most, answer.body[:200]
    if most == 422:
        assert "ask for fewer rows" in json.loads(answer.body)["error"]
    log = (server.folder / "logs" / "server.log").read_text()
    assert "exceed limit" not in log and "died" not in log
