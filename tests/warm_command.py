"""`deploypipe` as a process forked from one that has already imported what commands import, which takes longer than
most of them run. Each is a process of its own, with its own arguments, folder, environment and streams; a test of what
starts it, of its imports or of signals runs the real program instead.

    python warm_command.py serve SOCKET           the process that forks, until its standard input ends
    python warm_command.py run SOCKET ARGUMENT…   one command: its streams are this process's, its exit code too;
                                                  after `--script`, the arguments are a Python script and its own
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

PRELOADED = ("deploypipe.cli", "deploypipe.train", "deploypipe.export", "deploypipe.verify", "deploypipe.package",
             "torch._dynamo", "torch.onnx._internal.exporter._core", "onnxscript.function_libs.torch_lib.ops",
             "torch.utils.tensorboard")  # fmt: skip
"""Nothing that starts a thread, as onnxruntime does: it would be missing in those that are forked."""
LONGEST = 1 << 20
"""Bytes of a request."""


def run(path: str, arguments: list[str]) -> int:
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        return int(connection.recv(16) or b"1")


def serve(path: str) -> int:
    """Returns in each forked process, with the command's exit code."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep a command
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return keep(connection)
            connection.close()
    return 0


def keep(connection: socket.socket) -> int:
    """Runs the command in a child, tells its exit code, and kills it when nobody waits for that any more."""
    message, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        return command(json.loads(message), streams)
    for stream in streams:
        os.close(stream)
    if connection in select.select([connection, os.pidfd_open(child)], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.send(str(code).encode())
    os._exit(0)


def command(request: dict[str, Any], streams: list[int]) -> int:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments = request["arguments"]
    if arguments[:1] == ["--script"]:
        sys.argv, sys.path[0] = arguments[1:], str(Path(arguments[1]).parent)
        runpy.run_path(arguments[1], run_name="__main__")
    else:
        sys.argv, sys.path[0] = ["deploypipe", *arguments], request["folder"]
        sys.modules["deploypipe.cli"].main()
    return 0


if __name__ == "__main__":
    verb, path, *arguments = sys.argv[1:]
    sys.exit(serve(path) if verb == "serve" else run(path, arguments))
