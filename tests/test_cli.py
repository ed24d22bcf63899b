"""The command line: arguments in, library call and result out. Real processes only where a process is the point."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, clean_environment
from typer.testing import CliRunner

from deploypipe.cli import app
from deploypipe.contract.run import Run
from deploypipe.errors import ExportError

VERBS = ["run", "train", "evaluate", "export", "quantize", "verify", "package", "serve", "predict", "status", "ready",
         "deploy", "stop", "models", "datasets", "formats", "doctor"]  # fmt: skip

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x):
        return self.layer(x)
class Other(Net):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.layer.weight)
inputs = torch.rand(2, 3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_run: Run) -> Path:
    """A working folder with one run in it, `runs/digits`, and a user's `net.py`."""
    shutil.copytree(digits_run.folder, tmp_path / "runs" / "digits")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "empty_store").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


def invoke(*argv: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(argv))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_every_verb_is_there_and_explains_itself() -> None:
    code, out, _ = invoke("--help")
    listed = [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()]
    assert [verb for verb in listed if verb != "bench"] == VERBS
    for verb in VERBS:
        code, out, _ = invoke(verb, "--help")
        assert code == 0 and "--json" in out


def damage_sidecar(folder: Path) -> None:
    path = folder / "runs" / "digits" / "exports" / "model.onnx.json"
    document = json.loads(path.read_text())
    document["parity"]["verdict"] = "failed"
    path.write_text(json.dumps(document))


def damage_artifact(folder: Path) -> None:
    path = folder / "runs" / "digits" / "exports" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def damage_weights(folder: Path) -> None:
    (folder / "runs" / "digits" / "weights.safetensors").write_bytes(b"")


def damage_data(folder: Path) -> None:
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\10\3" + b"\0" * 100)


def no_run(folder: Path) -> None:
    shutil.rmtree(folder / "runs")


def no_exports(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "digits" / "exports")


