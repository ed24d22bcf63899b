"""New versions for a running server, under load: not a request is lost, and what fails changes nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from hammering import Asked, Hammer
from served_models import TIMEOUT, Classifier, Models, packed_with_wrong_samples, png

from deploypipe.archives.pack import build_archive
from deploypipe.capture import capture
from deploypipe.client import Client
from deploypipe.contract.archive import Archive
from deploypipe.contract.server import Server, authorization, recorded, tokens_of
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.errors import PackageError, ServingError
from deploypipe.export import plan, write_proven
from deploypipe.parity.probes import image_probes
from deploypipe.serve.store import placed
from deploypipe.serve.torchserve.deployment import deploy
from deploypipe.serve.torchserve.folder import locked, rewrite
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.management import Management
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop


@pytest.fixture(scope="module")
def second(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The same network with other weights."""
    torch.manual_seed(1)
    classifier = Classifier().eval()
    with torch.no_grad():
        classifier.linear.weight.mul_(8)
    captured = capture(classifier, (models.images[:2],), {"pixels": {0: "batch"}}, ("logits",))
    path = tmp_path_factory.mktemp("second") / "second.pt"
    _, report = write_proven(
        plan(captured, image_probes(models.images), task=IMAGE_CLASSIFICATION), "torchscript", path
    )
    report.raise_if_failed()
    return Models(classifier, models.images, {"torchscript": path})


@pytest.fixture(scope="module")
def archives(models: Models, second: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Archive]:
    """Of versions 1.0 (in the store that is served), 2.0, and a broken 3.0, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("archives")
    return {
        "1.0": build_archive(models.artifacts["torchscript"], "digits", "1.0", folder / "store"),
        "2.0": build_archive(second.artifacts["torchscript"], "digits", "2.0", folder / "2.0"),
        "3.0": packed_with_wrong_samples(models.artifacts["torchscript"], "digits", "3.0", folder / "3.0"),
    }


@pytest.fixture(scope="module")
def running(archives: dict[str, Archive], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that serves 1.0 and, being deployable, asks for tokens unless it is told not to."""
    folder = tmp_path_factory.mktemp("running").resolve()
    start(archives["1.0"].path.parent, port=0, folder=folder, workers=1, deployable=True, timeout=TIMEOUT)
    yield folder
    stop(folder=folder)


@pytest.fixture
def serves_first(running: Path, archives: dict[str, Archive]) -> Server:
    """Whatever a test before left: 1.0 is served now, and nothing else."""
    server = _server(running)
    if [archive.version for archive in server.archives] != ["1.0"]:
        deploy(archives["1.0"].path, folder=running)
        management = Management(server)
        for version in management.versions("digits").keys() - {"1.0"}:
            management.unregister("digits", version)
        rewrite(server, [archives["1.0"]])
    (archives["1.0"].path.parent / "digits-2.0.mar").unlink(missing_ok=True)
    return _server(running)


def test_whoever_has_no_token_loads_nothing(serves_first: Server) -> None:
    assert serves_first.tokens
    asked = {"url": "digits-1.0.mar"}
    response = httpx.post(f"{serves_first.management_url}/models", params=asked, timeout=TIMEOUT, trust_env=False)
    assert response.status_code == 400 and "token" in response.text.lower()


def _server(folder: Path) -> Server:
    server = recorded(folder)
    assert server is not None
    return server


def _served(folder: Path) -> dict[str, bool]:
    """Version → whether it is the default, of what is ready, as `status` says."""
    found = status(folder=folder)
    assert found.ready, found.message
    return {model.version: model.default for model in found.models}


def _is_answer(asked: Asked, models: Models) -> bool:
    found = json.loads(asked.body)["probabilities"]
    return np.allclose(found, models.probabilities([0])[0], atol=1e-5)


