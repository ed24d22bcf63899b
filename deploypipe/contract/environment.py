"""What a run or an artifact was made with: the versions of the packages, and the commit of the folder we run in."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("deploypipe", "torch", "torchvision", "onnx", "onnxscript", "numpy", "onnxruntime")
RENAMED = {"onnxruntime": "onnxruntime-gpu"}
"""The name that a package has on platforms where its GPU build is installed."""


def versions() -> dict[str, str]:
    """The version of Python and of each package that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        installed = _version(name) or _version(RENAMED.get(name, name))
        if installed:
            found[name] = installed
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the folder we run in, with "+changes" when the tree differs from it; None outside a checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit
