"""Ways to spoil an archive, and what is then said of it."""

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from deploypipe.contract.archive import MANIFEST


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)


def _symlink(path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, "/etc/passwd")


def _config_outside(entries: dict[str, bytes]) -> None:
    manifest = json.loads(entries[MANIFEST])
    manifest["model"]["configFile"] = "../../outside.yaml"
    entries[MANIFEST] = json.dumps(manifest).encode()


def _not_started_fresh(entries: dict[str, bytes]) -> None:
    manifest = json.loads(entries[MANIFEST])
    manifest["deploypipe"]["fresh_process"] = "skipped"
    entries[MANIFEST] = json.dumps(manifest).encode()


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "not started fresh": (
        lambda path: rewrite(path, _not_started_fresh),
        "not answered its samples in a fresh process",
    ),
    "missing": (lambda path: path.unlink(), "no archive at"),
    "no zip": (lambda path: path.write_bytes(b"no zip"), "not a zip file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not a zip file"),
    "dot-dot": (lambda path: rewrite(path, lambda e: e.update({"../evil.py": b""})), "leads outside"),
    "absolute": (lambda path: rewrite(path, lambda e: e.update({"/evil.py": b""})), "leads outside"),
    "backslash": (lambda path: rewrite(path, lambda e: e.update({"a\\evil.py": b""})), "leads outside"),
    "symlink": (_symlink, "no plain file"),
    "no manifest": (lambda path: rewrite(path, lambda e: e.pop(MANIFEST)), "MANIFEST.json"),
    "another's manifest": (lambda path: rewrite(path, lambda e: e.update({MANIFEST: b"{}"})), "not packaged by"),
    "configFile outside": (lambda path: rewrite(path, _config_outside), "points elsewhere"),
    "handler changed": (
        lambda path: rewrite(path, lambda e: e.update({"handler.py": b"evil"})),
        "handler.py in it is not",
    ),
    "extra file": (
        lambda path: rewrite(path, lambda e: e.update({"extra.py": b""})),
        "not those that its manifest lists",
    ),
    "artifact changed": (lambda path: rewrite(path, lambda e: e.update({"tiny.pt": b""})), "tiny.pt in it is not"),
}
"""Name → what is done to the archive at a path, and what the error says."""
