"""Options that several verbs have, and what a verb says about options that do not go together."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploypipe.errors import UsageError
from deploypipe.serve.defaults import PORT

if TYPE_CHECKING:
    from deploypipe.contract.run import Run

STORE = Path("model_store")
SERVER = f"http://127.0.0.1:{PORT}"

Json = Annotated[bool, typer.Option("--json", help="Standard output is one JSON object and nothing else.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="Run directory. [default: the newest below runs/]")]
RunOut = Annotated[Path | None, typer.Option("--out", help="Run directory. [default: runs/<model>-<dataset>]")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over where a training was not finished; its checkpoint is lost.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the datasets. [default: $DEPLOYPIPE_DATA_DIR, else the user's cache folder]"),
]
RunnerDevice = Annotated[str, typer.Option("--device", help="Where the artifact runs: cpu or cuda.")]
OwnModel = Annotated[str | None, typer.Option("--model", help="Your own module instead of a run's: file.py:Name.")]
OwnExample = Annotated[str | None, typer.Option("--example", help="Its example inputs: file.py:name.")]
OwnAxes = Annotated[list[str] | None, typer.Option("--dynamic", help="An axis that stays dynamic: x:0=batch.")]
Random = Annotated[
    str | None, typer.Option("--random", help="`input`: what forward draws is computed from an input, `noise`.")
]
State = Annotated[
    str | None, typer.Option("--state", help="`explicit`: what forward changes is an input and an output, `state`.")
]
OwnProbes = Annotated[
    str | None, typer.Option("--probes", help="Calls to compare on, instead of drawn ones: file.py:name, a list.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the values that are drawn to compare on.")]
Seconds = Annotated[
    float | None,
    typer.Option("--budget", help="Seconds of processor time for comparing an artifact. [default: 10 to 60, by model]"),
]
Memory = Annotated[
    float | None, typer.Option("--memory", help="GB that one comparison may need. [default: half of what is free]")
]
Bound = Annotated[
    int | None,
    typer.Option(
        "--bound", min=1, help="How often a loop runs at most that grows tensors, where its code does not say."
    ),
]
ModelStore = Annotated[Path, typer.Option(help="Folder of the archives.")]
Port = Annotated[int, typer.Option(help="Port of the predictions.")]
Url = Annotated[str, typer.Option(help="The server.")]
ServedName = Annotated[str | None, typer.Option(help="Model name. [default: the one that `serve` serves there]")]
Drain = Annotated[float, typer.Option(help="Seconds for what was accepted to be answered when it is stopped.")]


def refuse(what: str, options: Mapping[str, Any]) -> None:
    """UsageError for options that this form of the command would ignore."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} is for {what}")


def naming(run: "Run") -> list[str]:
    """The option that names this run in the next command, where the default would not find it."""
    from deploypipe.contract.run import ROOT

    return [] if run.folder.resolve().parent == ROOT.resolve() else ["--run", str(run.folder)]


def naming_store(store: Path) -> list[str]:
    """The option that names this model store in the next command, where it is not the default."""
    return [] if store == STORE else ["--model-store", str(store)]
