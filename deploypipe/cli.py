"""The command line: the verbs of `commands/` put together, and the one place that prints errors."""

import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from deploypipe.commands import bench, catalogue, doctor, evaluate, export, package, predict, run, serve, train, verify
from deploypipe.commands.options import Json
from deploypipe.commands.output import Document, err, error, results_alone
from deploypipe.errors import DeploypipeError, Interrupted, first_line
from deploypipe.training import launch

P = ParamSpec("P")
CommandLineError: Any = typer.BadParameter.__mro__[2]
"""What typer raises when it cannot parse the command line (click's ClickException, which typer does not export)."""

app = typer.Typer(
    name="deploypipe",
    help="From a trained PyTorch model to a served endpoint, with proof that what is served is what was trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
benches = typer.Typer(help="What is fast, and how fast.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(benches, name="bench")

VERBS: tuple[Callable[..., Document], ...] = (
    run.run, train.train, evaluate.evaluate, export.export, export.quantize, verify.verify, package.package,
    serve.serve, predict.predict, serve.status, serve.ready, serve.deploy, serve.stop, catalogue.models,
    catalogue.datasets, catalogue.formats, doctor.doctor,
)  # fmt: skip
BENCHES: tuple[Callable[..., Document], ...] = (bench.train, bench.serve)


def command_of(verb: Callable[P, Document]) -> Callable[P, None]:
    """A command whose function shows its result and returns it as an object, which `--json` prints instead; errors are
    printed here and nowhere else, and decide the exit code."""

    @functools.wraps(verb)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.pop("as_json"))
        # Of several processes of one training one speaks; errors are any one's.
        leads = launch.leads()
        try:
            with results_alone(results=leads and not as_json, progress=leads):
                document = verb(*args, **kwargs)
        except BaseException as cause:
            _fail(cause, as_json and leads)
        if as_json and leads:
            print(json.dumps(document))
        if document.get("exit_code"):
            raise typer.Exit(document["exit_code"])

    signature = inspect.signature(verb)
    parameter = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    # Typer reads the parameters off the signature.
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter], return_annotation=None
    )
    return command


for verb in VERBS:
    app.command(verb.__name__)(command_of(verb))
for verb in BENCHES:
    benches.command(verb.__name__)(command_of(verb))


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"deploypipe {version('deploypipe')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a trained PyTorch model to a served endpoint, with proof that what is served is what was trained."""


def _fail(cause: BaseException, as_json: bool) -> NoReturn:
    if isinstance(cause, KeyboardInterrupt):
        cause = Interrupted("interrupted")
    if not isinstance(cause, Exception):
        raise cause
    if os.environ.get("DEPLOYPIPE_TRACEBACK"):
        traceback.print_exception(cause)
    if not isinstance(cause, DeploypipeError):
        message = f"unforeseen {type(cause).__name__}: {first_line(cause)}"
        cause = DeploypipeError(message, "This is a bug in deploypipe; DEPLOYPIPE_TRACEBACK=1 shows where.")
    if as_json:
        print(json.dumps({"error": cause.message, "remedy": cause.remedy, "exit_code": cause.exit_code}))
    error(str(cause))
    if cause.excerpt:
        err.print(cause.excerpt)
    raise typer.Exit(cause.exit_code)


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    # SIGTERM ends a verb as Ctrl-C does: what it wrote half is removed, what it started is stopped.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    except CommandLineError as wrong:
        wrong.show()
        if "--json" in sys.argv:
            message = wrong.format_message()
            print(json.dumps({"error": message, "remedy": "See --help.", "exit_code": wrong.exit_code}))
        code = wrong.exit_code
    sys.exit(code)
