"""scikit-learn's own estimator checks; every exception is listed with its reason."""

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from torchext.linear import LogisticRegression, Ridge, SGDClassifier, SGDRegressor

WEIGHTS = (
    "rows are encoded once and visited in mini-batches, so repeating a row is not bit for bit the same as "
    "doubling its weight (scikit-learn's own SGD estimators have the same exception)"
)


def expected_failures(estimator):
    iterative = isinstance(estimator, SGDRegressor | SGDClassifier) and estimator.solver != "exact"
    return {"check_sample_weight_equivalence_on_dense_data": WEIGHTS} if iterative else {}


@parametrize_with_checks(
    [
        SGDRegressor(random_state=0),
        SGDRegressor(bits=2, random_state=0),
        SGDRegressor(bits=32, random_state=0),
        SGDRegressor(solver="exact"),
        SGDRegressor(solver="halp", random_state=0),
        SGDClassifier(random_state=0),
        SGDClassifier("log_loss", random_state=0),
        SGDClassifier("log_loss", solver="halp", random_state=0),
        SGDClassifier("log_loss", solver="svrg", random_state=0),
        # The checks compare to 1e-7, so these are solved to that.
        Ridge(tol=1e-12),
        Ridge(bits=2, tol=1e-12),
        LogisticRegression(tol=1e-12),
    ],
    expected_failed_checks=expected_failures,
)
def test_sklearn_check(estimator, check):
    check(estimator)
