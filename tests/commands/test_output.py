from pathlib import Path

import pytest

from deploypipe.commands import output
from deploypipe.commands.train import show_run
from deploypipe.contract.run import Run
from deploypipe.train import TrainConfig, train


def test_a_folders_name_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_run(Run(Path("x[/y]:cat:"), train(TrainConfig(model="dynamic-branch"), tmp_path).document))
    output.listing(("[bold]",), [("[red]cell",)])
    shown = capsys.readouterr().out
    assert "x[/y]:cat:" in shown and "[bold]" in shown and "[red]cell" in shown
    with output.out.capture() as plain:
        output.out.print(output.verdict(True))
    assert plain.get() == "passed\n"
