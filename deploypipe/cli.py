"""The command line: parse, call one library function, show the result."""

import dataclasses
import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from deploypipe import bench, data, doctor, pipeline, show, verification
from deploypipe import quantize as rounding
from deploypipe import train as training
from deploypipe.capture import capture
from deploypipe.contract.run import ROOT, Run, open_run, run_of
from deploypipe.data import dataset_of
from deploypipe.errors import DataError, DeploypipeError, Interrupted, ServingError, UsageError, first_line
from deploypipe.evaluate import evaluate as evaluate_split
from deploypipe.export import plan, plan_run, write_each
from deploypipe.formats import FORMATS, format_named
from deploypipe.formats.loading import read_runner
from deploypipe.models import MODELS
from deploypipe.models.trained import load_trained
from deploypipe.parity import parse_overrides
from deploypipe.serve import deployment, read_archive, readiness, server
from deploypipe.serve.client import client_for
from deploypipe.serve.record import PORT, Server
from deploypipe.train import TrainConfig, configure
from deploypipe.training import distributed
from deploypipe.training.optim import RATES, SCHEDULES
from deploypipe.training.recipes import RECIPES
from deploypipe.usercode import load_example, load_module, parse_dynamic
from deploypipe.verification import Subjects

app = typer.Typer(
    name="deploypipe",
    help="From a trained PyTorch model to a served endpoint, with proof that what is served is what was trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

P = ParamSpec("P")
Document = Mapping[str, Any]
DEFAULTS = TrainConfig()

Json = Annotated[bool, typer.Option("--json", help="Standard output is one JSON object and nothing else.")]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory. [default: the newest below runs/]")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the datasets. [default: $DEPLOYPIPE_DATA_DIR, else the user's cache folder]"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
UserModel = Annotated[str | None, typer.Option("--model", help="Your own module instead of a run's: file.py:Name.")]
UserExample = Annotated[str | None, typer.Option("--example", help="Its example inputs: file.py:name.")]
UserAxes = Annotated[list[str] | None, typer.Option("--dynamic", help="An axis that stays dynamic: x:0=batch.")]
RecipeOption = Annotated[
    str | None, typer.Option(help=f"A set of settings: {', '.join(RECIPES)}. [default: the model's]")
]
ConfigOption = Annotated[Path | None, typer.Option(help="A TOML file of settings, over the recipe's.")]
SetOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="One setting, over the file's: optimizer.lr=0.05.")
]
StoreOption = Annotated[Path, typer.Option(help="Folder of the archives.")]
PortOption = Annotated[int, typer.Option(help="Port of the predictions.")]
UrlOption = Annotated[str, typer.Option(help="The server.")]
ServedName = Annotated[str | None, typer.Option(help="Model name. [default: the one that `serve` serves there]")]
DrainOption = Annotated[float, typer.Option(help="Seconds for what was accepted to be answered when it is stopped.")]
STORE = Path("model_store")
SERVER = f"http://127.0.0.1:{PORT}"
CommandLineError: Any = typer.BadParameter.__mro__[2]
"""What typer raises when it cannot parse the command line (click's ClickException, which typer does not export)."""


