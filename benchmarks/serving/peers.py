"""The servers that are compared: how each is started, in which environment, with which settings."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from comparison import cores

from deploypipe.archives.pack import build_archive
from deploypipe.contract.run import Run
from deploypipe.contract.server import ProcessIdentity
from deploypipe.quantize import TARGET
from deploypipe.serve import processes
from deploypipe.serve.defaults import BATCH
from deploypipe.serve.network import free_ports
from deploypipe.serve.torchserve.java import find_java
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.stopping import stop

HERE = Path(__file__).resolve().parent
NAME = "digits"
FLOAT, ROUNDED = "model.onnx", TARGET
START = 120.0
"""Seconds that a server may take to give its first right answer."""


@dataclass(frozen=True)
class Sample:
    """An image that every server must know before it is measured."""

    png: bytes
    label: int


@dataclass(frozen=True)
class Served:
    url: str
    """Of the predictions."""
    process: ProcessIdentity
    """Of its first process."""


@dataclass(frozen=True)
class Peer:
    title: str
    settings: Mapping[str, Sequence[str]]
    """Command line options, of TorchServe environment variables, by what they are called; the first is measured unless
    all are asked for."""
    script: str = ""
    """A program beside this file, run in the environment of the `.txt` of the same name. "": TorchServe's."""
    wrap: Callable[[bytes], bytes] = lambda body: body
    """What goes over the wire for a PNG or an array."""
    arrays: bool = True
    """Takes requests of many images."""
    artifact: str = FLOAT
    """What it serves of the run's exports, where it serves ONNX."""


def _in_json(body: bytes) -> bytes:
    return json.dumps({"files": [base64.b64encode(body).decode("ascii")]}).encode()


ALL = str(cores())
OURS, STOCK, ALONE = "deploypipe", "torchserve-stock", "onnxruntime alone"
OURS_ROUNDED, FASTAPI_ROUNDED = f"{OURS}-int8", "fastapi-int8"
PEERS = {
    OURS: Peer("`deploypipe serve`", {"defaults": ()}),
    OURS_ROUNDED: Peer("`deploypipe serve`, int8", {"defaults": ()}, artifact=ROUNDED),
    # Nobody waits for others, who come alone.
    f"{OURS}-batch-1": Peer("`deploypipe serve`", {"--batch 1": ("1",)}),
    f"{OURS_ROUNDED}-batch-1": Peer("`deploypipe serve`, int8", {"--batch 1": ("1",)}, artifact=ROUNDED),
    "fastapi": Peer(
        "FastAPI + onnxruntime",
        {
            "a worker a core": ("--workers", ALL),
            "1 worker": (),
            "1 worker, a thread a core": ("--threads", ALL),
        },
        "fastapi_onnx",
    ),
    FASTAPI_ROUNDED: Peer(
        "FastAPI + onnxruntime, int8", {"a worker a core": ("--workers", ALL)}, "fastapi_onnx", artifact=ROUNDED
    ),
    "litserve": Peer(
        "LitServe + onnxruntime",
        {
            "batch 64, 5 ms, an API server a core": ("--delay-ms", "5", "--api-servers", ALL),
            "batch 64, 5 ms": ("--delay-ms", "5"),
            "batch 64, 1 ms": (),
            "batch 64, 1 ms, an API server a core": ("--api-servers", ALL),
            "batch 64, 1 ms, fast queue": ("--fast-queue",),
            "batch 64, 1 ms, a worker a core": ("--workers", ALL),
            "no batching": ("--batch", "1", "--delay-ms", "0"),
        },
        "litserve_onnx",
    ),
    "bentoml": Peer(
        "BentoML + onnxruntime",
        {
            "batch 64, 1 s, a worker a core": ("--workers", ALL),
            "batch 64, 1 s": (),
            "batch 64, 100 ms": ("--latency-ms", "100"),
            "batch 64, 10 s": ("--latency-ms", "10000"),
            "no batching": ("--batch", "1"),
            "no batching, a worker a core": ("--batch", "1", "--workers", ALL),
        },
        "bentoml_onnx",
        wrap=_in_json,
    ),
    STOCK: Peer("TorchServe, its image classifier", {"defaults": ()}, arrays=False),
    # Its workers have a thread for each core: where anything else runs they spin for one another.
    f"{STOCK}-one-thread": Peer(
        "TorchServe, its image classifier, one thread a worker", {"defaults": ("OMP_NUM_THREADS=1",)}, arrays=False
    ),
}
ALONE_SETTINGS = {
    "a process a core": ("--processes", ALL),
    "1 process, a thread a core": ("--threads", ALL),
}


