"""Package: a proven artifact, what serves it and its samples become one archive, with names and runs filled in."""

from pathlib import Path

from deploypipe.archives.pack import build_archive as build_archive
from deploypipe.contract.archive import Archive
from deploypipe.contract.run import Run, folder_of, run_of
from deploypipe.errors import PackageError, ParityError
from deploypipe.formats import FORMATS
from deploypipe.formats.reading import read_artifact
from deploypipe.quantize import TARGET as ROUNDED


def package(
    artifact: Path | None = None,
    folder: Path | None = None,
    name: str | None = None,
    version: str = "1.0",
    store: Path = Path("model_store"),
) -> Archive:
    """The archive of an artifact, or of the run's first one in the order of preference for serving. With a run, which
    is the one that the artifact lies in unless `folder` says another, its weights must be that run's."""
    opened = None
    if artifact is None or folder is not None or folder_of(artifact):
        opened = run_of(folder, artifact)
        artifact = artifact or _preferred(opened)
    name = name or _name(artifact)
    return build_archive(artifact, name, version, store, trained=opened)


def _name(artifact: Path) -> str:
    """That of the network; what is rounded is named as such."""
    try:
        facts = read_artifact(artifact, PackageError)
    except ParityError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    model = facts.provenance.get("model") or facts.path.name.partition(".")[0]
    return "-".join(filter(None, (model, facts.precision)))


def _preferred(opened: Run) -> Path:
    """ONNX first: the fastest on a CPU. What is not eager's equal is taken only if it is named."""
    there = [path for path in opened.artifacts() if path.name != ROUNDED]
    for format in ("onnx", *FORMATS):
        for path in there:
            if path.suffix == FORMATS[format].suffix:
                return path
    raise PackageError(f"{opened.folder} has no artifact to package", "Write one: `deploypipe export --format onnx`.")
