"""The command against a real MLServer and a real Triton.

They want other packages than this project, so they live in environments of their own: $DEPLOYPIPE_MLSERVER and
$DEPLOYPIPE_TRITON name the programs `mlserver` and `tritonserver`, else the path is searched. `pip install mlserver` is
the one. `pip install nvidia-pytriton "numpy<2"` has the other, with its Python backend alone, as
pytriton/tritonserver/bin/tritonserver; the stub of the environment's Python version, in python_backend_stubs beside
bin, must be copied to backends/python there.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from support import Command

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        self.layer, self.shift = nn.Linear(3, 2), shift

    def forward(self, x, y):
        return {"scores": self.layer(x).log() + self.shift, "both": x + y}

def shifted():
    torch.manual_seed(0)
    return Net(0.01)

inputs = (torch.rand(2, 3), torch.rand(2, 3))
"""

ANSWER = """
import numpy as np

def answer(weights, x, y):
    with np.errstate(all="ignore"):
        return np.log(x @ weights["w"].T + weights["b"]).astype(np.float32), (x + y).astype(np.float32)
"""

MLSERVER = """
import numpy as np
from answer import answer
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Net(MLModel):
    async def load(self):
        self.weights = dict(np.load("weights.npz"))
        return True

    async def predict(self, payload):
        found = zip(("scores", "both"), answer(self.weights, *map(NumpyCodec.decode_input, payload.inputs)))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(*item) for item in found])
"""

TRITON = """
import os, sys
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        sys.path.insert(0, folder)
        self.weights = dict(np.load(os.path.join(folder, "weights.npz")))

    def execute(self, requests):
        from answer import answer
        answers = []
        for request in requests:
            inputs = [pb.get_input_tensor_by_name(request, name).as_numpy() for name in "xy"]
            found = zip(("scores", "both"), answer(self.weights, *inputs))
            answers.append(pb.InferenceResponse([pb.Tensor(*item) for item in found]))
        return answers
"""

CONFIG = """
name: "net"
backend: "python"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "both" data_type: TYPE_FP32 dims: [ 3 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""

TENSORS = {
    kind: [{"name": name, "datatype": "FP32", "shape": [-1, size]} for name, size in sizes.items()]
    for kind, sizes in {"inputs": {"x": 3, "y": 3}, "outputs": {"scores": 2, "both": 3}}.items()
}


def program(name: str, variable: str) -> Path:
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not on the path, and ${variable} does not name it")
    return Path(found)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


def weights_into(folder: Path) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    np.savez(folder / "weights.npz", w=layer.weight.detach().numpy(), b=layer.bias.detach().numpy())
    (folder / "answer.py").write_text(ANSWER)


def mlserver(folder: Path) -> tuple[list[str], str]:
    start, ports = program("mlserver", "DEPLOYPIPE_MLSERVER"), free_ports(3)
    weights_into(folder)
    names = ("http_port", "grpc_port", "metrics_port")
    settings = {"host": "127.0.0.1", "parallel_workers": 0} | dict(zip(names, ports, strict=True))
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "net", "implementation": "served.Net"} | TENSORS
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "served.py").write_text(MLSERVER)
    return [str(start), "start", "."], f"http://127.0.0.1:{ports[0]}"


def triton(folder: Path) -> tuple[list[str], str]:
    start, (port,) = program("tritonserver", "DEPLOYPIPE_TRITON").resolve(), free_ports(1)
    version = folder / "net" / "1"
    version.mkdir(parents=True)
    weights_into(version)
    (version / "model.py").write_text(TRITON)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    options = {"model-repository": folder, "backend-directory": start.parents[1] / "backends", "http-port": port}
    fixed = ["--http-address=127.0.0.1", "--allow-grpc=false", "--allow-metrics=false"]
    return [str(start), *(f"--{name}={value}" for name, value in options.items()), *fixed], f"http://127.0.0.1:{port}"


@pytest.fixture(params=[mlserver, triton], ids=lambda server: server.__name__)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    prepare: Callable[[Path], tuple[list[str], str]] = request.param
    folder = tmp_path / "server"
    folder.mkdir()
    argv, url = prepare(folder)
    # The Python of the server's own environment, for a backend that starts one.
    homes = [str(parent / "bin") for parent in Path(argv[0]).parents if (parent / "bin" / "python").exists()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([*homes, environment["PATH"]])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{url}/v2/models/net/ready"):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_a_real_server_answers_is_held_to_eager(served: str, deploypipe: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    asked = ["--example", "net.py:inputs", "--url", served]
    done = deploypipe("verify", "--model", "net.py:Net", *asked, "--name", "net", "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["artifacts"]
    assert report["verdict"] == "passed" and report["comparisons"] > 30
    assert report["findings"][0]["detail"].startswith("Open Inference Protocol v2, tensors as ")
    other = deploypipe("verify", "--model", "net.py:shifted", *asked, "--name", "net")
    assert other.returncode == 6 and f"net at {served} differs from the eager model" in other.stderr
    missing = deploypipe("verify", "--model", "net.py:Net", *asked, "--name", "gone")
    assert missing.returncode == 8 and "serves no model 'gone'; it serves net" in missing.stderr
