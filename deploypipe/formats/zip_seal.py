"""The seal in a file as torch writes them: a zip with one folder, whose `extra/` is for its users."""

import zipfile
from pathlib import Path

from deploypipe.formats.session import SEAL


def seal_zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        entry = zipfile.ZipInfo(f"{root}/extra/{SEAL}", (1980, 1, 1, 0, 0, 0))
        file.writestr(entry, text)
