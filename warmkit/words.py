"""Words of other tools, mergekit first of all, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, str] = {
    **dict.fromkeys(
        ("linear", "interpolate", "interpolation", "linear-interpolation", "weighted", "weighted-average", "weighted-mean"),
        "a mean with coefficients (linear in mergekit) is 'lerp'",
    ),
    **dict.fromkeys(
        (
            "average",
            "avg",
            "mean",
            "soup",
            "model-soup",
            "model-soups",
            "uniform-soup",
            "swa",
            "wa",
            "weight-averaging",
            "warm",
        ),
        "the plain mean is 'uniform'; warmkit soup computes the same",
    ),
    **dict.fromkeys(("greedy", "greedy-soup"), "the greedy soup is a command: warmkit soup --greedy"),
    **dict.fromkeys(("ema", "moving-average", "exponential-moving-average"), "a moving average is a command: warmkit ema"),
    **dict.fromkeys(("liti", "wise-ft", "wiseft"), "the interpolation towards an init is a command: warmkit liti"),
    **dict.fromkeys(("spherical", "spherical-linear", "spherical-interpolation", "warp"), "the arc is 'slerp'"),
    "nuslerp": "with --init it is 'slerp', without one 'slerp-weights'",
    "passthrough": "layers are stacked by the slices of a recipe, not by a method; see docs/varying.md",
    "frankenmerge": "layers are stacked by the slices of a recipe, not by a method; see docs/varying.md",
    **dict.fromkeys(("ta", "task-vector", "task-vectors"), "adding task vectors is 'task-arithmetic'"),
    "dare": "there are 'dare-linear' (summed) and 'dare-ties' (with elected signs)",
    "ties-merging": "it is 'ties'",
    "model-breadcrumbs": "it is 'breadcrumbs'",
    "ramplus-tl": "it is 'ram-plus'",
    "tsv": "it is 'tsv-m'",
    "isoc": "it is 'iso-c'",
    "iso": "it is 'iso-c'",
    "stock": "it is 'model-stock'",
    **dict.fromkeys(
        ("fisher", "fisher-merging", "regmean", "adamerging"),
        "warmkit does not have it; warmkit methods lists what it has",
    ),
}
"""Names of methods elsewhere, lower case with dashes, each with a sentence."""

VALUES: Mapping[str, str] = {
    "block": "layer",
    "parameter": "tensor",
    "weight": "tensor",
    "global": "model",
    "whole": "model",
    "intersection": "common",
    "shared": "common",
    "base": "init",
    "all": "union",
    "exact": "strict",
    "base_model": "init",
    "t": "lambda",
    "weights": "coefficients",
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "gpu": "cuda",
    "average": "lerp",
    "mean": "lerp",
    **dict.fromkeys(("swa", "sma", "lawa", "equal"), "uniform"),
    **dict.fromkeys(("wsm", "1-sqrt", "sqrt", "inverse-sqrt", "minus_sqrt"), "minus-sqrt"),
    "numeric": "natural",
    "numerical": "natural",
}
"""Other words for values of options and keys of recipes; each is said only where it is one that may be given."""

COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("avg", "mean", "uniform"), "warmkit soup"),
    **dict.fromkeys(("slerp", "lerp", "ties", "karcher", "sce", "della", "expo", "relex"), "warmkit merge --method {name}"),
    **dict.fromkeys(("swa", "lawa", "wsm", "bema", "average-checkpoints", "weighted-merge"), "warmkit average RUN"),
    "linear": "warmkit merge --method lerp",
    **dict.fromkeys(("mergekit", "mergekit-yaml", "run"), "warmkit merge RECIPE.yaml"),
    **dict.fromkeys(("info", "show", "describe", "cat"), "warmkit inspect"),
    **dict.fromkeys(("diff", "angles", "cosine", "distance"), "warmkit compare"),
    **dict.fromkeys(("check", "validate"), "warmkit verify"),
    **dict.fromkeys(("upload", "publish"), "warmkit push"),
    **dict.fromkeys(("interpolate", "wise-ft", "wiseft"), "warmkit liti"),
    **dict.fromkeys(("extract", "lora", "mergekit-extract-lora"), "warmkit extract-lora"),
    "evaluate": "warmkit eval",
    "judge": "warmkit sxs",
    "train-sft": "warmkit train sft",
    "best-of-n": "warmkit bon",
    "rerank": "warmkit bon",
    "pareto": "warmkit front",
    "version": "warmkit --version",
    "help": "warmkit --help",
    "list": "warmkit methods",
    "completion": "warmkit --install-completion",
}
"""Other words for commands, each with what to type; `{name}` is the word."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("base", "base-model", "basemodel", "pretrained", "initial", "initialization", "init-model", "sft-model"), ("--init",)
    ),
    **dict.fromkeys(("ref", "ref-model", "reference", "reference-model"), ("--init", "--sft")),
    **dict.fromkeys(("t", "ratio", "lam", "interpolation"), ("--lambda",)),
    **dict.fromkeys(
        ("w", "weight", "weights", "ratios", "proportions", "shares", "coefficient", "coef", "coefs", "coeff", "coeffs"),
        ("--coefficients",),
    ),
    **dict.fromkeys(
        ("out", "out-dir", "outdir", "out-path", "output-dir", "output-path", "output-file", "dest", "destination"),
        ("--output",),
    ),
    **dict.fromkeys(("save", "save-to", "save-dir", "save-path", "to"), ("--output",)),
    **dict.fromkeys(("densities", "keep", "k", "top-k", "topk"), ("--density",)),
    **dict.fromkeys(("scaling", "scaling-factor", "scaling-coefficient"), ("--scale",)),
    **dict.fromkeys(("torch-dtype", "out-dtype", "data-type", "type"), ("--dtype",)),
    **dict.fromkeys(("merge-method", "algorithm", "algo"), ("--method",)),
    **dict.fromkeys(("shard-size", "max-shard", "out-shard-size"), ("--max-shard-size",)),
    **dict.fromkeys(("overwrite", "replace", "clobber", "exist-ok", "yes", "y", "f"), ("--force",)),
    **dict.fromkeys(("workers", "num-workers", "num-threads", "n-threads", "cores", "jobs", "j"), ("--jobs", "--threads")),
    **dict.fromkeys(("dry", "dryrun", "simulate"), ("--dry-run",)),
    **dict.fromkeys(("silent",), ("--quiet",)),
    **dict.fromkeys(("debug",), ("--verbose",)),
    **dict.fromkeys(("etas", "update-rate"), ("--eta",)),
    **dict.fromkeys(("n", "window", "num-checkpoints", "last-n"), ("--last",)),
    **dict.fromkeys(("interval", "min-iteration-interval", "stride"), ("--every",)),
    **dict.fromkeys(("start", "start-step", "start-iteration", "from-step"), ("--from",)),
    **dict.fromkeys(("end", "end-step", "end-iteration", "to-step"), ("--to",)),
    **dict.fromkeys(("style", "coefficient-style", "weighting"), ("--schedule",)),
    **dict.fromkeys(("token-window", "token-window-btok"), ("--tokens",)),
    **dict.fromkeys(("random-seed",), ("--seed",)),
    **dict.fromkeys(("include",), ("--only",)),
    **dict.fromkeys(("ignore", "skip"), ("--exclude",)),
    **dict.fromkeys(("data-set", "dataset", "datasets", "pairs", "eval-data", "file"), ("--data", "--input")),
    **dict.fromkeys(("data", "in"), ("--input",)),
    **dict.fromkeys(("prompt", "prompt-file"), ("--prompts",)),
    **dict.fromkeys(("reward-model", "rewards", "rm"), ("--reward", "--judge-model")),
    **dict.fromkeys(("num-samples", "n-samples", "num-return-sequences"), ("--samples",)),
    **dict.fromkeys(("max-tokens", "max-length"), ("--max-new-tokens", "--max-length")),
    **dict.fromkeys(("temp",), ("--temperature",)),
    **dict.fromkeys(("branch",), ("--revision",)),
    **dict.fromkeys(("commit-message", "m"), ("--message",)),
    **dict.fromkeys(("pr", "pull-request"), ("--create-pr",)),
    **dict.fromkeys(("lora-rank", "lora-r", "r"), ("--rank",)),
    **dict.fromkeys(("target-modules", "modules"), ("--targets",)),
    **dict.fromkeys(("plots", "figure", "chart"), ("--plot",)),
    **dict.fromkeys(("start-seed",), ("--first-seed",)),
    **dict.fromkeys(("override", "overrides"), ("--set",)),
}
"""Other words for options, each with those that it may mean: the first that a command has is meant."""

