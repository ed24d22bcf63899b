"""A trained network, served on the device and held against eager over HTTP, by the command line alone."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from checks import PROJECT, Asked, Found
from report import Failed, NotRun

SERVING_EXIT = 8
PATIENCE = 30.0
"""Seconds that a command which is ended has to stop what it started."""
LEAST_MEMORY = 64 << 20
"""Bytes of the GPU that a process takes at least which uses it."""


def served(asked: Asked) -> Found:
    """Train on the digits, export, package, `serve --device`, compare what it answers with eager; always stop it."""
    formats = ["onnx"] if asked.quick else ["onnx", "pt2", "torchscript"]
    port = str(_free_port())
    with tempfile.TemporaryDirectory(prefix="deploypipe-gpu-") as scratch:
        command = _Command(Path(scratch))
        train = ["--model", "simple-cnn", "--data", "digits", "--set", "epochs=1.0", "--no-pictures"]
        command("train", *train, "--device", asked.device, "--out", "run")
        for format in formats:
            (artifact,) = command("export", "--run", "run", "--format", format)["artifacts"]
            command("package", "--artifact", artifact["path"], "--name", format)
        before = _free_memory(asked)
        try:
            found = command("serve", "--detach", "--port", port, "--device", asked.device, "--workers", "1")
            taken = before - _free_memory(asked)
            for format in formats:
                command("verify", "--run", "run", "--url", found["url"], "--name", format)
        finally:
            command.quietly("stop", "--port", port)
    if asked.device == "cuda" and taken < LEAST_MEMORY:
        raise Failed(f"the server answers, but takes no memory of the GPU ({taken >> 20} MiB): it runs on the CPU")
    memory = f"; {taken >> 20} MiB of the GPU" if asked.device == "cuda" else ""
    return Found(f"served on {asked.device} as {', '.join(formats)}, equal to eager over HTTP{memory}")


class _Command:
    """`deploypipe` in a folder of its own, with a home of its own: nothing of the user's is read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        self.environment = kept | {"HOME": str(folder), "PYTHONPATH": str(PROJECT)}

    def __call__(self, verb: str, *options: str) -> dict[str, Any]:
        """What the verb answers. NotRun where there is no Java, Failed for any other error."""
        done = self._run(verb, *options)
        document: dict[str, Any] = _document(done.stdout)
        if done.returncode:
            said = document.get("error") or (done.stderr.strip().splitlines() or ["nothing"])[-1]
            if done.returncode == SERVING_EXIT and "no Java" in said:
                raise NotRun(said)
            raise Failed(f"deploypipe {verb} ended with {done.returncode}: {said}")
        return document

    def quietly(self, verb: str, *options: str) -> None:
        """The verb, whatever comes of it."""
        self._run(verb, *options)

    def _run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        process = subprocess.Popen([sys.executable, "-m", "deploypipe", *argv, "--json"], cwd=self.folder, text=True,
                                   env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        try:
            printed, said = process.communicate()
        except BaseException:
            process.terminate()  # and not killed: `serve` ends what it has started
            process.communicate(timeout=PATIENCE)
            raise
        return subprocess.CompletedProcess(argv, process.returncode, printed, said)


def _document(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _free_memory(asked: Asked) -> int:
    """Bytes of the GPU that nobody uses; 0 without one."""
    if asked.device != "cuda":
        return 0
    import torch

    return int(torch.cuda.mem_get_info()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
