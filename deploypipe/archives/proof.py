"""What must be proven of an artifact before it is packed, and what its server must answer."""

from pathlib import Path

from deploypipe.contract.protocol import uncarried
from deploypipe.contract.run import Run
from deploypipe.contract.seal import broken_link
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION, image_shape
from deploypipe.errors import PackageError, ParityError, TrainingError
from deploypipe.formats.reading import inspect_artifact, read_artifact, read_session
from deploypipe.formats.torch_session import to_tensor
from deploypipe.models.trained import load_trained
from deploypipe.parity.file_structure import check_structure
from deploypipe.parity.standards import standard_of


def proven(path: Path, trained: Run | None) -> Artifact:
    again = "Write it anew with `deploypipe export`."
    try:
        facts = read_artifact(path, PackageError)
        problem = broken_link(facts.to_json(), read_session(path))
    except ParityError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    if problem:
        raise PackageError(f"{path} is not proven equal to the trained model: {problem}", again)
    if facts.samples is None:
        raise PackageError(
            f"{path} carries no sample that a server could prove itself with",
            "Export it with a first probe of fewer bytes.",
        )
    if trained is not None:
        _check_weights(facts, trained, again)
    if problem := uncarried(facts.signature):
        raise PackageError(f"{path} cannot be served: {problem}")
    if facts.task == IMAGE_CLASSIFICATION:
        try:
            image_shape(facts.signature)
        except ValueError as cause:
            raise PackageError(f"{path} cannot be served: {cause}") from cause
    return facts


def _check_weights(facts: Artifact, trained: Run, again: str) -> None:
    """By what the artifact says of them, and by the tensors in its file: neither alone would notice every exchange."""
    weights = facts.provenance.get("weights_sha256")
    if weights != trained.document["weights_sha256"]:
        raise PackageError(f"{facts.path} was not written from this run's weights (sha256 {weights})", again)
    try:
        found = check_structure(
            load_trained(trained), inspect_artifact(facts.path), facts.signature, standard_of(facts.precision)
        )
    except TrainingError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    for finding in found:
        if not finding.passed:
            raise PackageError(f"{facts.path} is not this run's model: {finding.check}: {finding.detail}", again)


def tolerances(facts: Artifact) -> list[tuple[float, float]]:
    """Other machines have other kernels, which sum in another order, whatever the runtime."""
    outputs = facts.samples.outputs if facts.samples else ()
    allowed = standard_of(facts.precision).on_another_machine([to_tensor(output) for output in outputs])
    return [(row.atol, row.rtol) for row in allowed]