def _hammer(server: Server, models: Models) -> Hammer:
    return Hammer(
        f"{server.url}/predictions/digits", png(models.images[0]), 8, headers=authorization(server, "inference")
    )


def test_not_a_request_is_lost_while_a_new_version_takes_over(
    serves_first: Server, archives: dict[str, Archive], models: Models, second: Models
) -> None:
    store = serves_first.store
    with _hammer(serves_first, models) as hammer:
        hammer.wait_for(100)
        done = deploy(archives["2.0"].path, folder=serves_first.folder)
        switched = time.monotonic()
        hammer.wait_for(100)
    assert (done.state, done.previous, done.removed) == ("deployed", "1.0", True)
    assert {asked.status for asked in hammer.asked} == {200}
    by_second = [_is_answer(asked, second) for asked in hammer.asked]
    assert all(new or _is_answer(asked, models) for new, asked in zip(by_second, hammer.asked, strict=True))
    assert not by_second[0]
    assert all(new for new, asked in zip(by_second, hammer.asked, strict=True) if asked.sent > switched)

    assert _served(serves_first.folder) == {"2.0": True}
    assert (store / "digits-2.0.mar").read_bytes() == archives["2.0"].path.read_bytes()
    with Client(serves_first.url, "digits", token=tokens_of(serves_first)["inference"]) as client:
        assert client.predict([png(models.images[0])])[0].label == second.probabilities([0])[0].argmax()
    with (
        Client(serves_first.url, "digits", version="1.0", token=tokens_of(serves_first)["inference"]) as client,
        pytest.raises(ServingError, match=r"serves no model 'digits/1.0'"),
    ):
        client.predict([png(models.images[0])])
    # Back, by the name of an archive in the store.
    back = deploy(Path("digits-1.0.mar"), folder=serves_first.folder)
    assert (back.state, back.previous, back.removed) == ("deployed", "2.0", True)
    assert _served(serves_first.folder) == {"1.0": True}


def test_switching_back_and_forth_loses_no_request(
    serves_first: Server, archives: dict[str, Archive], models: Models, second: Models
) -> None:
    folder = serves_first.folder
    kept = deploy(archives["2.0"].path, folder=folder, keep=True)
    assert (kept.state, kept.removed) == ("deployed", False)
    assert _served(folder) == {"2.0": True, "1.0": False}
    with _hammer(serves_first, models) as hammer:
        for version, answers in (("1.0", models), ("2.0", second)) * 3:
            done = deploy(Path(f"digits-{version}.mar"), folder=folder)
            switched = time.monotonic()
            assert done.state == "switched"
            # Eight may have been under way at the switch.
            hammer.wait_for(30)
            since = [asked for asked in hammer.asked if asked.sent > switched]
            assert since and all(_is_answer(asked, answers) for asked in since)
    assert {asked.status for asked in hammer.asked} == {200}
    assert deploy(archives["2.0"].path, folder=folder).state == "unchanged"
    assert [archive.version for archive in _server(folder).archives] == ["2.0", "1.0"]


def test_a_version_that_fails_its_proof_changes_nothing(
    serves_first: Server, archives: dict[str, Archive], models: Models
) -> None:
    folder = serves_first.folder
    with (
        _hammer(serves_first, models) as hammer,
        pytest.raises(
            ServingError, match=r"digits 3.0 does not load: digits_3.0: ArchiveInvalid: .*Nothing changed"
        ) as e,
    ):
        deploy(archives["3.0"].path, folder=folder)
    assert "\n" not in str(e.value)
    assert {asked.status for asked in hammer.asked} == {200}
    assert all(_is_answer(asked, models) for asked in hammer.asked)
    assert _served(folder) == {"1.0": True}
    assert status(folder=folder).message == f"ready at {serves_first.url}"  # nothing else is loaded
    assert not (serves_first.store / "digits-3.0.mar").exists()
    assert _server(folder) == serves_first


