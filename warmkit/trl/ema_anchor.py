"""WARP's anchor in another trainer: its reference model follows the policy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from warmkit.errors import CheckpointError, MismatchError, UsageError
from warmkit.training.anchor import AdaptedAnchor, averaged, follow, learned
from warmkit.training.lora import adapted_layers
from warmkit.training.sharding import put_together, spread

FILE = Path("warmkit", "anchor.safetensors")  # in a folder of its own: beside a model, tensors count as part of it
OWN_ADAPTER = "ref"  # TRL's name for its copy of an adapter that was trained before


class EMAAnchor(TrainerCallback):
    """Callback that makes the reference model of a trainer follow the policy: WARP's anchor.

        ref <- (1 - mu) ref + mu policy   after every optimizer step, ref = where the trainer begins

    The sum is taken in float32 and written to the reference model in its own type; in bfloat16 it would stand still. It lies
    in every checkpoint of the trainer (`checkpoint-N/warmkit/anchor.safetensors`), and a run that is resumed goes on with it.
    Under LoRA a trainer has no reference model: it turns the adapters off, or a copy of them on. There the average stands, that
    of the matrices W + s B A that adapters stand for. Under FSDP2 each process moves its own shards.

    Args:
        trainer: A trainer of TRL with a reference model (RLOO, GRPO, DPO, KTO), or one like it: `ref_model`, or a peft model.
        mu: Share of the policy after an update, between 0 (the reference stands still) and 1 (the policy itself).

    Raises:
        UsageError: If the trainer has no reference model, moves it itself, or trains in a way in which it cannot be followed.

    Source: WARP (Ramé et al., 2024), section 3.1, equation (EMA), and algorithm 1, line 9.
    """

    def __init__(self, trainer: Any, mu: float = 0.01) -> None:
        if not 0 <= mu <= 1:
            raise UsageError(f"mu must be at least 0 and at most 1, found {mu}")
        _refuse(trainer)
        self.trainer, self.mu = trainer, mu
        self._anchor: _Reference | None = None
        self._resumed: Path | None = None
        self._watch_resuming()

    def _watch_resuming(self) -> None:
        """Note where `train` goes on from, which no event of a callback tells."""
        begin = self.trainer.train

        @functools.wraps(begin)
        def train(resume_from_checkpoint: str | bool | None = None, *more: Any, **options: Any) -> Any:
            output = self.trainer.args.output_dir
            found = get_last_checkpoint(output) if resume_from_checkpoint is True else resume_from_checkpoint
            self._resumed = Path(found) if found else None
            return begin(resume_from_checkpoint, *more, **options)

        self.trainer.train = train

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the reference as it is, or as the checkpoint has it.

        Args:
            args: The trainer's.
            state: The trainer's.
            control: The trainer's.
            **_: What else the trainer passes.
        """
        self._anchor = self._anchor or _reference(self.trainer)
        if self._resumed is not None:
            self._anchor.load(_read(self._resumed))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Follow the policy by one step.

        Args:
            args: The trainer's.
            state: The trainer's.
            control: The trainer's.
            **_: What else the trainer passes.
        """
        assert self._anchor is not None, "training began"
        self._anchor.update(self.mu)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the anchor into the checkpoint that was written.

        Args:
            args: The trainer's.
            state: The trainer's.
            control: The trainer's.
            **_: What else the trainer passes.
        """
        if args.save_only_model:
            return  # nothing resumes from it
        assert self._anchor is not None, "training began"
        weights = self.weights()
        if state.is_world_process_zero:
            _write(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE, weights)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the anchor as it is, float32, whole; under LoRA what it adds to each adapted matrix.

        Every process must call it.

        Raises:
            UsageError: If training has not begun.
        """
        if self._anchor is None:
            raise UsageError("the anchor begins with training; call train first")
        return {name: put_together(each).to("cpu", copy=True) for name, each in self._anchor.copies.items()}


class _Reference(Protocol):
    """What a trainer takes for its reference, in float32."""

    copies: dict[str, torch.Tensor]

    def update(self, mu: float) -> None: ...

    def load(self, state: Mapping[str, torch.Tensor]) -> None: ...


class _Model:
    """A reference model of its own; copies of what is float32 already are its own parameters."""

    def __init__(self, policy: torch.nn.Module, reference: torch.nn.Module) -> None:
        own = dict(reference.named_parameters())
        self.policy = learned(policy)
        self.shards: list[Any] = [each for each in reference.modules() if hasattr(each, "reshard")]  # of FSDP2
        different = [name for name, each in self.policy.items() if name not in own or own[name].shape != each.shape]
        if different:
            raise MismatchError(
                f"expected a reference model with the parameters of the policy, found none like {different[0]}; "
                "only one of the same architecture can follow it"
            )
        self.own = {name: own[name].detach() for name in self.policy}
        self.copies = {name: each.float() for name, each in self.own.items()}

    def update(self, mu: float) -> None:
        follow(self.copies, self.policy, mu)
        self._show()

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        _same_names(self.copies, state)
        for name, each in self.copies.items():
            each.copy_(spread(state[name], each))
        self._show()

    def _show(self) -> None:
        """Write the copies into the model, which may hold its weights put together since its last forward pass."""
        for name, each in self.own.items():
            if each is not self.copies[name]:
                each.copy_(self.copies[name])
        for each in self.shards:
            each.reshard()


class _Adapters:
    """The averages of adapted matrices, in place of adapters that are off, or of TRL's copy of them."""

    def __init__(self, policy: torch.nn.Module) -> None:
        self.anchor = AdaptedAnchor(policy, 0.0)
        self.copies = self.anchor.copies
        for name, layer in self.anchor.layers.items():
            layer.forward = functools.partial(_switched, layer, layer.forward, self.copies[name])

    def update(self, mu: float) -> None:
        self.anchor.mu = mu
        self.anchor.update()

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        _same_names(self.copies, state)
        self.anchor.load_state_dict(dict(state))