SENTENCES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("fp16", "half", "float16"), ("--dtype", "write --dtype float16")),
    **dict.fromkeys(("bf16", "bfloat16"), ("--dtype", "write --dtype bfloat16")),
    **dict.fromkeys(("fp32", "float32"), ("--dtype", "write --dtype float32")),
    **dict.fromkeys(("cuda", "gpu"), ("--device", "write --device cuda")),
    **dict.fromkeys(
        ("drop-rate", "drop"), ("--density", "write --density, the share that is kept: 1 less the share that is dropped")
    ),
    **dict.fromkeys(("model", "models"), ("MODEL", "models are given without an option: warmkit {command} A B")),
    **dict.fromkeys(
        ("config", "recipe", "config-file", "yaml"),
        ("RECIPE", "the recipe is given without an option: warmkit {command} RECIPE.yaml"),
    ),
    **dict.fromkeys(("claim", "claims"), ("CLAIM...", "claims are given without an option: warmkit reproduce NAME")),
    **dict.fromkeys(
        ("copy-tokenizer", "write-model-card"),
        ("--max-shard-size", "leave it out: tokenizer and model card are written without an option"),
    ),
    **dict.fromkeys(
        ("lazy-unpickle", "low-cpu-memory", "lazy-loader", "low-memory"),
        ("--max-shard-size", "leave it out: little memory is used"),
    ),
    "allow-crimes": (
        "--max-shard-size",
        "leave it out: models that do not fit together are refused, and the message names what differs",
    ),
    **dict.fromkeys(
        ("repo", "repo-id", "repository"), ("REPOSITORY", "the repository is the second word: warmkit push OUT owner/name")
    ),
    **dict.fromkeys(("token", "hf-token"), ("", "log in with hf auth login, or set HF_TOKEN")),
    **dict.fromkeys(
        ("requantize", "requantise", "quantize", "quantise"),
        ("--as", "write --as same: the merge of FP8 or MXFP4 models is quantised again as they are"),
    ),
    "public": ("REPOSITORY", "leave it out: a repository is public unless --private is given"),
}
"""Options of other tools that are no single option here: what a command must have for it, and a sentence; `{command}` is it."""

