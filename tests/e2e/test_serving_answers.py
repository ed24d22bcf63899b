"""What a real server answers: eager's values to every kind of body, and each bad request its own 4xx."""

import base64
import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
from served_models import IMAGE_MODELS, TIMEOUT, Models, npy, png

from deploypipe.client import Client
from deploypipe.contract.server import Server
from deploypipe.errors import ServingError
from deploypipe.serve.torchserve.management import Management
from deploypipe.serve.torchserve.readiness import status

ATOL = 1e-4
Post = Callable[..., httpx.Response]


def _protocol(models: Models, rows: int) -> dict[str, object]:
    data = models.images[:rows]
    item = {"name": "pixels", "shape": list(data.shape), "datatype": "UINT8", "data": data.flatten().tolist()}
    return {"inputs": [item], "id": "seven"}


@pytest.fixture(scope="module")
def post(server: Server) -> Post:
    client = httpx.Client(base_url=server.url, timeout=TIMEOUT, trust_env=False)

    def send(model: str, content: bytes | None = None, **options: object) -> httpx.Response:
        return client.post(f"/predictions/{model}", content=content, **options)  # type: ignore[arg-type]

    return send


def _many(document: dict[str, list[dict[str, list[float]]]]) -> np.ndarray:
    return np.array([prediction["probabilities"] for prediction in document["predictions"]])


@pytest.mark.parametrize("model", IMAGE_MODELS)
@pytest.mark.parametrize("how", ["raw", "multipart", "put"])
def test_one_image(models: Models, server: Server, model: str, how: str) -> None:
    url = f"{server.url}/predictions/{model}"
    body = png(models.images[3])
    if how == "multipart":
        response = httpx.post(url, files={"data": ("three.png", body, "image/png")}, trust_env=False)
    else:
        response = httpx.request("PUT" if how == "put" else "POST", url, content=body, trust_env=False)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    wanted = models.probabilities([3])[0]
    answer = response.json()
    assert np.allclose(answer["probabilities"], wanted, atol=ATOL)
    assert answer["class"] == wanted.argmax()
    assert answer["probability"] == max(answer["probabilities"])


@pytest.mark.parametrize("model", IMAGE_MODELS)
@pytest.mark.parametrize("kind", ["lists", "lists with a channel", "b64", "npy 3-d", "npy 4-d", "npy of 64"])
def test_many_images(models: Models, post: Post, model: str, kind: str) -> None:
    rows = 64 if kind == "npy of 64" else 5
    images = models.images[:rows]
    bodies = {
        "lists": lambda: json.dumps({"instances": images[:, 0].tolist()}).encode(),
        "lists with a channel": lambda: json.dumps({"instances": images.tolist()}).encode(),
        "b64": lambda: json.dumps(
            {"instances": [{"b64": base64.b64encode(png(image)).decode()} for image in images]}
        ).encode(),
        "npy 3-d": lambda: npy(images[:, 0].numpy()),
        "npy 4-d": lambda: npy(images.numpy()),
        "npy of 64": lambda: npy(images.numpy()),
    }
    response = post(model, bodies[kind]())
    assert response.status_code == 200, response.text
    assert np.allclose(_many(response.json()), models.probabilities(slice(rows)), atol=ATOL)


@pytest.mark.parametrize("model", IMAGE_MODELS)
@pytest.mark.parametrize("path", ["/predictions/{}", "/predictions/{}/1.0", "/v2/models/{}/infer"])
def test_open_inference_protocol(models: Models, server: Server, model: str, path: str) -> None:
    response = httpx.post(server.url + path.format(model), json=_protocol(models, 3), trust_env=False)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (model, "1.0", "seven")
    (logits,) = answer["outputs"]
    assert (logits["name"], logits["shape"], logits["datatype"]) == ("logits", [3, 10], "FP32")
    with torch.no_grad():
        wanted = models.classifier(models.images[:3]).flatten()
    assert np.allclose(logits["data"], wanted.numpy(), atol=ATOL, rtol=ATOL)


def test_a_model_of_tensors_answers_by_output_names(server: Server, post: Post) -> None:
    x, scale = torch.randn(4, 3), torch.randn(3)
    outputs = Client(server.url, "pair").infer({"x": x, "scale": scale})
    assert np.allclose(outputs["scaled"], x * scale)
    assert np.allclose(outputs["total"], x.sum(1), atol=1e-5)
    body = {"instances": [{"x": x.tolist(), "scale": scale.tolist()}, {"x": [[1, 2, 3]], "scale": [1, 0, 2]}]}
    predictions = post("pair", json=body).json()["predictions"]
    assert np.allclose(predictions[0]["total"], x.sum(1), atol=1e-5)
    assert predictions[1] == {"scaled": [[1.0, 0.0, 6.0]], "total": [6.0]}