@contextmanager
def serving(name: str, setting: str, run: Run, environments: Path, sample: Sample) -> Iterator[Served]:
    """Server `name`, once it has answered `sample` rightly; gone when the block ends. Ends the program, saying why,
    where it does not start."""
    peer = PEERS[name]
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        scratch = Path(folder)
        if name.startswith(OURS):
            begun = _ours(run.exports / peer.artifact, scratch, *map(int, peer.settings[setting]))
        elif peer.script:
            begun = _script(peer, setting, run, environments, scratch)
        else:
            begun = _stock(peer, setting, run, environments, scratch)
        with begun as served:
            _wait(served, peer.wrap(sample.png), sample.label, scratch / "log")
            yield served


@contextmanager
def _ours(artifact: Path, scratch: Path, batch: int = BATCH) -> Iterator[Served]:
    build_archive(artifact, NAME, store=scratch / "store")
    server = start(scratch / "store", port=0, folder=scratch / "server", batch=batch)
    try:
        yield Served(f"{server.url}/predictions/{NAME}", server.process)
    finally:
        stop(folder=scratch / "server")


@contextmanager
def _script(peer: Peer, setting: str, run: Run, environments: Path, scratch: Path) -> Iterator[Served]:
    (port,) = free_ports(1)
    program = [interpreter(peer.script, environments), HERE / f"{peer.script}.py"]
    options = ["--model", run.exports / peer.artifact, "--port", str(port), *peer.settings[setting]]
    with _process([*program, *options], port, scratch, {}) as served:
        yield served


@contextmanager
def _stock(peer: Peer, setting: str, run: Run, environments: Path, scratch: Path) -> Iterator[Served]:
    """As its users start it, in a folder and on ports of its own; only what makes it answer without a token is set."""
    beside = str(_beside_ours("torchserve_stock", environments))
    archiver = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", NAME,
                "--version", "1.0", "--serialized-file", run.exports / "model.pt",
                "--handler", HERE / "torchserve_stock" / "handler.py", "--export-path", scratch]  # fmt: skip
    subprocess.run(archiver, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": beside})
    ports = free_ports(6)
    names = ("inference_address", "management_address", "metrics_address")
    lines = [f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)]
    lines += [f"grpc_inference_port={ports[3]}", f"grpc_management_port={ports[4]}", f"initial_worker_port={ports[5]}"]
    (scratch / "config.properties").write_text("\n".join(lines))
    command = [Path(sys.executable).parent / "torchserve", "--foreground", "--ncs", "--disable-token-auth",
               "--model-store", scratch, "--models", f"{NAME}={NAME}.mar",
               "--ts-config", scratch / "config.properties"]  # fmt: skip
    environment = {"JAVA_HOME": str(find_java().home), "TMPDIR": str(scratch), "TEMP": str(scratch),
                   "PYTHONPATH": beside}  # fmt: skip
    environment |= dict(variable.split("=", 1) for variable in peer.settings[setting])
    with _process(command, ports[0], scratch, environment) as served:
        yield served


@contextmanager
def _process(command: Sequence[str | Path], port: int, scratch: Path, extra: Mapping[str, str]) -> Iterator[Served]:
    """A server in a session of its own, and in an environment without the settings of our Python or its threads."""
    ours = ("PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | extra
    process = processes.launch(command, scratch, environment, scratch / "log")
    url = f"http://127.0.0.1:{port}/predictions/{NAME}"
    try:
        yield Served(url, process)
    finally:
        processes.end(process, grace=10)


def _wait(served: Served, body: bytes, label: int, log: Path) -> None:
    """Until the server knows the image."""
    answer, deadline = "nothing", time.monotonic() + START
    while time.monotonic() < deadline and processes.alive(served.process):
        try:
            response = httpx.post(served.url, content=body, timeout=10, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        answer = response.text
        if response.status_code == 200 and f'"class":{label},' in answer.replace(" ", "").replace("\n", ""):
            return
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    sys.exit(f"error: {served.url} does not know an image of class {label}: it answered {answer}\n{said}")


def interpreter(name: str, environments: Path) -> Path:
    """The Python of the environment that `<name>.txt` describes."""

    def make(folder: Path, wanted: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        _install(folder / "bin" / "python", wanted)

    return _made(name, environments, make) / "bin" / "python"


def _beside_ours(name: str, environments: Path) -> Path:
    """A folder with the packages of `<name>.txt`, to lay over our own environment: a second torch would be too much."""
    return _made(name, environments, lambda folder, wanted: _install(
        Path(sys.executable), wanted, "--no-deps", "--target", str(folder)))  # fmt: skip


def _made(name: str, environments: Path, make: Callable[[Path, Path], None]) -> Path:
    """The folder that `make` fills as `<name>.txt` says; made where it is missing or another."""
    wanted, folder = HERE / f"{name}.txt", environments.absolute() / name
    mark, digest = folder / "made-from", hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not mark.is_file() or mark.read_text() != digest:
        print(f"making the environment of {name} in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        make(folder, wanted)
        mark.write_text(digest)
    return folder


def _install(python: Path, wanted: Path, *options: str) -> None:
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, "--requirement", wanted]
    subprocess.run(argv, check=True)
