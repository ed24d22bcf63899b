"""The chain of proof from weights to server. Travels inside archives.

An artifact carries inside what it takes and gives, the sha256 of its weights, and its seal: that it was proven, and the
digest of what its sidecar says of that. The sidecar says the same, and the artifact's sha256. A file that was changed,
exchanged or taken from elsewhere breaks a link.
"""

from collections.abc import Mapping
from typing import Any

from .formats.base import Runner, digest_of

PASSED = "passed"


def broken_link(sidecar: Mapping[str, Any], artifact: Runner) -> str:
    """Why `artifact`, whose bytes are those that its sidecar names, is not the one that was proven; "" when it is."""
    parity, seal = sidecar["parity"], artifact.seal
    for where, verdict in (("its sidecar", parity.get("verdict")), ("its own seal", seal.get("verdict"))):
        if verdict != PASSED:
            return f"the verdict in {where} is {verdict!r}" if verdict else f"{where} has no parity verdict"
    if seal.get("sha256") != digest_of(parity):
        return "its own seal is for another proof than its sidecar's"
    if artifact.metadata.get("signature") != {key: sidecar[key] for key in ("inputs", "outputs", "structure")}:
        return "its own signature is not its sidecar's"
    for where, precision in (("its own", artifact.precision), ("its proof's", parity.get("precision", ""))):
        if precision != sidecar.get("precision", ""):
            return f"{where} precision is {precision or 'eager'}, its sidecar's {sidecar.get('precision') or 'eager'}"
    own = artifact.metadata.get("provenance", {}).get("weights_sha256")
    if own != sidecar["provenance"].get("weights_sha256"):
        return f"it was written from other weights (sha256 {own}) than its sidecar says"
    return ""