_NUMBERS = "models are weighed by warmkit merge --method lerp --coefficients 0.3,0.7"
SENTENCES_OF: Mapping[tuple[str, str], str] = {
    **{("soup", word): f"a soup is a plain mean; {_NUMBERS}" for word in ("coefficients", "weights", "weight", "lambda", "t")},
    **{("soup", word): "leave it out: a plain mean needs no init" for word in ("init", "base", "base-model")},
    **{("merge", word): "the recipe is given without an option: warmkit merge RECIPE.yaml" for word in ("config", "recipe")},
    ("soup", "method"): "a soup is a plain mean; other methods: warmkit merge --method METHOD",
    **{("liti", word): "the share of the model is --eta" for word in ("alpha", "lambda", "t", "weight", "coefficient")},
    **{
        ("liti", word): "the model is given without an option: warmkit liti MODEL --init SFT -o OUT"
        for word in ("model", "models")
    },
    **{("inspect", word): "it is given without an option: warmkit inspect PATH" for word in ("model", "path", "input")},
    ("extract-lora", "model"): "the model is given without an option: warmkit extract-lora MODEL --init SFT -o OUT",
    **{("ema", word): "write --mu, the share of the newer checkpoint: 1 less the decay" for word in ("decay", "beta")},
    ("ema", "alpha"): "write --mu, the share of the newer checkpoint",
    ("reproduce", "seed"): "write --first-seed NUMBER for the first seed, --seeds NUMBER for how many",
}
"""The same, for one command."""


def method_word(name: str) -> str:
    """Return `; ` and a sentence that says what a method of another tool is called here; empty if nothing is known."""
    sentence = METHODS.get(name.lower().replace("_", "-").replace(" ", "-"))
    return f"; {sentence}" if sentence else ""