BAD = [
    ("empty", b"", 400, "empty"),
    ("no image", b"hello, this is text", 415, "no image"),
    ("invalid JSON", b'{"instances": [', 400, "no valid JSON"),
    ("NaN in JSON", b'{"instances": [NaN]}', 400, "no valid JSON"),
    ("JSON of another shape", b'{"images": []}', 422, "'instances' or 'inputs'"),
    ("pixels out of range", json.dumps({"instances": [[[256] * 28] * 28]}).encode(), 422, "outside 0..255"),
    ("27 rows", json.dumps({"instances": [[[0] * 28] * 27]}).encode(), 422, "28x28"),
    ("float npy", npy(np.zeros((1, 28, 28), np.float32)), 422, "uint8"),
    ("truncated npy", npy(np.zeros((9, 28, 28), np.uint8))[:-5], 400, "truncated"),
]


@pytest.mark.parametrize("model", ["onnx"])
@pytest.mark.parametrize(("body", "code", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_bodies_get_their_own_4xx(post: Post, model: str, body: bytes, code: int, says: str) -> None:
    response = post(model, body, headers={"content-type": "application/json"})
    assert response.status_code == code, response.text
    assert says in response.json()["error"]


@pytest.mark.parametrize("path", ["/predictions/nothing", "/predictions/onnx/9.9"])
def test_an_unknown_model_or_version_is_404(server: Server, path: str) -> None:
    assert httpx.post(server.url + path, content=b"x", trust_env=False).status_code == 404


def test_a_concurrent_mix_costs_no_neighbour(models: Models, post: Post) -> None:
    wanted = models.probabilities()
    good = [png(image) for image in models.images]
    truncated = good[0][: len(good[0]) // 2]

    def send(i: int) -> tuple[int, httpx.Response]:
        bad = i % 7 == 0
        return i, post("onnx", [truncated, b"", b"{", b"text"][i // 7 % 4] if bad else good[i % 64])

    with ThreadPoolExecutor(32) as pool:
        for i, response in pool.map(send, range(512)):
            if i % 7 == 0:
                assert response.status_code in (400, 415), (i, response.text)
            else:
                assert response.status_code == 200, (i, response.text)
                assert np.allclose(response.json()["probabilities"], wanted[i % 64], atol=ATOL), i


def test_the_client(models: Models, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "five.png"
    file.write_bytes(png(models.images[5]))
    with Client(server.url, "torchscript", version="1.0") as client:
        one, other = client.predict([file, png(models.images[6])])
        assert np.allclose([one.probabilities, other.probabilities], models.probabilities([5, 6]), atol=ATOL)
        rows = client.predict_pixels(models.images.numpy())
        assert np.allclose([row.probabilities for row in rows], models.probabilities(), atol=ATOL)
        outputs = client.infer({"pixels": models.images[:2]})
        assert outputs["logits"].shape == (2, 10)
        assert outputs["logits"].dtype == np.float32
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        with pytest.raises(ServingError, match=r"broken.png \(HTTP 415\)"):
            client.predict([file, broken])
    with pytest.raises(ServingError, match="serves no model 'nothing'"):
        Client(server.url, "nothing").predict([file])


def test_a_killed_worker_costs_the_client_nothing(models: Models, server: Server) -> None:
    workers = [p for p in psutil.Process(server.pid).children() if "model_service_worker" in " ".join(p.cmdline())]
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    with Client(server.url, "onnx") as client:
        (row,) = client.predict_pixels(models.images[:1].numpy())
    assert np.allclose(row.probabilities, models.probabilities([0])[0], atol=ATOL)


def test_status_asks_the_models_themselves(server: Server) -> None:
    # After the killed workers: every model is back, or says what it lacks.
    deadline = time.monotonic() + 60
    while not (found := status(folder=server.folder)).ready and time.monotonic() < deadline:
        assert found.state == "running"
        time.sleep(0.5)
    assert found.ready, found.message
    assert {model.name for model in found.models} == {*IMAGE_MODELS, "pair"}
    assert all(model.workers == model.workers_wanted == 1 for model in found.models)


def test_logs_stay_quiet(server: Server) -> None:
    lines = (server.folder / "logs" / "workers.log").read_text().splitlines()
    assert not [line for line in lines if "Backend received inference" in line][20:]
    assert sum(path.stat().st_size for path in (server.folder / "logs").iterdir()) < 200_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_worker_holds_torch_only_where_its_model_needs_it(server: Server, post: Post, models: Models) -> None:
    for model, needs_it in (("onnx", False), ("torchscript", True), ("pt2", True)):
        assert post(model, png(models.images[0])).status_code == 200
        management = Management(server)
        loaded = management.loaded(model, "1.0")
        assert loaded is not None
        for pid in loaded.pids:
            assert ("libtorch" in Path(f"/proc/{pid}/maps").read_text()) == needs_it, model
            if not needs_it:
                assert psutil.Process(pid).memory_info().rss <= 180e6