benches = typer.Typer(help="What is fast, and how fast.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(benches, name="bench")


def verb(function: Callable[P, Document], within: typer.Typer = app, name: str | None = None) -> Callable[P, None]:
    """A command whose function shows its result and returns it as a JSON-able object, which `--json` prints instead;
    errors are printed here and nowhere else, and decide the exit code."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.pop("as_json"))
        # Of several processes of one training one speaks; errors are any one's.
        leads = distributed.leads()
        try:
            with show.results_alone(results=leads and not as_json, progress=leads):
                document = function(*args, **kwargs)
        except BaseException as cause:
            _fail(cause, as_json)
        if as_json and leads:
            print(json.dumps(document))
        if document.get("exit_code"):
            raise typer.Exit(document["exit_code"])

    signature = inspect.signature(function)
    parameter = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    # Typer reads the parameters off the signature.
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter], return_annotation=None
    )
    within.command(name or function.__name__.rstrip("_"))(command)
    return command


def _fail(cause: BaseException, as_json: bool) -> NoReturn:
    if isinstance(cause, KeyboardInterrupt):
        cause = Interrupted("interrupted")
    if not isinstance(cause, Exception):
        raise cause
    if os.environ.get("DEPLOYPIPE_TRACEBACK"):
        traceback.print_exception(cause)
    if isinstance(cause, DeploypipeError):
        message, remedy, code = cause.message, cause.remedy, cause.exit_code
    else:
        message = f"unforeseen {type(cause).__name__}: {first_line(cause)}"
        remedy, code = "This is a bug in deploypipe; DEPLOYPIPE_TRACEBACK=1 shows where.", 1
    if as_json and distributed.leads():
        print(json.dumps({"error": message, "remedy": remedy, "exit_code": code}))
    show.err.print(f"error: {message}" + (f". {remedy}" if remedy else ""), style="red", markup=False)
    raise typer.Exit(code)


@verb
def run(
    model: Annotated[str, typer.Option(help="A network of the zoo: see `deploypipe models`.")] = DEFAULTS.model,
    data: Annotated[str, typer.Option(help="A dataset: see `deploypipe datasets`.")] = DEFAULTS.data,
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. [default: runs/<model>-<dataset>]")] = None,
    format: Annotated[str, typer.Option(help="The format that is served; all of them are written.")] = "onnx",
    device: Device = DEFAULTS.device,
    epochs: Annotated[float | None, typer.Option(help="[default: as the dataset needs]")] = None,
    model_store: StoreOption = STORE,
) -> Document:
    """Train, evaluate, export to every format, verify, package, serve and predict, in one go."""
    given = {"model": model, "data": data, "data_dir": _text(data_dir), "device": device, "epochs": epochs}
    config = configure(options=given)
    with show.training_progress() as report:
        summary = pipeline.run(
            config, out, format=format, store=model_store, report=report, say=show.note, warn=show.warn
        )
    show.summary(summary)
    sample = next(iter(sorted(summary.run.samples.glob("*.png"))), "digit.png")
    at = _at(summary.run)
    show.next_commands(
        ["evaluate", *at],
        ["serve", "--detach", *([] if model_store == STORE else ["--model-store", str(model_store)])],
        ["predict", "--name", summary.archive.name, str(sample)],
        ["stop"],
    )
    return summary.to_json()


def _setting(key: str, help: str = "") -> Any:
    """An option that is one setting of a training; TrainConfig knows its default."""
    default = functools.reduce(getattr, key.split("."), DEFAULTS)
    shown = "" if default is None else f" [default: {default}]"
    return typer.Option(help=f"{help}{shown}".strip())


ModelSetting = Annotated[str | None, _setting("model", "A network of the zoo: see `deploypipe models`.")]
DataSetting = Annotated[str | None, _setting("data", "A dataset: see `deploypipe datasets`.")]
DeviceSetting = Annotated[str | None, _setting("device", "auto, cpu, cuda or mps.")]
SETTINGS = {
    # option: key, where it is another
    "optimizer": "optimizer.name",
    "learning_rate": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "l2": "optimizer.weight_decay",
    "schedule": "schedule.name",
    "l1": "loss.l1",
    "shift": "augment.shift",
    "rotate": "augment.rotate",
    "scale": "augment.scale",
    "checkpoint_every_steps": "checkpoint.every_steps",
    "checkpoint_every_seconds": "checkpoint.every_seconds",
}
"""`train`'s options in the configuration."""


@verb
def train(
    model: ModelSetting = None,
    data: DataSetting = None,
    data_dir: DataDir = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    epochs: Annotated[float | None, _setting("epochs", "[default: as the dataset needs]")] = None,
    batch_size: Annotated[int | None, _setting("batch_size")] = None,
    optimizer: Annotated[
        str | None, _setting("optimizer.name", f"{', '.join(RATES)}. [default: the model's own]")
    ] = None,
    learning_rate: Annotated[
        float | None, _setting("optimizer.lr", "The schedule's peak. [default: the optimizer's own]")
    ] = None,
    momentum: Annotated[float | None, _setting("optimizer.momentum", "SGD only.")] = None,
    schedule: Annotated[str | None, _setting("schedule.name", ", ".join(SCHEDULES) + ".")] = None,
    l1: Annotated[float | None, _setting("loss.l1", "L1 regularisation.")] = None,
    l2: Annotated[float | None, _setting("optimizer.weight_decay", "L2 regularisation (weight decay).")] = None,
    dropout: Annotated[float | None, _setting("dropout", "[default: the network's own]")] = None,
    shift: Annotated[float | None, _setting("augment.shift", "Augmentation: move by up to so many pixels.")] = None,
    rotate: Annotated[float | None, _setting("augment.rotate", "Augmentation: turn by up to so many degrees.")] = None,
    scale: Annotated[float | None, _setting("augment.scale", "Augmentation: resize by up to this fraction.")] = None,
    validation: Annotated[float | None, _setting("validation", "Fraction held back to validate on.")] = None,
    patience: Annotated[int | None, _setting("patience", "Stop after so many epochs without a gain; 0: never.")] = None,
    checkpoint_every_steps: Annotated[
        int | None, _setting("checkpoint.every_steps", "Write a checkpoint after so many steps. [default: by time]")
    ] = None,
    checkpoint_every_seconds: Annotated[
        float | None, _setting("checkpoint.every_seconds", "Write a checkpoint after so many seconds.")
    ] = None,
    seed: Annotated[int | None, _setting("seed")] = None,
    device: DeviceSetting = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits on a GPU too, at the cost of time.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. [default: runs/<model>-<dataset>]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, with its settings.")] = False,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Repeat the run of this run.json. [--out: <its folder>-again]")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Try learning rates and suggest one; nothing is trained.")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="Curves, confusion matrix and worst mistakes.")] = True,
) -> Document:
    """Train a network into a run directory."""
    given = locals()
    given = {name: given[name] for name in given if name not in ("out", "resume", "from_", "find_lr", "pictures")}
    for other, on in (("--resume", resume), ("--from", from_)):
        if on:
            _refuse(f"a new training, not with {other}", {f"--{name.replace('_', '-')}": given[name] for name in given})
    if bool(resume) + bool(from_) + bool(find_lr) > 1:
        raise UsageError("--resume, --from and --find-lr exclude each other")
    options = {SETTINGS.get(name, name): value for name, value in given.items()
               if name not in ("recipe", "config", "set", "data_dir")}  # fmt: skip
    merged = configure(recipe, config, set or [], {**options, "data_dir": _text(data_dir)})
    if find_lr:
        found, picture = training.find_learning_rate(merged, out, warn=show.warn)
        show.learning_rates(found, picture)
        show.next_commands(["train", "--learning-rate", f"{found.suggestion:g}"])
        return {"picture": str(picture), **found.to_json()}
    repeated = {}
    with distributed.joined() as group, show.training_progress() as report:
        if from_:
            done, same = training.repeat(from_, out, pictures=pictures, report=report, warn=show.warn, group=group)
            repeated = {"repeats": str(from_), "same_weights": same}
        else:
            done = training.train(
                merged, out, resume=resume, pictures=pictures, report=report, warn=show.warn, group=group
            )
    show.run_summary(done)
    if repeated.get("same_weights"):
        show.note(f"The weights are those of {from_}, bit for bit.")
    trained = [["evaluate", *_at(done)]] if done.document["dataset"] else []
    show.next_commands(*trained, ["export", "--format", "onnx", *_at(done)])
    return {"run": str(done.folder), **done.document, **repeated}