def broken_archive(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store" / "cnn.mar").write_bytes(b"PK no archive")


def other_weights(folder: Path) -> None:
    """The run's model.onnx is replaced by one of other weights, with a matching sidecar."""
    code, _, err = invoke("train", "--model", "simple-cnn", "--data", "digits", "--epochs", "1", "--seed", "9",
                          "--out", "other")  # fmt: skip
    assert code == 0, err
    assert invoke("export", "--run", "other")[0] == 0
    for name in ("model.onnx", "model.onnx.json"):
        shutil.copyfile(folder / "other" / "exports" / name, folder / "runs" / "digits" / "exports" / name)


RUN = ("--run", "runs/digits")
ONNX = "runs/digits/exports/model.onnx"
OWN = ("--model", "net.py:Net", "--example", "net.py:inputs")


@pytest.mark.parametrize(
    ("before", "argv", "code", "message"),
    [
        (None, ["train", "--model", "cn"], 2, "no model 'cn'. There are: lean-cnn,"),
        (None, ["train", "--data", "digts"], 2, "cnn does not train on 'digts'"),
        (None, ["train", "--optimizer", "lion"], 2, "optimizer.name is 'lion', must be one of sgd"),
        (None, ["train", "--epochs", "few"], 2, "Invalid value for '--epochs'"),
        (None, ["train", "--device", "tpu"], 2, "device 'tpu' is not there. Usable here: cpu"),
        (None, ["train", "--resume", "--out", "nowhere"], 4, "nowhere/checkpoint.pt does not exist"),
        (damage_data, ["train", "--data", "mnist", "--data-dir", "data"], 3, "train-images-idx3-ubyte is truncated"),
        (no_run, ["evaluate"], 2, "no run in "),
        (damage_weights, ["evaluate"], 4, "weights.safetensors is missing or is not what this run trained"),
        (None, ["evaluate", "--artifact", "gone.onnx"], 2, "no artifact at gone.onnx"),
        (None, ["evaluate", "--artifact", "net.py"], 2, "has no artifact's suffix"),
        (damage_artifact, ["evaluate", "--artifact", ONNX], 6, "model.onnx cannot be loaded"),
        (None, ["export", "--format", "tflite"], 2, "no format 'tflite'"),
        (None, ["export", "--model", "net.py:Net"], 2, "--model needs --example"),
        (None, ["export", "--model", "net.py:Nett", "--example", "net.py:inputs"], 2, "net.py defines no 'Nett'"),
        (None, ["export", *OWN, "--dynamic", "x0"], 2, "argument:axis"),
        (None, ["export", "--example", "net.py:inputs"], 2, "--example is for an own --model"),
        (None, ["export", "--probes", "net.py:inputs"], 2, "--probes is for an own --model"),
        (None, ["export", *OWN, "--probes", "net.py:Net"], 2, "net.py:Net is a Net, not a list of calls"),
        (None, ["export", *OWN, "--budget", "0"], 2, "a budget of 0 seconds is none"),
        (None, ["verify", *RUN, "--memory", "-1"], 2, "a budget of -1 GB is none"),
        (None, ["verify", *RUN, "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (None, ["export", *OWN, "--run", "runs/digits"], 2, "--run is for a run, not with --model"),
        (None, ["verify", *OWN, "--data-dir", "."], 2, "--data-dir is for a run, not with --model"),
        (None, ["predict", "net.py", "--url", "http://h:abc"], 2, "'http://h:abc' is no address of a server"),
        (no_exports, ["verify"], 2, "has no artifact to verify"),
        (other_weights, ["verify", *RUN], 6, "model.onnx differs from the eager model: "),
        (damage_artifact, ["verify"], 6, "model.onnx cannot be loaded"),
        (None, ["verify", "--model", "net.py:Net"], 2, "--model needs --example"),
        (no_exports, ["package"], 7, "has no artifact to package"),
        (damage_sidecar, ["package"], 7, "equal to the trained model: the verdict in its sidecar is 'failed'"),
        (damage_artifact, ["package"], 7, "is not the file that was proven"),
        (other_weights, ["package", *RUN], 7, "was not written from this run's weights"),
        (None, ["package", "--name", "a b"], 7, "'a b' is no name that TorchServe takes"),
        (None, ["serve", "--model-store", "gone"], 8, "no model store at "),
        (None, ["serve", "--model-store", "empty_store"], 8, "no archive (.mar) in "),
        (broken_archive, ["serve", "--model-store", "store"], 8, "cnn.mar cannot be served"),
        (None, ["stop", "--port", "1"], 8, "no server was started with port 1"),
        (None, ["status", "--port", "1"], 8, "no server was started here"),
        (None, ["ready", "--port", "1"], 8, "no server was started here"),
        (None, ["deploy", "cnn-1.0.mar", "--port", "1"], 8, "no server runs with port 1"),
        (None, ["predict", "net.py"], 2, "which model of http://127.0.0.1:8080?"),
        (None, ["predict", "net.py", "--name", "cnn", "--url", "http://127.0.0.1:1"], 8, "no server at http://127.0.0.1:1"),
        (None, ["predict", "gone.png", "--name", "cnn"], 3, "gone.png cannot be read: No such file"),
        (None, ["run", "--model", "mpl"], 2, "no model 'mpl'"),
        (None, ["run", "--format", "tflite"], 2, "no format 'tflite'"),
        (None, ["models", "cn"], 2, "no model 'cn'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_errors_are_one_line_with_the_right_code(
    folder: Path, before: Callable[[Path], None] | None, argv: list[str], code: int, message: str
) -> None:
    if before:
        before(folder)
    files = {path for path in folder.rglob("*") if path.is_file()}
    found, out, err = invoke(*argv)
    assert found == code and (out == "" or code == 6), err
    assert message in err.replace("\n", " ")
    if "Usage:" not in err:
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0]
    new = {path for path in folder.rglob("*") if path.is_file()} - files
    # Python keeps the bytecode of a user's file beside it, as with any import; ONNX Runtime keeps an identifier of the
    # machine in the user's cache folder, a while after it was loaded.
    left = {path.name for path in new if path.suffix != ".pyc" and ".cache" not in path.parts}
    assert left <= {"parity.json", "model.onnx.reproduce.py"}, "an error leaves nothing behind"


def test_an_error_is_json_when_json_was_asked_for(folder: Path) -> None:
    code, out, err = invoke("train", "--model", "cn", "--json")
    assert code == 2 and json.loads(out) == {
        "error": "no model 'cn'", "remedy": json.loads(out)["remedy"], "exit_code": 2,
    }  # fmt: skip
    assert "error: no model 'cn'" in err


def test_an_error_shows_the_line_that_it_is_about(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise ExportError("net.py:7: yield cannot be carried", "Return a list.", excerpt="    yield x\n    ^^^^^")

    monkeypatch.setattr("deploypipe.contract.run.open_run", fails)
    code, out, err = invoke("export", "--json")
    assert code == 5 and set(json.loads(out)) == {"error", "remedy", "exit_code"}
    assert err == "error: net.py:7: yield cannot be carried. Return a list.\n    yield x\n    ^^^^^\n"


def test_json_stays_json_whatever_goes_wrong(deploypipe: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "print('hello')\n" + NET.replace("return self", "print('forward'); import time; time.time(); return self")
    )
    for argv, code in [
        (["train", "--epochs", "few"], 2),
        (["nonsense"], 2),
        (["export", *OWN, "--format", "torchscript"], 5),
        (["export", "--model", "net.py:Net", "--example", "net.py:nothing"], 2),
    ]:
        done = deploypipe(*argv, "--json")
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["exit_code"] == code, done.stdout
        assert "Traceback" not in done.stderr


def test_the_next_commands_name_what_was_just_made(folder: Path) -> None:
    _, _, err = invoke("train", "--model", "mlp", "--data", "digits", "--epochs", "1", "--out", "my runs/one")
    assert "Next: deploypipe evaluate --run 'my runs/one'" in err
    _, _, err = invoke("export", "--run", "my runs/one")
    assert "deploypipe package --run 'my runs/one'" in err
    _, _, err = invoke("train", "--model", "dynamic-branch")
    assert "evaluate" not in err and "Next: deploypipe export --format onnx" in err
    # An artifact knows the run that it lies in, newest or not.
    assert invoke("verify", "--artifact", "my runs/one/exports/model.onnx")[0] == 0
    assert invoke("evaluate", "--artifact", "my runs/one/exports/model.onnx")[0] == 0


def test_an_unforeseen_error_says_that_it_is_a_bug(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("deploypipe.contract.run.run_of", fails)
    code, _, err = invoke("evaluate")
    assert code == 1 and "unforeseen ZeroDivisionError: division by zero. This is a bug in deploypipe" in err
    monkeypatch.setenv("DEPLOYPIPE_TRACEBACK", "1")
    code, _, err = invoke("evaluate", "--json")
    assert code == 1 and "Traceback" in err and "ZeroDivisionError: division by zero" in err


INTERRUPTED = """
import os, signal, sys
from deploypipe import cli
from deploypipe.contract import run

def swallows(*args):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None

run.run_of = swallows
sys.argv = ["deploypipe", "evaluate"]
cli.main()
"""


def test_ctrl_c_that_becomes_another_error_is_still_an_interruption(tmp_path: Path) -> None:
    """NumPy does so where the signal arrives while it looks at a foreign object."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, env=clean_environment(tmp_path),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 130 and "error: interrupted" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("argv", "keys"),
    [
        (["train", "--model", "mlp", "--data", "digits", "--epochs", "1"], {"run", "metrics", "weights_sha256"}),
        (["evaluate"], {"accuracy", "recall", "confusion"}),
        (["evaluate", "--artifact", "runs/digits/exports/model.pt"], {"accuracy", "dataset_sha256"}),
        (["export", "--format", "all"], {"artifacts"}),
        (["export", *OWN, "--dynamic", "x:0=batch"], {"artifacts"}),
        (["verify"], {"verdict", "artifacts"}),
        (["package"], {"path", "sha256"}),
        (["models"], {"models"}),
        (["models", "cnn"], {"layers"}),
        (["datasets"], {"datasets"}),
        (["formats"], {"formats"}),
        (["doctor"], {"checks"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_every_verb_has_json_and_a_table(folder: Path, argv: list[str], keys: set[str]) -> None:
    code, out, err = invoke(*argv, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert keys <= set(document)
    code, out, err = invoke(*argv)
    assert code == 0 and out.strip() and "{" not in out


def test_your_own_module_from_export_to_verify(folder: Path) -> None:
    assert invoke("export", *OWN, "--dynamic", "x:0=batch", "--format", "all", "--out", "mine")[0] == 0
    assert sorted(path.name for path in (folder / "mine").iterdir()) == [
        "Net.onnx", "Net.onnx.json", "Net.pt", "Net.pt.json", "Net.pt2", "Net.pt2.json",
    ]  # fmt: skip
    assert invoke("verify", *OWN, "--artifact", "mine/Net.onnx")[0] == 0
    assert json.loads((folder / "mine" / "Net.onnx.parity.json").read_text())["verdict"] == "passed"
    other = ["--model", "net.py:Other", "--example", "net.py:inputs"]
    code, _, err = invoke("verify", *other, "--artifact", "mine/Net.onnx")
    assert code == 6 and "output 'output' on example [2x3]" in err
    assert json.loads((folder / "mine" / "Net.onnx.parity.json").read_text())["verdict"] == "failed"


def test_doctor_fails_when_run_could_not_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("doctor")[0] == 0
    monkeypatch.setattr("deploypipe.doctor.NEEDED_DISK", 10**18)
    code, out, err = invoke("doctor")
    assert code == 1 and "disk" in out and "error: disk:" in err


def test_doctor_says_when_the_port_is_taken(folder: Path) -> None:
    from deploypipe.doctor import examine

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (check,) = [check for check in examine(ports=(taken.getsockname()[1],)) if check.name.startswith("port")]
    assert not check.ok and "taken" in check.found


def test_the_bare_command_shows_the_verbs(deploypipe: Command) -> None:
    shown = deploypipe()
    assert all(verb in shown.stdout + shown.stderr for verb in VERBS)


def test_standard_output_is_only_the_object(deploypipe: Command, tmp_path: Path) -> None:
    done = deploypipe("train", "--model", "mlp", "--data", "digits", "--epochs", "1", "--json", check=True)
    assert json.loads(done.stdout)["dataset"]["name"] == "digits"
    assert "epoch 1/1" in done.stderr and "Next: deploypipe evaluate" in done.stderr