def _switched(layer: Any, own: Any, added: torch.Tensor, *inputs: Any, **more: Any) -> Any:
    if layer.disable_adapters or OWN_ADAPTER in layer.active_adapters:
        return averaged(layer.get_base_layer(), added, *inputs, **more)
    return own(*inputs, **more)


def _reference(trainer: Any) -> _Reference:
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.ref_model is None:
        return _Adapters(policy)
    return _Model(policy, trainer.accelerator.unwrap_model(trainer.ref_model))


def _refuse(trainer: Any) -> None:
    """Refuse, by name, a trainer that has nothing to follow, or nothing that can be moved."""
    kind, args = type(trainer).__name__, trainer.args
    adapted = bool(adapted_layers(trainer.model)) or hasattr(trainer.model, "peft_config")
    if not hasattr(trainer, "ref_model"):
        raise UsageError(f"{kind} has no reference model to follow the policy; trainers of RLOO, GRPO, DPO and KTO have one")
    if getattr(trainer, "beta", 1.0) == 0:
        raise UsageError(f"{kind} with beta 0 has no KL to a reference model; set beta above 0 (WARP: 0.1 and less)")
    if getattr(args, "precompute_ref_log_probs", False):
        raise UsageError(f"{kind}: precompute_ref_log_probs asks the reference before it moves; leave it out")
    if getattr(args, "sync_ref_model", False):
        raise UsageError(f"{kind}: sync_ref_model moves the reference model too; leave it out")
    if any(isinstance(each, EMAAnchor) for each in trainer.callback_handler.callbacks):
        raise UsageError(f"{kind} has an EMAAnchor already, and two would move one reference; add one")
    if trainer.is_deepspeed_enabled:
        raise UsageError(f"{kind} under DeepSpeed keeps weights where a callback cannot average them; use DDP or FSDP2")
    if trainer.is_fsdp_enabled and getattr(trainer.accelerator.state.fsdp_plugin, "fsdp_version", 1) != 2:
        raise UsageError(f"{kind} under FSDP1 flattens its weights; set fsdp_version 2")
    if adapted:
        _refuse_adapters(trainer, kind)
    elif trainer.ref_model is None:
        raise UsageError(f"{kind} has no reference model (ref_model is None), so there is nothing to follow the policy")


def _refuse_adapters(trainer: Any, kind: str) -> None:
    """Refuse adapters whose matrices are not W + s B A."""
    if trainer.ref_model is not None:
        raise UsageError(f"{kind}: the policy has adapters and ref_model has none; leave ref_model out")
    if trainer.is_fsdp_enabled:
        raise UsageError(f"{kind}: adapters under FSDP are not followed; train the whole model, or use DDP")
    layers = adapted_layers(trainer.model)
    for name, layer in layers.items():
        if what := _beyond_lora(layer):
            raise UsageError(f"{kind}: {name} is adapted by {what}; the anchor knows plain LoRA of linear layers alone")
    others = [name for name in learned(trainer.model) if name.rpartition(".lora_")[0] not in layers]
    if others:
        raise UsageError(
            f"{kind}: {others[0]} learns beside LoRA's adapters (bias, modules_to_save, or adapters of another kind); the "
            "anchor knows LoRA alone"
        )


def _beyond_lora(layer: Any) -> str | None:
    """Return what makes an adapted layer another one than W + s B A."""
    from peft.tuners.lora import Linear

    if type(layer) is not Linear:
        return f"peft's {type(layer).__name__}"
    if any(layer.use_dora.values()):
        return "DoRA"
    if variants := getattr(layer, "lora_variant", None):
        return type(next(iter(variants.values()))).__name__
    return "lora_bias" if any(layer.lora_bias.values()) else None


def _write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    staged = path.with_suffix(".part")
    save_file({name: each.contiguous() for name, each in weights.items()}, staged)
    staged.replace(path)


def _read(checkpoint: Path) -> dict[str, torch.Tensor]:
    if (checkpoint / FILE).is_file():
        return load_file(checkpoint / FILE)
    others = sorted(checkpoint.parent.glob(f"checkpoint-*/{FILE}"), key=lambda each: int(each.parts[-3].rpartition("-")[2]))
    advice = f"resume from {others[-1].parents[1]}" if others else "begin the run again"
    raise CheckpointError(
        f"{checkpoint}: has no {FILE}: it was saved without EMAAnchor, or the run was killed before the anchor was written; "
        f"{advice}"
    )


def _same_names(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        raise MismatchError(
            f"expected the anchor of {len(own)} tensors that learn here, found one of {len(state)} that are not these; "
            "the run was begun with another model, other adapters or other frozen layers"
        )
