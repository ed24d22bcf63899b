"""`doctor`: what this machine has and lacks."""

import dataclasses

from deploypipe.commands import options
from deploypipe.commands.output import Document, error, listing, next_commands


def doctor(data_dir: options.DataDir = None) -> Document:
    """What this machine has and lacks; exit 1 when `deploypipe run` could not work."""
    from deploypipe.doctor import NEEDED, examine

    checks = examine(data_dir)
    marks = {True: "yes", False: "no"}
    listing(("check", "ok", "found"), [(c.name, marks[c.ok] if c.need == NEEDED or c.ok else "–", c.found)
                                       for c in checks])  # fmt: skip
    lacking = [check for check in checks if check.need == NEEDED and not check.ok]
    for check in lacking:
        error(f"{check.name}: {check.found}")
    if not lacking:
        next_commands(["run"])
    return {"checks": [dataclasses.asdict(check) for check in checks], **({"exit_code": 1} if lacking else {})}
