"""``python -m training.char_lstm``: a character LSTM on TinyShakespeare by SGD, SVRG and low-precision kin.

An example is a window of ``--length`` characters, each to be followed by the next one, read from a zero
state; the windows of the training text do not overlap. Losses are in nats per character.

All methods start from the same weights and see the same batches. SVRG, LP-SVRG and HALP evaluate two
gradients a step and a full one per centre, so an epoch costs them three or four of SGD's; the column
``gradient_epochs`` counts. Weights of every tensor, the embedding included, are low-precision iterates.

    python -m training.char_lstm --preset cpu --seeds 0 1 2 --out runs/char_lstm --plot char_lstm.png
    timeout -s TERM 580 python -m training.char_lstm --out runs/char_lstm --resume    # in pieces
    torchrun --nproc-per-node 2 -m training.char_lstm --methods sgd halp-8            # several processes
    python -m training.char_lstm --preset full --device cuda

``--preset cpu`` is a REDUCED problem: half the width, a quarter of the text, 2 epochs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from training import data
from training.common import comparison
from training.common.deep import add_training, deep_config, report
from training.common.methods import Method, Settings
from training.common.runs import Row
from training.common.trainer import Batch, Schedule, Trainer, measure
from training.models import CharLSTM

METHODS = ("sgd", "momentum", "svrg", "lp-sgd-8", "lp-svrg-8", "halp-8", "halp-4")


class Windows:
    """Windows of a text that do not overlap; the last characters that fill none are left out."""

    def __init__(self, ids: Tensor, length: int, device: torch.device) -> None:
        count = (len(ids) - 1) // length
        if count < 1:
            raise data.DataError(f"a text of {len(ids)} characters has no window of {length} + 1")
        self.x = ids[: count * length].view(count, length).to(device)
        self.y = ids[1 : count * length + 1].view(count, length).to(device)

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, rows: Tensor, noise: torch.Generator | None) -> Batch:
        """Some windows and the characters that follow; there is no augmentation."""
        rows = rows.to(self.x.device)
        return self.x[rows], self.y[rows]


@dataclass(frozen=True)
class Preset:
    """Size of the net, the text and the training."""

    embedding: int
    hidden: int
    length: int
    characters: int
    schedule: Schedule
    settings: dict[str, Settings]


def _settings(lr: float) -> dict[str, Settings]:
    """Chosen by a coarse grid on the CPU preset with seeds 100 to 102; the full one is not tuned."""
    base = Settings(lr=lr, headroom=4.0)
    return {
        "default": base,
        "momentum": replace(base, lr=lr / 10),
        "halp": replace(base, mu=0.35),
        "halp-4": replace(base, mu=4.0),
        "bit-centred": replace(base, mu=0.35),
    }


PRESETS = {
    "cpu": Preset(
        32, 64, 50, 250_000, Schedule(epochs=2, batch=20, centre_every=0.5), _settings(4.0)
    ),
    "full": Preset(
        128, 128, 50, 10**9, Schedule(epochs=50, batch=50, centre_every=0.125), _settings(4.0)
    ),
}


def main(arguments: list[str] | None = None) -> comparison.Results:
    """Trains, prints the table and draws."""
    p = comparison.parser(__doc__ or "", METHODS, "runs/char_lstm")
    comparison.add_data(p)
    add_training(p, PRESETS)
    p.add_argument("--embedding", type=int, metavar="N", help="numbers per character")
    p.add_argument("--hidden", type=int, metavar="N", help="width of the two LSTM layers")
    p.add_argument("--length", type=int, metavar="N", help="characters of a window")
    p.add_argument(
        "--characters", type=int, metavar="N", help="use the first N of the training text"
    )
    options = p.parse_args(arguments)
    preset = PRESETS[options.preset]
    given = {k: getattr(options, k) for k in ("embedding", "hidden", "length", "characters")}
    preset = replace(preset, **{k: v for k, v in given.items() if v is not None})
    with (
        comparison.one_sentence("training.char_lstm"),
        comparison.devices(options.device) as device,
    ):
        text = data.shakespeare(data.data_root(options.data))
        train = Windows(text.train[: preset.characters], preset.length, device)
        validation = Windows(text.validation, preset.length, device)

        def evaluate(model: nn.Module) -> Row:
            train_loss, _ = measure(model, train, 200)
            loss, accuracy = measure(model, validation, 200)
            return {
                "train_loss": train_loss,
                "validation_loss": loss,
                "validation_accuracy": accuracy,
            }

        methods = [Method.parse(name) for name in options.methods]
        resolved = deep_config(options, asdict(preset), preset.schedule, preset.settings)

        def make(method: Method, seed: int) -> Trainer:
            torch.manual_seed(seed)
            model = CharLSTM(len(text.vocabulary), preset.embedding, preset.hidden).to(device)
            settings, schedule = resolved.of(method)
            return Trainer(model, train, evaluate, method, settings, schedule, seed)

        results = comparison.run_all(options, methods, resolved.config, make)
        report(results, options, f"Character LSTM on TinyShakespeare, {options.preset}",
               "validation_loss", "validation loss (nats per character)", min)  # fmt: skip
    return results


if __name__ == "__main__":
    main()
