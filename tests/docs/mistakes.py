"""The page of mistakes: what people type by mistake, and what warmkit says, from commands that really run.

python -m tests.docs.mistakes > docs/mistakes.md
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from tests import forks
from tests.docs.mistakes_world import build
from warmkit.cli.app import app

HEAD = """\
# Mistakes, and what warmkit says

The message of a wrong command says what was expected, what was found, and what to do. Below are {count}
mistakes and the message of each. Search this page for a word that you know from another tool, or for a part of your message;
[Troubleshooting](troubleshooting.md) explains causes. Every message goes to stderr.

`sft` is the model that `a`, `b` and `c` were fine-tuned from; `rm` is a reward model, `policy` a policy. The other names say
what is wrong with a file. This page is generated, and each of its commands is run:
`python -m tests.docs.mistakes > docs/mistakes.md`.
"""


@dataclass(frozen=True)
class Mistake:
    """A wrong command.

    Attributes:
        typed: Behind `warmkit`.
        found: A part of the message that names what is wrong.
        cure: A part that says what was expected, or what to do.
        without: Packages that are not installed.
    """

    typed: str
    found: str
    cure: str
    without: tuple[str, ...] = ()


SECTIONS: dict[str, tuple[Mistake, ...]] = {
    "Words of mergekit and other tools": (
        Mistake("merge --method linear a b -o out", "'linear'", "'lerp'"),
        Mistake("merge --method average a b -o out", "'average'", "'uniform'"),
        Mistake("merge --method model_soup a b -o out", "'model_soup'", "warmkit soup"),
        Mistake("merge --method nuslerp a b -o out", "'nuslerp'", "'slerp-weights'"),
        Mistake("merge --method passthrough a b -o out", "'passthrough'", "slices"),
        Mistake("merge --method dare --init sft a b -o out", "'dare'", "'dare-ties'"),
        Mistake("merge --method ema a b -o out", "'ema'", "warmkit ema"),
        Mistake("merge --method slrp --init sft a b -o out", "'slrp'", "'slerp'"),
        Mistake("merge --base sft a b -o out", "--base", "--init sft"),
        Mistake("merge --base_model sft a b -o out", "--base_model", "--init sft"),
        Mistake("merge --method lerp -t 0.3 a b -o out", "-t", "--lambda 0.3"),
        Mistake("merge --method lerp --weights 0.3,0.7 a b -o out", "--weights", "--coefficients 0.3,0.7"),
        Mistake("merge --method ties --init sft --densities 0.5 a b -o out", "--densities", "--density 0.5"),
        Mistake("merge --method lerp a b --out out", "--out", "--output out"),
        Mistake("merge --method lerp a b --output-dir out", "--output-dir", "--output out"),
        Mistake("merge --method lerp a b -o out --bf16", "--bf16", "--dtype bfloat16"),
        Mistake("merge --method lerp a b -o out --cuda", "--cuda", "--device cuda"),
        Mistake("merge --method lerp a b -o out --overwrite", "--overwrite", "--force"),
        Mistake("merge --method lerp a b -o out --out-shard-size 2GB", "--out-shard-size", "--max-shard-size 2GB"),
        Mistake("merge --method lerp a b -o out --copy-tokenizer", "--copy-tokenizer", "leave it out"),
        Mistake("merge --method lerp a b -o out --allow-crimes", "--allow-crimes", "leave it out"),
        Mistake("merge --models a --models b -o out", "--models", "without an option"),
        Mistake("merge --config merge.yaml", "--config", "warmkit merge RECIPE.yaml"),
        Mistake("ema --decay 0.9 a b -o out", "--decay", "--mu"),
        Mistake("soup --weights 0.3,0.7 a b -o out", "--weights", "--method lerp --coefficients"),
        Mistake("liti a --init sft --alpha 0.3 -o out", "--alpha", "--eta"),
        Mistake("extract-lora --base sft a --lora-r 8 -o out", "--base", "--init sft"),
        Mistake("train rm train.yaml --lr 1e-5", "--lr", "--set SECTION.KEY=VALUE"),
        Mistake("push out owner/name --token hf_x", "--token", "hf auth login"),
        Mistake("reproduce all --seed 3", "--seed", "--first-seed"),
    ),
    "Wrong commands": (
        Mistake("slerp a b -o out", "'slerp'", "warmkit merge --method slerp"),
        Mistake("avg a b -o out", "'avg'", "warmkit soup"),
        Mistake("swa run -o out", "'swa'", "warmkit average RUN"),
        Mistake("mergekit-yaml merge.yaml out", "'mergekit-yaml'", "warmkit merge RECIPE.yaml"),
        Mistake("marge a b -o out", "'marge'", "'merge'"),
        Mistake("evaluate rm", "'evaluate'", "warmkit eval"),
        Mistake("eval rm-bert", "eval rm-bert", "warmkit eval rm rm-bert for a reward model"),
        Mistake("train train.yaml", "train.yaml", "warmkit train rm train.yaml"),
        Mistake("train.yaml", "train.yaml", "warmkit train rm train.yaml"),
        Mistake("frobnicate", "'frobnicate'", "warmkit --help"),
    ),
    "Wrong options and values": (
        Mistake("merge --init sft a b", "-o OUT", "directory to create"),
        Mistake("merge -o out", "expected MODEL", "for example: warmkit merge"),
        Mistake("merge --init sft a b -o", "-o", "needs a value"),
        Mistake("merge a b -o out", "slerp needs --init", "without one there are lerp"),
        Mistake("merge --init '' a b -o out", "an empty word behind --init", "is a shell variable unset?"),
        Mistake("merge --method lerp a b -o=out", "-o=out", "has no =: -o out"),
        Mistake("merge -init sft a b -o out", "-init", "two dashes: --init"),
        Mistake("merge --method lerp --etta 0.3 a b -o out", "--etta", "--eta"),
        Mistake("merge --method lerp --coefficients 0.5 0.5 a b -o out", "0.5 0.5", "--coefficients 0.5,0.5"),
        Mistake("merge --method lerp --coefficients 1 a b -o out", "found 1", "expected 2 coefficients, one per model"),
        Mistake("merge --method lerp --coefficients half,half a b -o out", "'half,half'", "expected numbers with commas"),
        Mistake("merge --method lerp --coefficients 1,-1 a b -o out", "sum to 0", "task-arithmetic"),
        Mistake("merge --init sft --coefficients 1.5,-0.5 a b -o out", "cannot be negative", "lerp"),
        Mistake("merge --method lerp --lambda 30% a b -o out", "'30%'", "expected a number"),
        Mistake("merge --method lerp --lambda 0.3 a b c -o out", "for 3 models", "--coefficients"),
        Mistake("merge --method lerp --lambda 0.3 --coefficients 1,1 a b -o out", "say the same thing", "give one of them"),
        Mistake("merge --method lerp --density 0.5 a b -o out", "lerp has no density", "it is a parameter of ties"),
        Mistake("merge --method ties --density 50 --init sft a b -o out", "found 50", "above 0 and at most 1"),
        Mistake("merge --method lerp --granularity block a b -o out", "'block'", "'layer'"),
        Mistake("merge --method lerp --vocabulary intersection a b -o out", "'intersection'", "'common'"),
        Mistake("merge --method lerp --dtype int8 a b -o out", "'int8'", "choose from: float32"),
        Mistake("merge --method lerp --device gpu a b -o out", "'gpu'", "'cuda'"),
        Mistake("merge --method lerp --threads 0 a b -o out", "found 0", "at least 1"),
        Mistake("merge --method lerp --max-shard-size lots a b -o out", "'lots'", "such as 5GB"),
        Mistake("merge --method lerp --only 'model.layer.*' a b -o out", "'model.layer.*'", "names are like"),
        Mistake("merge --init sft a a -o out --strict", "a: the same model is there twice", "counts twice"),
        Mistake("merge --explain a b", "--explain", "expected one .yaml file"),
        Mistake("soup a b", "expected --output", "for example: warmkit soup A B C -o OUT"),
        Mistake("soup --greedy a b -o out", "--greedy needs --score", "'COMMAND {}'"),
        Mistake("soup --greedy --score 'echo 1' a b -o out", "'echo 1'", "{} where the model directory goes"),
        Mistake("soup --greedy --score 'echo hello {}' a b -o out", "'hello a'", "expected a number on the last line"),
        Mistake("soup --greedy --score 'false {}' a b -o out", "exited with 1", "false a"),
        Mistake("ema a b -o out --mu 1.5", "found 1.5", "between 0 and 1"),
        Mistake("ema a b -o out --sort numeric", "'numeric'", "'natural'"),
        Mistake("liti a -o out", "expected --init", "for example: warmkit liti"),
        Mistake("liti a b --init sft -o out", "unexpected 'b'", "it takes MODEL"),
        Mistake("liti a --init sft --eta 0,3x -o out", "'0,3x'", "expected numbers with commas"),
        Mistake("compare a b", "expected --init", "for example: warmkit compare"),
        Mistake("compare --init sft a --plot angles.png", "--plot compares pairs", "at least two models"),
        Mistake("compare --init sft a b --plot angles.doc", "angles.doc", ".png, .svg"),
        Mistake("inspect a b", "unexpected 'b'", "it takes PATH"),
        Mistake("extract-lora --init sft a --rank 4 --energy 0.9 -o out", "found both", "give --rank or --energy"),
        Mistake("verify a --lambda 0.3", "--lambda is part of a claim", "--models, --adapter or --recipe"),
        Mistake("verify a --adapter b", "an adapter needs --init", "the model that it was merged into"),
        Mistake("recipes warm-docstring", "'warm-docstring'", "'warm-docstrings'"),
        Mistake("recipes -o out", "-o copies one recipe", "warmkit recipes NAME -o FILE"),
        Mistake("reproduce warp-sleep", "'warp-sleep'", "'warp-slerp'"),
        Mistake("reproduce all --size huge", "'huge'", "nano, small or large"),
        Mistake("demo --seeds 0", "'0'", "expected 1 or more"),
    ),
    "Wrong files and places": (
        Mistake("inspect nowhere", "nowhere", "no such file or directory"),
        Mistake("merge --method lerp a empty -o out", "found neither", "expected model.safetensors"),
        Mistake("merge --method lerp a around -o out", "around", "did you mean around/model?"),
        Mistake("merge --method lerp a model.gguf -o out", "GGUF", "copy the file again"),
        Mistake("merge --method lerp a notes.txt -o out", "notes.txt", "expected a directory or a .safetensors file"),
        Mistake("merge --method lerp a cut -o out", "truncated", "download or copy it again"),
        Mistake("merge --method lerp a pointer -o out", "pointer of Git LFS", "git lfs pull"),
        Mistake("merge --method lerp a config -o out", "config.json", "expected JSON"),
        Mistake("merge --method lerp a index -o out", "model-00002-of-00002.safetensors", "download or copy it again"),
        Mistake("merge --method lerp a both -o out", "holds both", "remove the one that is out of date"),
        Mistake("merge --method lerp a pickled -o out", "pytorch_model.bin", "--allow-pickle"),
        Mistake("merge --method lerp a adapter -o out", "names no base_model_name_or_path", "BASE+ADAPTER"),
        Mistake("merge --method lerp a b -o taken", "taken: already exists", "--force"),
        Mistake("merge --method lerp a b -o keep --force", "thesis.txt", "move it, or choose another -o"),
        Mistake("merge --method lerp a b -o a --force", "is an input", "choose another -o"),
        Mistake("merge --method lerp a b -o a/merged", "lies inside the input a", "choose another -o"),
        Mistake("merge --method lerp a b -o notes.txt/out", "notes.txt is a file", "choose another -o"),
        Mistake("verify nowhere", "found nothing", "expected a directory that warmkit wrote"),
        Mistake("verify a", "holds no warmkit.json", "warmkit inspect"),
        Mistake("push a owner/name", "holds no warmkit.json", "not written by warmkit"),
        Mistake("push a merged", "'merged'", "owner/name"),
        Mistake("report a", "holds no run", "expected recipe.yaml"),
        Mistake("report notes.txt", "notes.txt", "expected a run's directory"),
    ),
    "Models that do not go together": (
        Mistake("merge --init sft a lacking -o out", "missing tensor 'model.layers.1.norm.weight'", "--exclude"),
        Mistake("merge --init sft a extra -o out", "extra tensor 'model.layers.1.bias'", "--exclude"),
        Mistake("merge --init sft a larger -o out", "has shape [16], sft has [8]", "warmkit inspect"),
        Mistake("merge --init sft a wider -o out", "has shape [48, 8]", "--vocabulary union"),
        Mistake("merge --init sft a rope -o out", "rope_theta is 1000000.0", "models of one family"),
        Mistake("merge --init sft a bert -o out", "model_type is 'bert'", "models of one family"),
        Mistake("merge --init sft a nan -o out", "holds NaN or infinity", "--allow-nonfinite"),
        Mistake("merge --method lerp a huge -o out --dtype float16", "exceeds 65504", "wider --dtype"),
        Mistake("merge --init sft a gptq -o out", "quantised weights", "merge the checkpoints they were made from"),
        Mistake("merge --init sft a fp8 -o out", "F8_E4M3", "merge the bfloat16 or float32 checkpoints"),
        Mistake("merge --init sft a rm -o out", "missing tensor 'lm_head.weight'", "models that were fine-tuned from one"),
        Mistake("compare --init sft a nan", "holds NaN or infinity", "use an earlier checkpoint"),
        Mistake("merge --init sft a opposite -o out", "opposite directions", "--antiparallel lerp"),
    ),
    "Wrong recipes": (
        Mistake("merge nowhere.yaml", "nowhere.yaml: no such file", "warmkit recipes"),
        Mistake("merge merge.yml", "merge.yml: no such file", "'merge.yaml'"),
        Mistake("merge a merge.yaml -o out", "found 2 words", "in place of the models"),
        Mistake("merge method.yaml", "method.yaml:2", "'lerp'"),
        Mistake("merge key.yaml", "'merge.weights'", "'coefficients'"),
        Mistake("merge section.yaml", "'outputs'", "'output'"),
        Mistake("merge number.yaml", "found 'half'", "must be a number"),
        Mistake("merge models.yaml", "models.yaml:2", "missing key 'models'"),
        Mistake("merge nothing.yaml", "the recipe is empty", "warmkit recipes"),
        Mistake("merge tabs.yaml", "a tab", "spaces only"),
        Mistake("merge twice.yaml", "is there twice", "remove one"),
        Mistake("merge train.yaml", "a recipe of another command", "warmkit train rm train.yaml"),
        Mistake("train rm merge.yaml", "a recipe of another command", "warmkit merge merge.yaml"),
        Mistake("train policy train.yaml", "a recipe of another command", "warmkit train rm train.yaml"),
        Mistake("merge mergekit-slerp.yaml -o out", "slerp needs 't'", "t: 0.5"),
        Mistake("merge mergekit-weight.yaml -o out", "linear needs 'weight'", "parameters of each model"),
        Mistake("merge mergekit-method.yaml -o out", "'lineer'", "'linear'"),
        Mistake("merge mergekit-lacked.yaml -o out", "nuslerp_flatten false", "one arc, which warmkit has too"),
        Mistake("merge mergekit-key.yaml -o out", "'wieght'", "'weight'"),
        Mistake("train rm train-key.yaml", "'rm.learning_rate'", "'lr'"),
        Mistake("train rm train-type.yaml", "found 'many'", "rm.steps must be a whole number"),
        Mistake("train rm train-data.yaml", "train-data.yaml:1", "missing key 'data'"),
        Mistake("train rm train-choice.yaml", "'cosin'", "'cosine'"),
        Mistake("train rm train.yaml --set lr=1", "--set lr=1", "--set rm.lr=1"),
        Mistake("train rm train.yaml --set rm.lr", "--set rm.lr", "section.key=value"),
        Mistake("train rm train.yaml --set rm.lrr=1", "'rm.lrr'", "'lr'"),
        Mistake("train-rm", "expected RECIPE", "for example: warmkit train-rm recipe.yaml"),
        Mistake("warm warm-docstring.yaml", "no such file", "warmkit recipes warm-docstrings -o warm-docstring.yaml"),
        Mistake("warp train.yaml", "a recipe of another command", "warmkit train rm train.yaml"),
        Mistake("warp command.yaml --set 'command.run=train.py {output} {lr}'", "{lr}", "choose from: init, output"),
        Mistake("warp command.yaml --set 'command.run=train.py {init} {seed}'", "beside {init}", "expected {output}"),
        Mistake("warp command.yaml --set command.limit=soon", "found 'soon'", "such as 90s, 30min, 2h"),
        Mistake("warp command.yaml --set command.take=first", "found 'first'", "last, best or the number of a step"),
        Mistake("warp command.yaml --set policy.lr=1", "policy.lr means nothing beside command", "leave one of them out"),
    ),
    "Wrong data, reward models and policies": (
        Mistake("eval rm rm", "expected --data", "for example: warmkit eval rm"),
        Mistake("eval rm rm --dataset pairs.jsonl", "--dataset", "--data pairs.jsonl"),
        Mistake("eval rm rm --data nowhere.jsonl", "nowhere.jsonl", "No such file"),
        Mistake("eval rm rm --data table.csv", "table.csv", "expected a .jsonl"),
        Mistake("eval rm rm --data keys.jsonl", "found question, good, bad", "expected the key 'chosen'"),
        Mistake("eval rm rm --data broken.jsonl", "broken.jsonl:2", "expected a line of JSON"),
        Mistake("eval rm rm --data nothing.jsonl", "found none", "expected rows"),
        Mistake("eval rm rm --data equal.jsonl", "for both", "expected chosen and rejected to differ"),
        Mistake("eval rm policy --data pairs.jsonl", "policy: has no scalar head", "warmkit train rm"),
        Mistake("eval rm rm --data pairs.jsonl --at-least pairs=80", "pairs=80", "pairs=0.8"),
        Mistake("eval rm rm --data pairs.jsonl --at-least val=0.8", "there is no 'val'", "choose from: pairs"),
        Mistake("eval rm rm --data pairs.jsonl --at-least 0.8", "--at-least 0.8", "for instance val=0.8"),
        Mistake("eval rm rm --data pairs.jsonl --precision fp16", "'fp16'", "float32 or bfloat16"),
        Mistake("eval policy policy", "expected --prompts and --reward", "--recipe"),
        Mistake("eval policy policy --prompts prompts.jsonl --reward policy", "policy: has no scalar head", "train one first"),
        Mistake("eval policy policy --prompts prompts.jsonl --reward rm --best-of 8", "--best-of 8", "--samples 8"),
        Mistake("eval policy rm --prompts prompts.jsonl --reward rm", "lacks 1 tensors", "no language model"),
        Mistake("score rm --input answers.jsonl", "found prompt", "expected prompt and response"),
        Mistake("lmc rm --data pairs.jsonl", "expected B", "for example: warmkit lmc"),
        Mistake("lmc rm rm --data pairs.jsonl --lambda 0,2", "found 2", "from 0 to 1"),
        Mistake("bon --reward rm", "expected a POLICY", "--pool FILE"),
        Mistake("sxs policy --prompts prompts.jsonl --reward rm", "expected two policies", "to compare them"),
        Mistake("label pairs.jsonl -o out", "expected one judge", "--judge-model PATH"),
        Mistake("corrupt pairs.jsonl -o out --rate 25", "found 25", "expected a share from 0 to 1"),
    ),
    "What is not installed": (
        Mistake("eval rm rm --data pairs.jsonl", "transformers", "pip install 'warmkit[train]'", ("transformers",)),
        Mistake(
            "compare --init sft a b --plot angles.svg", "altair", "pip install 'warmkit[report]'", ("altair", "vl_convert")
        ),
        Mistake("merge --method lerp s3://bucket/a b -o out", "s3fs", "pip install 'warmkit[remote]'", ("s3fs",)),
        Mistake("merge --method lerp a b -o out --executor ray", "ray", "pip install 'warmkit[ray]'", ("ray",)),
    ),
}
LACKING = (
    "import sys; sys.modules.update(dict.fromkeys({without})); from warmkit.cli.app import main; sys.argv = {argv}; main()"
)


@dataclass(frozen=True)
class Answer:
    """What a command said: its exit code, stdout and stderr, the folder left out of it."""

    code: int
    out: str
    said: str


def answer(mistake: Mistake, folder: Path) -> Answer:
    """Run a command in this process, which is in the folder; one that lacks packages as a process of its own."""
    words = shlex.split(mistake.typed)
    if not mistake.without:
        done = CliRunner().invoke(app, words)
        return _answer(done.exit_code, done.stdout, done.stderr, folder)
    code = LACKING.format(without=list(mistake.without), argv=["warmkit", *words])
    alone = forks.run([sys.executable, "-c", code], text=True, cwd=folder, timeout=120, stdin=subprocess.DEVNULL)
    return _answer(alone.returncode, alone.stdout, alone.stderr, folder)


def _answer(code: int, out: str, err: str, folder: Path) -> Answer:
    said = "\n".join(line for line in err.splitlines() if not line.startswith("note: "))
    return Answer(code, out, said.replace(f"{folder}/", ""))


def answers(folder: Path) -> dict[Mistake, Answer]:
    """Make every mistake in a folder, whose path has no links in it."""
    build(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return {each: answer(each, folder) for section in SECTIONS.values() for each in section}
    finally:
        os.chdir(before)


def page(found: dict[Mistake, Answer]) -> str:
    parts = [HEAD.format(count=len(found))]
    for title, mistakes in SECTIONS.items():
        rows = [f"| {_code(f'warmkit {each.typed}')} | {_shown(found[each].said)} |" for each in mistakes]
        parts.append("\n".join([f"## {title}\n", "| typed | said |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _shown(said: str) -> str:
    return "<br>".join(_code(line.strip()) for line in said.removeprefix("error: ").splitlines())


def _code(text: str) -> str:
    """Return a text as code in a cell of a table, where a bar would end the cell."""
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(page(answers(Path(place).resolve())), end="")
