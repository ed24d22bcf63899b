"""What a server opens, lets in, shows to its workers and writes; what it refuses to load."""

import hashlib
import json
import shutil
import socket
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from raw_http import ask, request
from served_models import TIMEOUT, Models, png
from spoilt_archives import SPOILT, rewrite
from support import Command

from deploypipe.client import Client
from deploypipe.contract.archive import MANIFEST, read_archive
from deploypipe.contract.server import Server, recorded, tokens_of
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.network import connects, free_ports, is_loopback
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop

SECRETS = {"AWS_SECRET_ACCESS_KEY": "hush", "DEPLOYPIPE_SECRET": "hush", "HF_TOKEN": "hush", "PYTHONPATH": "hush"}


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Name → size, time of the last change of content, and of anything."""
    found = {path.name: path.stat() for path in (folder, *folder.rglob("*"))}
    return {name: (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) for name, facts in found.items()}


@pytest.fixture(scope="module")
def read_only(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("read-only")
    shutil.copy(store / "onnx-1.0.mar", folder)
    for path in (folder / "onnx-1.0.mar", folder):
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    folder.chmod(0o755)


@pytest.fixture(scope="module")
def before(read_only: Path) -> dict[str, tuple[int, int, int]]:
    return _files(read_only)


@pytest.fixture(scope="module")
def server(
    read_only: Path, before: dict[str, tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        started = start(read_only, port=0, folder=folder, workers=2, timeout=TIMEOUT)
    yield started
    stop(folder=folder)


def _listening(server: Server) -> list[tuple[str, int]]:
    """Every address that a process of the server listens on."""
    return [
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in processes.members(server.process)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]


def _own_address() -> str:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not is_loopback(address.address):
                return str(address.address)
    pytest.skip("this machine has no address but the loopback one")


def test_everything_listens_on_loopback_only(server: Server) -> None:
    listening = _listening(server)
    assert {server.port, server.management_port, server.metrics_port} <= {port for _, port in listening}
    assert len(listening) == 6  # and two of gRPC, and TorchServe's own metrics, which are behind ours
    assert {address for address, _ in listening} == {"127.0.0.1"}


def test_nobody_else_can_connect(server: Server) -> None:
    address = _own_address()
    for _, port in _listening(server):
        assert connects("127.0.0.1", port)
        assert not connects(address, port)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_secrets_stay_behind(server: Server) -> None:
    members = processes.members(server.process)
    assert len(members) == 3  # the front end and two workers
    for member in members:
        assert b"hush" not in Path(f"/proc/{member.pid}/environ").read_bytes()


def test_a_read_only_store_is_left_alone(
    models: Models, server: Server, read_only: Path, before: dict[str, tuple[int, int, int]]
) -> None:
    assert Client(server.url, "onnx").predict([png(models.images[0])])
    assert status(folder=server.folder).ready
    assert _files(read_only) == before


def test_no_snapshot_is_written_or_taken(server: Server) -> None:
    assert "-ncs" in psutil.Process(server.pid).cmdline()
    assert not list(server.folder.rglob("*.cfg"))


def test_the_port_for_predictions_manages_nothing(server: Server) -> None:
    for method, path in (
        ("GET", "/models"),
        ("GET", "/models/onnx"),
        ("POST", "/models?url=onnx-1.0.mar"),
        ("PUT", "/models/onnx?min_worker=0"),
        ("PUT", "/models/onnx/1.0/set-default"),
        ("DELETE", "/models/onnx/1.0"),
        ("GET", "/metrics"),
        ("GET", "/token?type=management"),
        ("POST", "/workflows?url=a.war"),
    ):
        assert ask(server, request(method=method, path=path)).status == 404, path
    assert status(folder=server.folder).ready


@pytest.fixture(scope="module")
def opened(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model API is on, so that only `allowed_urls` is between it and any archive; and whose archive
    asks for a package that is nowhere."""
    folder, own = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("store")
    shutil.copy(store / "onnx-1.0.mar", own / "greedy.mar")

    def ask_for_a_package(entries: dict[str, bytes]) -> None:
        manifest = json.loads(entries[MANIFEST])
        manifest["model"] |= {"modelName": "greedy", "requirementsFile": "requirements.txt"}
        entries["requirements.txt"] = b"file:///nowhere/package-1.0.tar.gz\n"
        manifest["deploypipe"]["sha256"]["requirements.txt"] = hashlib.sha256(entries["requirements.txt"]).hexdigest()
        entries[MANIFEST] = json.dumps(manifest).encode()

    rewrite(own / "greedy.mar", ask_for_a_package)
    started = start(own, port=0, folder=folder, workers=1, deployable=True, tokens=False, timeout=TIMEOUT)
    yield started
    stop(folder=folder)