@verb
def evaluate(
    run: RunOption = None,
    artifact: Annotated[Path | None, typer.Option(help="An artifact instead of the eager model.")] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> Document:
    """Accuracy, per-class precision and recall and the confusion matrix on the test set."""
    opened = run_of(run, artifact)
    dataset = dataset_of(opened, data_dir)
    if dataset is None:
        raise DataError(f"{opened.model} has no test set: it is not trained", "Try `deploypipe verify`.")
    if artifact is not None:
        title, found = str(artifact), evaluate_split(read_runner(artifact, device), dataset.test)
    else:
        where = training.resolve_device(device)
        title, found = str(opened.folder), evaluate_split(load_trained(opened).to(where), dataset.test, where)
    show.metrics(f"{title} on {dataset.name}", found, dataset.classes)
    show.next_commands(["export", "--format", "all", *_at(opened)])
    return {"of": title, "dataset": dataset.name, "dataset_sha256": dataset.sha256, **found.to_json()}


@verb
def export(
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)} or all.")] = "onnx",
    run: RunOption = None,
    model: UserModel = None,
    example: UserExample = None,
    dynamic: UserAxes = None,
    out: Annotated[Path | None, typer.Option(help="Folder for your own module's artifacts. [default: here]")] = None,
    data_dir: DataDir = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what became of each place where Python decides by data.")
    ] = False,
    require_coverage: Annotated[
        bool, typer.Option("--require-coverage", help="Exit 6 unless every way through the model was proven.")
    ] = False,
) -> Document:
    """Write a run's model, or your own, as artifacts that are proven equal to eager."""
    suffixes = {name: format_named(name).suffix for name in (FORMATS if format == "all" else [format])}
    if model is None:
        _refuse("an own --model", {"--example": example, "--dynamic": dynamic, "--out": out})
        opened = open_run(run)
        prepared = plan_run(opened, data_dir)
        paths = {name: opened.exports / f"model{suffix}" for name, suffix in suffixes.items()}
        then = [["verify", *_at(opened)], ["package", *_at(opened)]]
    else:
        _refuse("a run, not with --model", {"--run": run, "--data-dir": data_dir})
        if example is None:
            raise UsageError("--model needs --example file.py:name, the inputs to capture it with")
        prepared = plan(capture(load_module(model), load_example(example), parse_dynamic(dynamic or [])))
        paths = {name: (out or Path()) / f"{model.rpartition(':')[2]}{suffix}" for name, suffix in suffixes.items()}
        first = str(next(iter(paths.values())))
        then = [["verify", "--model", model, "--example", example, "--artifact", first]]
    if explain:
        show.control_flow(prepared)
    if require_coverage:
        prepared.require_coverage()
    for line in prepared.remarks:
        show.warn(line)
    rows = write_each(prepared, paths)
    show.artifacts(rows)
    show.note(f"Folder: {next(iter(paths.values())).parent}")
    artifacts = [row.proven()[0] for row in rows]
    show.next_commands(*then)
    return {"artifacts": [{"path": str(artifact.path), **artifact.to_json()} for artifact in artifacts],
            **({"rewritten": dict(prepared.captured.static.rewritten)} if explain else {})}  # fmt: skip


