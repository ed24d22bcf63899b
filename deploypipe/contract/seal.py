"""The proof that is carried from the weights to the server, and where it breaks. This module travels inside archives.

An artifact carries inside what it takes and returns, the sha256 of its weights, and its seal: that it was proven, and
the digest of what its sidecar says of that. The sidecar says the same, and the artifact's sha256. A file that was
changed, exchanged or taken from elsewhere contradicts one of them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from .signature import SIGNATURE_KEYS

PASSED = "passed"


class Sealed(Protocol):
    """An artifact that was read: what its file says of itself."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The signature, the provenance and the precision; empty for a file that deploypipe did not write."""

    @property
    def seal(self) -> Mapping[str, Any]:
        """{"verdict", "sha256"}: that it was proven, and the digest of its sidecar's parity; empty when it was not."""


def digest_of(parity: Mapping[str, Any]) -> str:
    """The sha256 of a sidecar's parity summary, by which a seal names it."""
    return hashlib.sha256(json.dumps(parity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def broken_link(sidecar: Mapping[str, Any], artifact: Sealed) -> str:
    """Why `artifact`, whose bytes are those that its sidecar names, is not the one that was proven; "" when it is.

    `sidecar` is the document as it is read from its file.
    """
    parity, seal, metadata = sidecar["parity"], artifact.seal, artifact.metadata
    for where, verdict in (("its sidecar", parity.get("verdict")), ("its own seal", seal.get("verdict"))):
        if verdict != PASSED:
            return f"the verdict in {where} is {verdict!r}" if verdict else f"{where} has no parity verdict"
    if seal.get("sha256") != digest_of(parity):
        return "its own seal is for another proof than its sidecar's"
    own_signature = {"limits": [], **metadata.get("signature", {})}
    if own_signature != {"limits": [], **{key: sidecar[key] for key in SIGNATURE_KEYS if key in sidecar}}:
        return "its own signature is not its sidecar's"
    wanted = sidecar.get("precision", "")
    for where, precision in (("its own", metadata.get("precision", "")), ("its proof's", parity.get("precision", ""))):
        if precision != wanted:
            return f"{where} precision is {precision or 'eager'}, its sidecar's {wanted or 'eager'}"
    own = metadata.get("provenance", {}).get("weights_sha256")
    if own != sidecar["provenance"].get("weights_sha256"):
        return f"it was written from other weights (sha256 {own}) than its sidecar says"
    return ""
