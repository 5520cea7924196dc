"""Lightning goes on from an average that was written into its own file.

Run it in an environment with lightning 2.6.6, torch 2.13.0 and warmkit:
`python tests/data/averages_inside/lightning_goes_on.py`. It fails where what Lightning has loaded is not the float64 mean of
what it had saved, in weights and moments, or where training does not go on at the newest step.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import warmkit


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 2))

    def training_step(self, batch: Any, place: int) -> torch.Tensor:
        return (self.net(batch) - 1).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class Watch(lightning.Callback):
    """Keeps what training begins with."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.step, self.weights = trainer.global_step, copy.deepcopy(module.state_dict())
        self.moments = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])


def fit(home: Path, epochs: int, callbacks: list[Any], start: Path | None = None) -> lightning.Trainer:
    data = torch.utils.data.DataLoader(torch.linspace(-1, 1, 48).reshape(12, 4), batch_size=3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=callbacks, default_root_dir=home, **quiet)
    trainer.fit(Module(), data, ckpt_path=start, weights_only=True)
    return trainer


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saver = ModelCheckpoint(folder / "run", "{step}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
        fit(folder, 3, [saver])
        files = sorted((folder / "run").glob("*.ckpt"), key=lambda file: int(file.stem.partition("=")[2]))
        print(", ".join(file.name for file in files))
        warmkit.average(files, folder / "out", allow_pickle=True, container="same", optimizer="average")
        warmkit.verify(folder / "out")
        watch = Watch()
        trainer = fit(folder, 5, [watch], folder / "out" / files[-1].name)
        saved = [torch.load(file, weights_only=True) for file in files]
        for key, found in watch.weights.items():
            wanted = torch.stack([each["state_dict"][key].double() for each in saved]).mean(dim=0)
            torch.testing.assert_close(found.double(), wanted, rtol=2**-23, atol=1e-12)
        for number, state in watch.moments.items():
            for key in ("exp_avg", "exp_avg_sq"):
                rows = [each["optimizer_states"][0]["state"][number][key].double() for each in saved]
                torch.testing.assert_close(state[key].double(), torch.stack(rows).mean(dim=0), rtol=2**-23, atol=1e-12)
        assert watch.step == saved[-1]["global_step"]
        assert trainer.global_step == watch.step + 8
        print(f"loaded as the mean of {len(files)} at step {watch.step}; training went on to step {trainer.global_step}")


if __name__ == "__main__":
    main()
