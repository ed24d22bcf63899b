"""The command line: the verbs of `commands/` put together, and the one place that prints errors."""

import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from types import FrameType, ModuleType
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
import typer.main
from typer.core import TyperGroup

from deploypipe.commands.options import Json
from deploypipe.commands.output import Document, err, error, results_alone
from deploypipe.errors import DeploypipeError, Interrupted, first_line
from deploypipe.training import launch

P = ParamSpec("P")
CommandLineError: Any = typer.BadParameter.__mro__[2]
"""What typer raises when it cannot parse the command line (click's ClickException, which typer does not export)."""

VERBS = {
    "run": "run", "train": "train", "evaluate": "evaluate", "export": "export", "quantize": "export",
    "verify": "verify", "package": "package", "serve": "serve", "predict": "predict", "status": "serve",
    "ready": "serve", "deploy": "serve", "stop": "serve", "bench": "bench", "models": "catalogue",
    "datasets": "catalogue", "formats": "catalogue", "doctor": "doctor",
}  # fmt: skip
"""Each verb, in the order of the flow, and the module of `commands/` that has it. It is imported when the verb is used:
a probe that asks whether a server is ready must not wait for the options of a training."""
BENCHES = ("train", "serve")


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


def _module_of(verb: str) -> ModuleType:
    return import_module(f"deploypipe.commands.{VERBS[verb]}")


def _typer(**options: Any) -> typer.Typer:
    return typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                       rich_markup_mode=None, **options)  # fmt: skip


@functools.cache
def _command(verb: str) -> Any:
    """The verb as what Typer makes of it; `bench` has verbs of its own."""
    if verb == "bench":
        benches = _typer(name=verb, help="What is fast, and how fast.")
        for name in BENCHES:
            benches.command(name)(command_of(getattr(_module_of(verb), name)))
        return typer.main.get_command(benches)
    alone = _typer()
    alone.command(verb)(command_of(getattr(_module_of(verb), verb)))
    return typer.main.get_command(alone)


class Verbs(TyperGroup):
    """The verbs, each made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(cmd_name) if cmd_name in VERBS else None


app = _typer(
    name="deploypipe",
    cls=Verbs,
    help="From a trained PyTorch model to a served endpoint, with proof that what is served is what was trained.",
)


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
    # Compiled code in which a signal arrives may turn KeyboardInterrupt into an error of its own.
    if isinstance(cause, KeyboardInterrupt) or (_signals and not isinstance(cause, DeploypipeError)):
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


_signals: list[int] = []
"""The signals that have asked this process to end."""


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    _signals.append(signum)
    raise KeyboardInterrupt


def main() -> None:
    # SIGTERM ends a verb as Ctrl-C does: what it wrote half is removed, what it started is stopped.
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored, in the background
        signal.signal(signal.SIGINT, _interrupt)
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