def test_other_content_under_a_served_version_is_refused(
    serves_first: Server, archives: dict[str, Archive], second: Models, tmp_path: Path
) -> None:
    folder = serves_first.folder
    other = build_archive(second.artifacts["torchscript"], "digits", "1.0", tmp_path)
    with pytest.raises(ServingError, match="digits 1.0 is served already, with other content.*another --model-version"):
        deploy(other.path, folder=folder)
    (serves_first.store / "digits-2.0.mar").write_bytes(other.path.read_bytes())
    with pytest.raises(ServingError, match="digits-2.0.mar is there already, with other content"):
        deploy(archives["2.0"].path, folder=folder)
    (tmp_path / "broken.mar").write_bytes(b"no zip")
    with pytest.raises(PackageError, match="File is not a zip file"):
        deploy(tmp_path / "broken.mar", folder=folder)
    with pytest.raises(PackageError, match="no archive at"):
        deploy(Path("absent.mar"), folder=folder)
    with pytest.raises(ServingError, match="no server runs in"):
        deploy(other.path, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert _served(folder) == {"1.0": True}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_a_store_that_cannot_be_written_is_named(archives: dict[str, Archive]) -> None:
    with (
        pytest.raises(ServingError, match=r"/proc/digits-2.0.mar cannot be written"),
        placed(archives["2.0"], Path("/proc")),
    ):
        pass


def _wait_until_loading(server: Server) -> None:
    deadline = time.monotonic() + TIMEOUT
    management = Management(server)
    while "2.0" not in management.versions("digits"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_takes_back_what_was_done(serves_first: Server, archives: dict[str, Archive]) -> None:
    def interrupt() -> None:
        _wait_until_loading(serves_first)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            deploy(archives["2.0"].path, folder=serves_first.folder)
        interrupted.result()
    assert _served(serves_first.folder) == {"1.0": True}
    assert status(folder=serves_first.folder).message == f"ready at {serves_first.url}"
    assert not (serves_first.store / "digits-2.0.mar").exists()


def test_what_a_killed_deployment_leaves_is_described_and_removed(
    serves_first: Server, archives: dict[str, Archive]
) -> None:
    folder = serves_first.folder
    code = "import sys; from pathlib import Path; from deploypipe.serve.torchserve.deployment import deploy\n"
    code += "deploy(Path(sys.argv[1]), folder=Path(sys.argv[2]))\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(archives["2.0"].path), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    _wait_until_loading(serves_first)
    process.kill()
    process.wait()
    assert _served(folder) == {"1.0": True}
    assert "digits 2.0 is loaded too, by a deployment that goes on or was cut off" in status(folder=folder).message
    assert deploy(archives["2.0"].path, folder=folder, keep=True).state == "deployed"
    assert _served(folder) == {"2.0": True, "1.0": False}


def test_a_second_deployment_at_the_same_time_is_refused(serves_first: Server, archives: dict[str, Archive]) -> None:
    with (
        locked(serves_first.folder),
        pytest.raises(ServingError, match="another start or deployment is under way"),
    ):
        deploy(archives["2.0"].path, folder=serves_first.folder)


def test_a_name_that_was_not_served_is_added(serves_first: Server, models: Models, tmp_path: Path) -> None:
    folder = serves_first.folder
    added = build_archive(models.artifacts["torchscript"], "other", store=tmp_path)
    done = deploy(added.path, folder=folder)
    assert (done.state, done.previous, done.removed) == ("deployed", None, False)
    assert {(model.name, model.version) for model in status(folder=folder).models} == {
        ("digits", "1.0"),
        ("other", "1.0"),
    }
    management = Management(serves_first)
    management.unregister("other", "1.0")
    found = status(folder=folder)
    assert not found.ready and "other 1.0: it is not loaded" in found.message
    rewrite(serves_first, serves_first.archives)
    with contextlib.suppress(FileNotFoundError):
        (serves_first.store / "other-1.0.mar").unlink()