@verb
def quantize(run: RunOption = None, data_dir: DataDir = None) -> Document:
    """Round a run's ONNX artifact to int8, which many processors run faster; exit 6 if it loses over 0.1 points."""
    opened = open_run(run)
    artifact, report = rounding.quantize(opened, data_dir)
    show.reports([report])
    report.raise_if_failed()
    show.note(f"Artifact: {artifact.path} ({show.size(artifact.path)})")
    show.next_commands(["package", "--artifact", str(artifact.path)])
    return {"path": str(artifact.path), **artifact.to_json()}


@verb
def verify(
    run: RunOption = None,
    artifact: Annotated[Path | None, typer.Option(help="[default: every artifact of the run]")] = None,
    mar: Annotated[Path | None, typer.Option(help="An archive, by the handler inside it.")] = None,
    url: Annotated[str | None, typer.Option(help="A server, over HTTP.")] = None,
    name: Annotated[str | None, typer.Option(help="Its model. [default: the one that `serve` serves there]")] = None,
    model: UserModel = None,
    example: UserExample = None,
    dynamic: UserAxes = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="Where the artifact runs: cpu or cuda.")] = "cpu",
    atol: Annotated[list[str] | None, typer.Option(help="Absolute tolerance: 1e-5, or logits:1e-5 for one.")] = None,
    rtol: Annotated[list[str] | None, typer.Option(help="Relative tolerance, likewise.")] = None,
) -> Document:
    """Compare artifacts, an archive or a server with the eager model; exit 6 on a difference."""
    overrides = parse_overrides(atol or [], rtol or [])
    if url is None:
        _refuse("a server's --url", {"--name": name})
    subjects = Subjects((artifact,) if artifact else (), mar, url, name, device)
    if model is None:
        _refuse("an own --model", {"--example": example, "--dynamic": dynamic})
        opened = run_of(run, artifact)
        if not subjects:
            subjects = dataclasses.replace(subjects, artifacts=tuple(opened.artifacts()))
        verified = verification.verify_run(opened, subjects, data_dir, overrides)
        then = ["package", *_at(opened)]
    else:
        _refuse("a run, not with --model", {"--run": run, "--data-dir": data_dir})
        if example is None or not subjects:
            raise UsageError("--model needs --example file.py:name, and --artifact FILE, --mar FILE or --url URL")
        axes = parse_dynamic(dynamic) if dynamic else None
        verified = verification.verify_module(load_module(model), load_example(example), subjects, axes, overrides)
        then = ["package", "--artifact", str(artifact)]
    show.reports(verified.reports)
    show.note(f"Report: {verified.document}")
    if verified.script:
        show.note(f"The difference, in a script of its own: {verified.script}")
    for report in verified.reports:
        report.raise_if_failed()
    if mar or url:
        then = ["predict", "--url", url, "FILE"] if url else ["serve", "--detach"]
    show.next_commands(then)
    artifacts = [report.to_json() for report in verified.reports]
    return {"verdict": "passed", "report": str(verified.document), "artifacts": artifacts}


