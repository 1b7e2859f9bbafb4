"""Scripts in the style of torchhalp: the loader in the optimizer, closures that take a batch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from torchext import optim
from torchext.compat import torchhalp


def data(n: int = 50, batch: int = 16) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=g)
    y = x @ torch.arange(5.0)[:, None] + 0.1 * torch.randn(n, 1, generator=g)
    return list(zip(x.split(batch), y.split(batch), strict=True))  # the last batch is smaller


def train(make: Any, epochs: int) -> tuple[list[float], nn.Module, Any, list[int]]:
    """The loop of such a script."""
    torch.manual_seed(1)
    model, loader = nn.Linear(5, 1), data()
    optimizer = make(model.parameters(), loader)
    losses, calls = [], []
    for _ in range(epochs):
        for current, wanted in loader:

            def closure(data: Any = current, target: Any = wanted) -> torch.Tensor:
                calls.append(len(target))
                loss = nn.functional.mse_loss(model(data), target)
                loss.backward()
                return loss

            optimizer.zero_grad()
            losses.append(optimizer.step(closure).item())
    return losses, model, optimizer, calls


MAKERS = {
    "SVRG": lambda p, loader: torchhalp.SVRG(p, lr=0.05, T=4, data_loader=loader),
    "HALP": lambda p, loader: torchhalp.HALP(
        p, lr=0.05, T=4, data_loader=loader, mu=2, bits=8, opt=torch.optim.SGD
    ),
    "decay": lambda p, loader: torchhalp.HALP(
        p, 0.05, 4, loader, weight_decay=1e-3, momentum=0.5, mu=2, unbiased=True
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_script_runs(name: str) -> None:
    losses, _, optimizer, calls = train(MAKERS[name], 20)
    assert sum(losses[-4:]) < 0.05 * sum(losses[:4])
    assert len(calls) == 20 * (4 + 2 * 4)  # the loader at each centre, two calls a step
    assert calls[:6] == [16, 16, 16, 2, 16, 16]
    assert optimizer.param_groups[0]["epoch"] == 20
    assert len(optimizer.state_dict()["state"]) == 2


def test_the_full_gradient_weighs_samples_not_batches() -> None:
    _, model, optimizer, _ = train(MAKERS["SVRG"], 1)
    x, y = (torch.cat(part) for part in zip(*data(), strict=True))
    center = nn.Linear(5, 1)
    with torch.no_grad():
        for p, q in zip(center.parameters(), model.parameters(), strict=True):
            p.copy_(optimizer.state[q]["center"])
    nn.functional.mse_loss(center(x), y).backward()
    for p, q in zip(center.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[q]["full_grad"], p.grad)


def test_it_is_the_optimizer_of_the_package() -> None:
    optimizer = train(MAKERS["HALP"], 1)[2]
    assert isinstance(optimizer, optim.HALP)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match="nearest"):
        rounded = torchhalp.HALP([nn.Parameter(torch.zeros(1))], 0.1, 1, [], biased=True)
    assert rounded.param_groups[0]["rounding"] == "nearest"


def test_only_sgd() -> None:
    with pytest.raises(ValueError, match=r"opt=Adam: the adapter supports torch.optim.SGD only"):
        torchhalp.SVRG([nn.Parameter(torch.zeros(1))], 0.1, 1, [], opt=torch.optim.Adam)


def test_copies_and_pickles() -> None:
    optimizer = train(MAKERS["HALP"], 1)[2]
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other.param_groups[0]["global_step"] == 4
        assert other.data_loader == ()
    plain = optim.HALP([nn.Parameter(torch.zeros(1, 5)), nn.Parameter(torch.zeros(1))], 0.1, 4)
    plain.load_state_dict(optimizer.state_dict())
