import pytest
import torch

from deploypipe.contract.run import Run
from deploypipe.data import Split, dataset_of
from deploypipe.evaluate import evaluate
from deploypipe.formats.reading import load
from deploypipe.models.trained import load_trained

TRUE = torch.tensor([0, 0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 0, 1, 1, 1, 1])


def test_metrics_of_a_known_confusion() -> None:
    logits = torch.nn.functional.one_hot(PREDICTED, 3).float()
    found = evaluate(lambda batch: logits, Split(torch.zeros(6, 1), TRUE))
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.confusion == ((2, 1, 0), (0, 2, 0), (0, 1, 0))
    assert found.recall == pytest.approx((2 / 3, 1.0, 0.0))
    assert found.precision == pytest.approx((1.0, 0.5, 0.0))


def test_a_regression_has_an_error_instead() -> None:
    found = evaluate(lambda batch: batch + 0.5, Split(torch.zeros(4, 1), torch.zeros(4, 1)))
    assert found.accuracy is None and found.mean_squared_error == 0.25
    assert set(found.to_json()) == {"examples", "mean_squared_error"}


def test_artifacts_score_what_the_eager_model_scores(digits_run: Run) -> None:
    dataset = dataset_of(digits_run)
    assert dataset is not None
    eager = evaluate(load_trained(digits_run), dataset.test)
    assert eager.accuracy == digits_run.document["metrics"]["accuracy"]
    for path in digits_run.artifacts():
        assert evaluate(load(path), dataset.test).confusion == eager.confusion
