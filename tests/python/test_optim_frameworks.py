"""The optimizers inside Accelerate and Lightning: the same bits as a plain loop.

Skipped where these packages are not installed: ``pip install accelerate lightning``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchext.optim import HALP, SVRG, full_gradient_closures

EPOCHS, BATCHES = 3, 5
NAMES = ["HALP", "SVRG"]
loss_fn = nn.functional.mse_loss


def parts() -> tuple[nn.Module, DataLoader[tuple[Tensor, ...]]]:
    """A small net, and 36 examples in batches of 8 (the last one of 4)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(36, 5, generator=generator)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(36, 1, generator=generator)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, DataLoader(TensorDataset(x, y), 8)


def make(name: str, model: nn.Module) -> Any:
    kind: Any = {"HALP": HALP, "SVRG": SVRG}[name]
    return kind(model.parameters(), 0.05, 2 * BATCHES, seed=7)


def state_of(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def plain(name: str) -> list[Tensor]:
    """Weights after the loop of the documentation."""
    model, loader = parts()
    opt = make(name, model)
    for _ in range(EPOCHS):
        for x, y in loader:
            if opt.needs_recenter:
                opt.recenter(full_gradient_closures(model, loss_fn, loader))

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                opt.zero_grad()
                loss: Tensor = loss_fn(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            opt.step(closure)
    return state_of(model)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("closures", [True, False])
def test_accelerate(name: str, closures: bool) -> None:
    """Prepared by Accelerate, which loads the state before the first step; with closures or without."""
    accelerate = pytest.importorskip(
        "accelerate", reason="pip install accelerate", exc_type=ImportError
    )
    model, loader = parts()
    opt = make(name, model)
    accelerator = accelerate.Accelerator(cpu=True)
    model, prepared, batches = accelerator.prepare(model, opt, loader)

    def backward(x: Tensor, y: Tensor) -> Tensor:
        prepared.zero_grad()
        loss: Tensor = loss_fn(model(x), y)
        accelerator.backward(loss)
        return loss

    for _ in range(EPOCHS):
        for x, y in batches:
            if opt.needs_recenter:
                opt.recenter(full_gradient_closures(model, loss_fn, loader))
            if closures:
                prepared.step(lambda x=x, y=y: backward(x, y))
                continue
            with opt.at_centre():
                backward(x, y)
            backward(x, y)
            prepared.step()
    assert opt.param_groups[0]["global_step"] == EPOCHS * BATCHES
    for a, b in zip(state_of(model), plain(name), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_lightning(name: str, tmp_path: Path) -> None:
    """Automatic optimization: the trainer makes the closure, a hook moves the centre."""
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="pip install lightning", exc_type=ImportError
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loader = parts()

        def configure_optimizers(self) -> Any:
            return make(name, self.model)

        def on_train_batch_start(self, batch: Any, index: int) -> None:
            opt = self.optimizers(use_pl_optimizer=False)
            if opt.needs_recenter:
                opt.recenter(full_gradient_closures(self.model, loss_fn, self.loader))

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return loss_fn(self.model(batch[0]), batch[1])

    net = Net()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(net, net.loader)
    for a, b in zip(state_of(net.model), plain(name), strict=True):
        assert torch.equal(a, b)