def test_an_archive_installs_nothing(opened: Server) -> None:
    """It is ready, though pip would have failed on what it asks for."""
    assert status(folder=opened.folder).ready


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/onnx-1.0.mar",
        "HTTP://127.0.0.1:{port}/onnx-1.0.mar",
        "ftp://127.0.0.1:{port}/onnx-1.0.mar",
        "s3://bucket/onnx-1.0.mar",
        "file://{store}/onnx-1.0.mar",
        "file:///etc/hostname",
        "{store}/onnx-1.0.mar",
        "../{name}/onnx-1.0.mar",
        "file://{own}/../{name}/onnx-1.0.mar",
        "file://{own}/%2e%2e/{name}/onnx-1.0.mar",
    ],
)
def test_only_the_stores_archives_can_be_registered(opened: Server, store: Path, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as asked:
        asked.settimeout(0.2)
        url = address.format(port=asked.getsockname()[1], store=store, own=opened.store, name=store.name)
        response = httpx.post(
            f"{opened.management_url}/models", params={"url": url, "initial_workers": 0}, timeout=60, trust_env=False
        )
        assert 400 <= response.status_code < 500, response.text
        with pytest.raises(TimeoutError):
            asked.accept()
    found = httpx.get(f"{opened.management_url}/models", trust_env=False).json()
    assert [model["modelName"] for model in found["models"]] == ["greedy"]
    assert [path.name for path in opened.store.iterdir()] == ["greedy.mar"]


def test_a_folder_gets_past_the_allowed_addresses(opened: Server, store: Path, tmp_path: Path) -> None:
    """TorchServe loads any folder that it can read, whatever `allowed_urls` says: so nothing is deployable unasked."""
    with zipfile.ZipFile(store / "onnx-1.0.mar") as file:
        file.extractall(tmp_path / "folder")
    asked = {"url": str(tmp_path / "folder"), "initial_workers": 0}
    response = httpx.post(f"{opened.management_url}/models", params=asked, timeout=TIMEOUT, trust_env=False)
    assert response.status_code == 200, response.text
    assert httpx.delete(f"{opened.management_url}/models/onnx/1.0", timeout=TIMEOUT, trust_env=False).status_code == 200


def test_where_nothing_is_deployable_nothing_is_registered(server: Server, tmp_path: Path) -> None:
    registering = ("POST", "/models?url=onnx-1.0.mar"), ("POST", f"/models?url={tmp_path}")
    for method, path in (*registering, ("DELETE", "/models/onnx/1.0")):
        response = httpx.request(method, server.management_url + path, timeout=TIMEOUT, trust_env=False)
        assert response.status_code == 405, response.text


@pytest.mark.parametrize(
    "name", ["dot-dot", "absolute", "backslash", "symlink", "configFile outside", "handler changed", "extra file"]
)
def test_a_spoilt_archive_never_reaches_torchserve(store: Path, tmp_path: Path, name: str) -> None:
    spoil, says = SPOILT[name]
    for archive in ("onnx", "torchscript"):
        shutil.copy(store / f"{archive}-1.0.mar", tmp_path)
    spoil(tmp_path / "onnx-1.0.mar")
    with pytest.raises(ServingError, match=says):
        start(tmp_path, port=0, folder=tmp_path / "server")
    assert not (tmp_path / "server").exists() or not (tmp_path / "server" / "logs").exists()
    assert read_archive(tmp_path / "torchscript-1.0.mar")


def test_an_open_server_asks_for_a_token_and_says_how_to_send_it(
    models: Models, store: Path, deploypipe: Command, tmp_path: Path
) -> None:
    address = _own_address()
    shutil.copy(store / "onnx-1.0.mar", tmp_path)
    (port,) = free_ports(1)
    options = ("--model-store", tmp_path, "--host", address, "--port", str(port), "--workers", "1", "--detach")
    done = deploypipe("serve", *options, check=True)
    try:
        said = " ".join((done.stdout + done.stderr).split())
        assert "Authorization: Bearer" in said
        (folder,) = tmp_path.glob("**/servers/*")
        found = recorded(folder)
        assert found is not None and found.tokens
        assert {at for at, port in _listening(found) if port == found.port} == {address}
        assert {at for at, port in _listening(found) if port != found.port} == {"127.0.0.1"}
        assert (folder / "key_file.json").stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) == 0
        url, body = f"http://{address}:{port}/predictions/onnx", png(models.images[0])
        assert httpx.post(url, content=body, trust_env=False).status_code == 400
        for key in ("nonsense", tokens_of(found)["management"]):
            bad = {"authorization": f"Bearer {key}"}
            assert httpx.post(url, content=body, headers=bad, trust_env=False).status_code == 400
        right = {"authorization": f"Bearer {tokens_of(found)['inference']}"}
        assert httpx.post(url, content=body, headers=right, trust_env=False).status_code == 200
    finally:
        deploypipe("stop", "--port", str(port))
    assert not processes.members(found.process)
