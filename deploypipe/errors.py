"""Every error that deploypipe raises on purpose, and the exit code each one has on the command line.

DeploypipeError        1   never raised itself; catch it to catch them all
├── UsageError         2   the request makes no sense: an unknown name, a missing file, options that contradict
├── DataError          3   a dataset or an input file is missing, damaged or mislabelled
├── TrainingError      4   training cannot start, go on or resume
├── ExportError        5   the model cannot be captured, or the format cannot carry it
├── ParityError        6   an artifact does not return what the eager model returns
├── PackageError       7   the archive cannot be built, or its artifact is not proven
├── ServingError       8   the server cannot start, answer or stop
└── Interrupted      130   Ctrl-C or SIGTERM; says what was kept and how to go on

Anything else that escapes is a bug and exits 1.
"""

from typing import ClassVar


class DeploypipeError(Exception):
    """What is wrong and where (`message`), and what to do about it (`remedy`, may be empty).

    `excerpt` is the line of the user's source that it is about, with a mark under the place; empty where there is none.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str = "", *, excerpt: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.excerpt = excerpt

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class UsageError(DeploypipeError):
    exit_code = 2


class DataError(DeploypipeError):
    exit_code = 3


class TrainingError(DeploypipeError):
    exit_code = 4


class ExportError(DeploypipeError):
    exit_code = 5


class ParityError(DeploypipeError):
    exit_code = 6


class PackageError(DeploypipeError):
    exit_code = 7


class ServingError(DeploypipeError):
    exit_code = 8


class Interrupted(DeploypipeError):
    exit_code = 130


def first_line(cause: BaseException) -> str:
    """The first line of a foreign error's message, or its class where it has none."""
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
