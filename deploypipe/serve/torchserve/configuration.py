"""What TorchServe is told: its properties, its logging, its command line and its environment."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploypipe.contract.archive import Archive
from deploypipe.errors import ServingError
from deploypipe.serve.service.limits import MAX_ANSWER, MAX_BODY
from deploypipe.serve.torchserve import exposition, slots
from deploypipe.serve.torchserve.folder import Layout
from deploypipe.serve.torchserve.java import Java

HOME = "home"
"""The folder, among the server's temporary files, that TorchServe takes for its home."""

_KEPT_VARIABLES = (
    "PATH", "HOME", "USER", "LANG", "TZ", "SYSTEMROOT",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "JDK_JAVA_OPTIONS",  # read by `java` itself
)  # fmt: skip
"""All that a server and its workers see of our environment: tokens and passwords stay behind."""


@dataclass(frozen=True)
class ServerSettings:
    """How a server runs; what it serves is in the archives."""

    host: str
    port: int
    management_port: int
    metrics_port: int
    """Where the workers' metrics and the front end's are scraped together."""
    front_end_metrics_port: int
    """Where TorchServe serves its own."""
    grpc_ports: tuple[int, int]
    """TorchServe opens both always; on loopback, and nothing here uses them."""
    worker_port: int
    """The first of a row that names the workers' sockets."""
    workers: int
    batch: int
    """The most requests that a worker gets at once."""
    delay_ms: int
    """How long a worker waits for a batch to fill; at low load every request pays it."""
    queue: int
    """How many requests may wait for one model; beyond, TorchServe answers 503."""
    gpus: int
    tokens: bool
    deployable: bool
    """Whether models can be loaded and unloaded later, by whoever may talk to the management port."""


def properties(settings: ServerSettings, archives: Sequence[Archive], store: Path) -> str:
    """The content of config.properties."""
    models: dict[str, dict[str, dict[str, int | bool | str]]] = {}
    for archive in archives:
        models.setdefault(archive.name, {})[archive.version] = {
            "defaultVersion": archive.name not in models,
            "marName": archive.path.name,
            "minWorkers": settings.workers,
            "maxWorkers": settings.workers,
            "batchSize": settings.batch,
            "maxBatchDelay": settings.delay_ms,
        }
    values = {
        "inference_address": f"http://{settings.host}:{settings.port}",
        "management_address": f"http://127.0.0.1:{settings.management_port}",
        "metrics_address": f"http://127.0.0.1:{settings.front_end_metrics_port}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": settings.grpc_ports[0],
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": settings.grpc_ports[1],
        "initial_worker_port": settings.worker_port,
        "model_store": store,
        "load_models": ",".join(archive.path.name for archive in archives),
        "models": json.dumps(models),
        "allowed_urls": f"file://{_quoted_pattern(str(store))}/[A-Za-z0-9_.-]+[.]mar",
        "enable_model_api": str(settings.deployable).lower(),
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "disable_token_authorization": str(not settings.tokens).lower(),
        "token_expiration_min": 60 * 24 * 365,
        "decode_input_request": "false",  # invalid JSON gets its own answer from the handler
        "ts_open_inference_protocol": "true",
        "max_request_size": MAX_BODY,
        "max_response_size": MAX_ANSWER,
        "job_queue_size": settings.queue,
        "number_of_netty_threads": 1,
        "netty_client_threads": 1,
        "number_of_gpu": settings.gpus,
        "metrics_config": _installed() / "ts" / "configs" / "metrics.yaml",
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",  # a Python process each minute
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in values.items())


def command(java: Java, layout: Layout, scratch: Path) -> list[str | Path]:
    """The JVM itself rather than ts's launcher, whose pid file is shared and which is one more process to end."""
    home = _installed()
    return [
        java.executable,
        "-XX:+UseSerialGC",
        "-Xms16m",
        "-Xmx1g",  # 64 of the largest bodies at once, twice; what is free of it is given back
        "-XX:MinHeapFreeRatio=10",
        "-XX:MaxHeapFreeRatio=30",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",  # a file in the machine's shared temporary folder
        f"-Dmodel_server_home={scratch / HOME}",
        f"-Dlog4j.configurationFile={layout.logging.as_uri()}",
        f"-Djava.io.tmpdir={scratch}",
        "-cp",
        home / "ts" / "frontend" / "*",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        layout.properties,
        "-ncs",  # else a snapshot left by an earlier server silently replaces this configuration
    ]


def write_home(scratch: Path) -> None:
    """What TorchServe's front end looks for in its home folder: its version, and the program of its workers, which is
    ours (see `worker.py`). ServingError where TorchServe is not installed."""
    folder = scratch / HOME / "ts"
    folder.mkdir(parents=True)
    shutil.copyfile(_installed() / "ts" / "version.txt", folder / "version.txt")
    shutil.copyfile(Path(__file__).with_name("worker.py"), folder / "model_service_worker.py")


def _installed() -> Path:
    """The folder with torchserve's package `ts`. Not imported: anything nearer on the path may be called `ts`."""
    try:
        return Path(str(importlib.metadata.distribution("torchserve").locate_file("")))
    except importlib.metadata.PackageNotFoundError as cause:
        raise ServingError("torchserve is not installed", "`pip install torchserve`.") from cause


def environment(
    settings: ServerSettings, layout: Layout, scratch: Path, source: Mapping[str, str] = os.environ
) -> dict[str, str]:
    return {
        **base_environment(source),
        "TMPDIR": str(scratch),
        "TEMP": str(scratch),
        "LOG_LOCATION": str(layout.logs),
        "METRICS_LOCATION": str(layout.logs),
        slots.FOLDER_VARIABLE: str(scratch / "metrics"),
        exposition.PORT_VARIABLE: str(settings.metrics_port),
        exposition.FRONT_END_VARIABLE: str(settings.front_end_metrics_port),
    }


def base_environment(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every process that runs an archive's code sees of our environment, and nothing else of it."""
    return {
        **{name: source[name] for name in _KEPT_VARIABLES if name in source},
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        # One thread a worker: more workers, not more threads, are what fills the cores.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # Else glibc keeps freed memory apart for each thread.
        "MALLOC_ARENA_MAX": "2",
    }


def _escaped(value: str) -> str:
    """Java properties are Latin-1 with backslash escapes."""
    return "".join(
        "\\\\" if character == "\\" else character if " " <= character <= "~" else _java_escape(character)
        for character in value
    )


def _java_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _quoted_pattern(text: str) -> str:
    """A Java pattern that matches `text` alone. TorchServe splits the property at commas, so those are escaped too."""
    return "".join(c if c.isalnum() or c in "/_" else f"\\x{{{ord(c):x}}}" for c in text)