@verb
def package(
    artifact: Annotated[Path | None, typer.Option(help="[default: the newest run's, ONNX first]")] = None,
    run: RunOption = None,
    name: Annotated[str | None, typer.Option(help="Model name. [default: the network's]")] = None,
    model_version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0",
    model_store: StoreOption = STORE,
) -> Document:
    """Pack a proven artifact, its handler and its samples into a TorchServe archive."""
    archive = pipeline.package(artifact, run, name, model_version, model_store)
    show.listing(
        ("archive", "model", "version", "artifact", "size", "sha256"),
        [
            (
                str(archive.path),
                archive.name,
                archive.version,
                archive.kind,
                show.size(archive.path),
                archive.sha256[:12],
            )
        ],
    )
    show.next_commands(["serve", "--detach", *([] if model_store == STORE else ["--model-store", str(model_store)])])
    return pipeline.facts_of(archive)


@verb
def serve(
    model_store: StoreOption = STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = PORT,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; else stay until Ctrl-C.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Per model. [default: the cores shared among the models, 4 at most]")
    ] = None,
    batch: Annotated[
        int, typer.Option(help="Most requests in one run; 1 is fastest for a single client.")
    ] = server.BATCH,
    answer_within: Annotated[
        float, typer.Option(help="Seconds: more requests than are answered within them get 503 at once.")
    ] = server.ANSWER_WITHIN,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tokens: Annotated[
        bool | None, typer.Option(help="Whether requests need one. [default: if --host is not this machine alone]")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for readiness.")] = 120.0,
    drain: DrainOption = server.DRAIN,
    deployable: Annotated[
        bool,
        typer.Option(
            "--deployable",
            help="Let `deploypipe deploy` load other archives later; so can any user of this machine, unless --tokens.",
        ),
    ] = False,
) -> Document:
    """Serve every archive of the store with TorchServe; ready means that each answered its samples correctly."""
    started: list[Server] = []

    def ready(found: Server) -> None:
        started.append(found)
        show.server(found)

    options = {"host": host, "port": port, "workers": workers, "batch": batch, "answer_within": answer_within,
               "device": device, "tokens": tokens, "timeout": timeout, "deployable": deployable}  # fmt: skip
    if detach:
        ready(server.start(model_store, **options))  # type: ignore[arg-type]
        name, at = started[0].archives[0].name, str(started[0].port)
        show.next_commands(["predict", "--url", started[0].url, "--name", name, "digit.png"], ["stop", "--port", at])
    else:
        show.note("Serving until Ctrl-C.")
        server.serve_foreground(model_store, ready, drain=drain, **options)
    return {"url": started[0].url, "metrics_url": started[0].metrics_url, "pid": started[0].pid,
            "folder": str(started[0].folder),
            "models": [pipeline.facts_of(archive) for archive in started[0].archives]}  # fmt: skip


