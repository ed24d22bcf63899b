"""Whether a file is the one that its sidecar describes, and was written from the weights that it is compared with."""

from pathlib import Path

from deploypipe.contract.seal import broken_link
from deploypipe.contract.sidecar import sidecar_of
from deploypipe.errors import DeploypipeError
from deploypipe.formats.reading import read_artifact
from deploypipe.formats.runner import Runner
from deploypipe.parity.verdict import Finding

CHECK = "provenance"


def check_provenance(path: Path, runner: Runner, weights_sha256: str | None) -> Finding:
    """`weights_sha256`: of the run; None where only the file and its sidecar can be held against each other."""
    if not sidecar_of(path).exists():
        return Finding(CHECK, True, "no sidecar, nothing is claimed")
    try:
        facts = read_artifact(path)
    except DeploypipeError as cause:
        return Finding(CHECK, False, cause.message)
    if problem := broken_link(facts.to_json(), runner):
        return Finding(CHECK, False, problem)
    own = facts.provenance.get("weights_sha256")
    if weights_sha256 is not None and own != weights_sha256:
        return Finding(CHECK, False, f"written from other weights (sha256 {own}) than this run's ({weights_sha256})")
    return Finding(CHECK, True, f"proven as it is, from weights of sha256 {str(own)[:12]}…")
