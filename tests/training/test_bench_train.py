import dataclasses
import json
from pathlib import Path

import pytest
from small import small
from typer.testing import CliRunner

from deploypipe.bench import time_training
from deploypipe.cli import app
from deploypipe.errors import UsageError
from deploypipe.train import train

SMALL = small(epochs=4, average=0.9)


def test_the_time_to_an_accuracy_and_where_it_goes() -> None:
    done = []
    found = time_training(SMALL, seeds=2, target=0.6, on_seed=done.append)
    assert [row.seed for row in found.seeds] == [0, 1] == [row.seed for row in done]
    for row in found.seeds:
        assert row.seconds_to_target is not None and 0 < row.seconds_to_target <= row.seconds + 1e-3
        assert 0.6 < row.accuracy < 1
    assert found.to_json()["seconds_to_target"]["min"] == min(row.seconds_to_target for row in found.seeds)
    # Measuring is no part of it.
    assert {"load", "setup", "train", "evaluate", "write"} <= set(found.phases) and "evaluations" not in found.phases
    assert sum(found.phases.values()) == pytest.approx(1) and 0 < found.phases["train"] < 1
    assert found.images_per_second > 0 and 2**26 < found.peak_memory < 2**36


def test_what_is_never_reached_has_no_time() -> None:
    found = time_training(dataclasses.replace(SMALL, epochs=0.5), seeds=1, target=1.0)
    assert found.seeds[0].seconds_to_target is None and found.spread is None


def test_watching_changes_no_weight(tmp_path: Path) -> None:
    seen: list[float | None] = []
    watched = train(SMALL, tmp_path / "a", on_evaluation=lambda seconds, found: seen.append(found.accuracy))
    assert len(seen) >= 10
    assert watched.document["weights_sha256"] == train(SMALL, tmp_path / "b").document["weights_sha256"]
    # The last look is at what is kept, the average.
    assert seen[-1] == watched.document["metrics"]["accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "0 seeds"),
        ({"target": 99.0}, "an accuracy of 99.0"),
        ({"model": "linear-regression", "data": "line"}, "has no accuracy"),
        ({"model": "dynamic-branch", "data": "auto", "epochs": None}, "is not trained"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_timed_is_refused(options: dict[str, object], message: str) -> None:
    settings = {name: options.pop(name) for name in list(options) if name in ("model", "data", "epochs")}
    with pytest.raises(UsageError, match=message):
        time_training(dataclasses.replace(SMALL, **settings), **({"seeds": 1} | options))  # type: ignore[arg-type]


def test_the_verb_shows_it() -> None:
    argv = ["bench", "train", "--model", "mlp", "--data", "digits", "--set", "epochs=1", "--seeds", "1"]
    table = CliRunner().invoke(app, [*argv, "--target", "0.01"])
    assert table.exit_code == 0 and "seconds to 1.0%" in table.stdout and "images per second" in table.stdout
    document = json.loads(CliRunner().invoke(app, [*argv, "--json"]).stdout)
    assert document["model"] == "mlp" and document["seconds_to_target"] is None