@verb
def predict(
    files: Annotated[list[Path], typer.Argument(help="Images, or JSON requests for other models.")],
    url: UrlOption = SERVER,
    name: ServedName = None,
) -> Document:
    """Send images (or JSON requests) to a server and show what it makes of them."""
    with client_for(url, name) as client:
        answers = pipeline.predict(client, files)
    found = [{"file": str(file), **answer} for file, answer in zip(files, answers, strict=True)]
    show.predictions(found)
    return {"predictions": found, "exit_code": next((a["exit_code"] for a in answers if "exit_code" in a), 0)}


@verb
def status(port: PortOption = PORT) -> Document:
    """What the server on this port serves, and whether it answers its samples correctly; exit 8 when it does not."""
    found = _ready(port, show.status)
    return {"state": found.state, "message": found.message, "metrics_url": found.server and found.server.metrics_url,
            "models": [dataclasses.asdict(model) for model in found.models]}  # fmt: skip


@verb
def ready(port: PortOption = PORT) -> Document:
    """Exit 0 when the server answers its samples correctly, else 8, without a word: for a container's probe."""
    _ready(port)
    return {"ready": True}


def _ready(port: int, see: Callable[[readiness.Status], None] = lambda found: None) -> readiness.Status:
    found = readiness.status(port)
    see(found)
    if not found.ready:
        raise ServingError(f"port {port}: {found.message}", "Start a server with `deploypipe serve`.")
    return found


@verb
def deploy(
    archive: Annotated[Path, typer.Argument(help="A .mar file, or the name of one in the server's model store.")],
    port: PortOption = PORT,
    keep: Annotated[bool, typer.Option("--keep", help="Serve the version that it replaces, too.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to load it.")] = 120.0,
    drain: Annotated[float, typer.Option(help="Seconds for the replaced version to finish.")] = 60.0,
) -> Document:
    """Load an archive into the running server, prove it, make it the default, and unload the version before it."""
    done = deployment.deploy(archive, port, keep=keep, timeout=timeout, drain=drain)
    show.deployment(done)
    if done.state == "deployed" and done.previous and not done.removed and not keep:
        show.warn(f"{done.previous} had requests for {drain:g} s on end, and stays served")
    at = [] if port == PORT else ["--port", str(port)]
    show.next_commands(["status", *at])
    return {**pipeline.facts_of(done.archive), "state": done.state, "previous": done.previous, "removed": done.removed}


@verb
def stop(port: PortOption = PORT, drain: DrainOption = server.DRAIN) -> Document:
    """End the server that `serve` started, and everything it started, once what it accepted is answered."""
    done = server.stop(port, drain=drain)
    show.out.print(f"stopped {done.server.url} (process {done.server.pid})")
    if not done.drained:
        show.warn("requests that were under way may have been cut off")
    return {"url": done.server.url, "pid": done.server.pid, "drained": done.drained}


@functools.partial(verb, within=benches, name="train")
def bench_train(
    model: ModelSetting = None,
    data: DataSetting = None,
    data_dir: DataDir = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    seeds: Annotated[int, typer.Option(help="How many trainings, each with its own.")] = 5,
    target: Annotated[float, typer.Option(help="Test accuracy whose time is taken.")] = 0.99,
    device: DeviceSetting = None,
) -> Document:
    """Time to 99 % over several seeds, images a second, peak memory, and where the time goes."""
    given = {"model": model, "data": data, "data_dir": _text(data_dir), "device": device}
    found = bench.time_training(
        configure(recipe, config, set or [], given), seeds=seeds, target=target, report=show.seed_done, warn=show.warn
    )
    show.training_times(found)
    return found.to_json()


