"""Makes the files of this folder: state dicts of a model and its average in one file, as each library saves them.

Run it with torch 2.13.0, lightning 2.6.6, ema-pytorch 0.8.3, timm 1.0.31 and schedulefree 1.4.1, from anywhere:
`python tests/data/averages_inside/make.py`. `NAME.said.safetensors` beside a file holds what the library itself takes out of
it: `average.*` the average, `live.*` the weights that training goes on from. For schedule-free optimizers these are x and y.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lightning
import schedulefree
import torch
from ema_pytorch import EMA
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from safetensors.torch import save_file
from timm.models import load_state_dict
from timm.utils import CheckpointSaver, ModelEmaV3

HERE = Path(__file__).parent


def model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 2))


def train(learner: torch.nn.Module, optimizer: Any, steps: int = 5, after: Any = lambda: None) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        (learner(torch.linspace(-1, 1, 12).reshape(3, 4) * (step + 1)) - 1).square().mean().backward()
        optimizer.step()
        after()


def said(name: str, average: dict[str, torch.Tensor], live: dict[str, torch.Tensor]) -> None:
    both = {f"average.{key}": value for key, value in average.items()} | {f"live.{key}": value for key, value in live.items()}
    assert any(not torch.equal(both[f"average.{key}"], value) for key, value in live.items()), "the two must differ"
    save_file({key: value.detach().clone() for key, value in both.items()}, HERE / f"{name}.said.safetensors")


def with_ema_pytorch() -> None:
    learner = model()
    ema = EMA(learner, beta=0.9, update_after_step=0, update_every=1)
    train(learner, torch.optim.SGD(learner.parameters(), lr=0.1), after=ema.update)
    torch.save(ema.state_dict(), HERE / "ema_pytorch.pt")
    loaded = EMA(model(1), beta=0.9)
    loaded.load_state_dict(torch.load(HERE / "ema_pytorch.pt", weights_only=True))
    said("ema_pytorch", loaded.ema_model.state_dict(), loaded.online_model.state_dict())


class Module(lightning.LightningModule):
    """A model as Lightning trains it: its names start with that of an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.net = model()

    def training_step(self, batch: Any, place: int) -> torch.Tensor:
        return (self.net(batch) - 1).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def fit(folder: Path, callback: Any, module: Module) -> Path:
    data = torch.utils.data.DataLoader(torch.linspace(-1, 1, 48).reshape(12, 4), batch_size=3)
    saver = ModelCheckpoint(dirpath=folder, save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=4, callbacks=[callback, saver], **quiet).fit(module, data)
    return sorted(folder.glob("epoch=2*.ckpt"))[0]


def with_lightning() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = fit(Path(folder), EMAWeightAveraging(decay=0.8), Module())
        shutil.copy(path, HERE / "lightning_ema.ckpt")
    file = HERE / "lightning_ema.ckpt"
    average = Module.load_from_checkpoint(file).state_dict()  # what Lightning gives to whoever asks for the model
    resumed, callback = Module(), EMAWeightAveraging(decay=0.8)

    class Stop(lightning.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            found["live"] = copy.deepcopy(module.state_dict())
            found["average"] = copy.deepcopy(callback._average_model.module.state_dict())
            trainer.should_stop = True

    found: dict[str, Any] = {}
    data = torch.utils.data.DataLoader(torch.linspace(-1, 1, 48).reshape(12, 4), batch_size=3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_epochs=4, callbacks=[callback, Stop()], accelerator="cpu", **quiet)
    trainer.fit(resumed, data, ckpt_path=file, weights_only=True)
    assert all(torch.equal(found["average"][key], value) for key, value in average.items()), "state_dict is the average"
    said("lightning_ema", average, found["live"])


def with_lightning_swa() -> None:
    """Take a checkpoint of stochastic weight averaging while it runs: `state_dict` learns, the callback has the average."""
    with tempfile.TemporaryDirectory() as folder:
        callback = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
        path = fit(Path(folder), callback, Module())
        shutil.copy(path, HERE / "lightning_swa.ckpt")
    content = torch.load(HERE / "lightning_swa.ckpt", weights_only=True)
    found = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
    found._average_model = Module()
    found.load_state_dict(content["callbacks"]["StochasticWeightAveraging"])
    average = found._average_model.state_dict()
    live = Module.load_from_checkpoint(HERE / "lightning_swa.ckpt").state_dict()
    said("lightning_swa", average, live)


def with_timm() -> None:
    learner = model()
    ema = ModelEmaV3(learner, decay=0.9)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    train(learner, optimizer, after=lambda: ema.update(learner))
    with tempfile.TemporaryDirectory() as folder:
        saver = CheckpointSaver(
            learner, optimizer, args=argparse.Namespace(model="own", lr=0.1), model_ema=ema, checkpoint_dir=folder
        )
        saver.save_checkpoint(0)
        (path,) = Path(folder).glob("checkpoint-0.pth.tar")
        shutil.copy(path, HERE / "timm.pth.tar")
    average, live = (load_state_dict(HERE / "timm.pth.tar", use_ema=ema, weights_only=False) for ema in (True, False))
    said("timm", average, live)


def with_schedulefree() -> None:
    for mode in ("train", "eval"):
        learner = model()
        optimizer = schedulefree.AdamWScheduleFree(learner.parameters(), lr=0.05, warmup_steps=2)
        optimizer.train()
        train(learner, optimizer)
        live = copy.deepcopy(learner.state_dict())
        optimizer.eval()
        average = copy.deepcopy(learner.state_dict())
        getattr(optimizer, mode)()
        state = {"model": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": 5}
        torch.save(state, HERE / f"schedulefree_{mode}.pt")
    said("schedulefree", average, live)


if __name__ == "__main__":
    for each in (with_ema_pytorch, with_lightning, with_lightning_swa, with_timm, with_schedulefree):
        each()
