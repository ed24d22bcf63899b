"""Verify through the stack, without a server: what cannot be asked is an error of its own, not a difference."""

from pathlib import Path

import pytest
import torch
from torch import nn

from deploypipe.contract.run import Run
from deploypipe.errors import DeploypipeError, PackageError, ServingError, UsageError
from deploypipe.verification import Subjects, verify_module, verify_run

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("subjects", "error", "says"),
    [
        (Subjects(archive=Path("no.mar")), PackageError, "no archive at no.mar"),
        (Subjects(url=NOWHERE), UsageError, "which model of"),
        (Subjects(url=NOWHERE, name="m"), ServingError, f"no server at {NOWHERE}"),
    ],
    ids=["no archive", "no name", "no server"],
)
def test_what_cannot_be_asked(digits_run: Run, subjects: Subjects, error: type[DeploypipeError], says: str) -> None:
    with pytest.raises(error, match=says):
        verify_run(digits_run, subjects)
    assert not digits_run.parity.exists()


def test_what_a_strangers_model_takes_must_be_said() -> None:
    with pytest.raises(UsageError, match="was not started here"):
        verify_module(nn.Identity(), (torch.rand(2),), Subjects(url=NOWHERE, name="m"))