@functools.partial(verb, within=benches, name="serve")
def bench_serve(
    url: UrlOption = SERVER,
    name: ServedName = None,
    connections: Annotated[
        str | None, typer.Option(help="Closed loops: each asks again when answered. [default: 1,8,64]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loops: arrivals a second. [default: 20 to 80 % of the best closed one]")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each load, after a second of warm-up.")] = 5.0,
    images_per_request: Annotated[int, typer.Option(help="1: a PNG a request; more: a NumPy array.")] = 1,
    mar: Annotated[Path | None, typer.Option(help="What is served, where `serve` did not start the server.")] = None,
    out: Annotated[Path, typer.Option(help="The figures; a picture goes beside it.")] = ROOT / "bench-serve.json",
) -> Document:
    """Latencies, throughput and errors of a server under load, and what it takes for it."""
    loads, archive = bench.parse_loads(connections, rate), read_archive(mar) if mar else None
    found = bench.time_serving(
        url, name, loads, images_per_request=images_per_request, seconds=seconds, archive=archive, report=show.load_done
    )
    document, picture = bench.write_serving(found, out)
    show.serving_times(found)
    show.note(f"Figures: {document}, picture: {picture}")
    return {**found.to_json(), "picture": str(picture)}


@verb
def models(
    name: Annotated[str | None, typer.Argument(help="One network: its layers.")] = None,
) -> Document:
    """The networks of the zoo, with parameter counts; with a name, its layers."""
    if name is not None:
        text = pipeline.layers_of(name)
        show.out.print(text, markup=False)
        return {"model": name, "layers": text}
    counts = {key: sum(p.numel() for p in entry.build().parameters()) for key, entry in MODELS.items()}
    show.listing(
        ("model", "parameters", "what it is", "trains on"),
        [(key, f"{counts[key]:,}", entry.summary, ", ".join(entry.datasets) or "–") for key, entry in MODELS.items()],
    )
    show.next_commands(["models", "cnn"], ["train", "--model", "cnn"])
    return {"models": [{"name": key, "parameters": counts[key], "summary": entry.summary,
                        "datasets": list(entry.datasets)} for key, entry in MODELS.items()]}  # fmt: skip


@verb
def datasets(data_dir: DataDir = None) -> Document:
    """The datasets, and which are on this machine."""
    folder = data.data_folder(data_dir)
    rows = [(name, source.summary, source.is_present(folder)) for name, source in data.DATASETS.items()]
    show.listing(
        ("dataset", "what it is", "here"), [(name, what, "yes" if here else "no") for name, what, here in rows]
    )
    show.note(f"Data folder: {folder}")
    return {"folder": str(folder), "datasets": [{"name": n, "summary": what, "here": here} for n, what, here in rows]}


@verb
def formats() -> Document:
    """The formats an artifact can have."""
    show.listing(("format", "suffix", "carries"), [(f.name, f.suffix, f.carries) for f in FORMATS.values()])
    return {"formats": [{"name": f.name, "suffix": f.suffix, "carries": f.carries} for f in FORMATS.values()]}


@verb
def doctor_(data_dir: DataDir = None) -> Document:
    """What this machine has and lacks; exit 1 when `deploypipe run` could not work."""
    checks = doctor.examine(data_dir)
    marks = {True: "yes", False: "no"}
    show.listing(("check", "ok", "found"), [(c.name, marks[c.ok] if c.need == doctor.NEEDED or c.ok else "–", c.found)
                                            for c in checks])  # fmt: skip
    lacking = [check for check in checks if check.need == doctor.NEEDED and not check.ok]
    for check in lacking:
        show.err.print(f"error: {check.name}: {check.found}", style="red", markup=False)
    if not lacking:
        show.next_commands(["run"])
    return {"checks": [dataclasses.asdict(check) for check in checks], **({"exit_code": 1} if lacking else {})}


def _at(run: Run) -> list[str]:
    """The option that names this run, where the default would not find it."""
    return [] if run.folder.resolve().parent == ROOT.resolve() else ["--run", str(run.folder)]


def _refuse(what: str, options: Mapping[str, Any]) -> None:
    """UsageError for options that this form of the command would ignore."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} is for {what}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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
