"""`warmkit merge mergekit_config.yml`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import warmkit
from tests.cli.conftest import Call
from tests.unit.training import tiny

RECIPE = """\
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [0, 2]}
  - sources:
      - {model: b, layer_range: [1, 2]}
      - {model: a, layer_range: [1, 2]}
merge_method: slerp
base_model: a
parameters:
  t:
    - {filter: self_attn, value: [0, 1]}
    - {value: 0.5}
dtype: bfloat16
"""
OTHER = "{% for message in messages %}{{ message['content'] }}|{% endfor %}"


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama models of two layers with tokenizers, `a` and `b`, which have chat templates, and `c`, which has none."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("llamas")
    tokenizer = tiny.llama_tokenizer()
    for seed, name in enumerate("abc"):
        torch.manual_seed(3)
        config = tiny.config("llama", len(tokenizer), initializer_range=0.2, num_hidden_layers=2)
        model = AutoModelForCausalLM.from_config(config)
        own = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for each in model.parameters():
                each.add_(0.05 * torch.randn(each.shape, generator=own))
        model.save_pretrained(folder / name)
        tokenizer.chat_template = OTHER if name != "c" else None
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def config(llamas: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Write a recipe beside links to the models."""
    for name in "abc":
        (tmp_path / name).symlink_to(llamas / name)

    def write(text: str) -> Path:
        (tmp_path / "mergekit_config.yml").write_text(text)
        return tmp_path / "mergekit_config.yml"

    return write


def test_a_recipe_of_mergekit_becomes_a_model_that_transformers_loads(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = call("merge", config(RECIPE), "-o", "out", "--json")
    assert "note: slerp: the arc is followed at every angle" in done.stderr
    assert json.loads(done.stdout)["method"] == "slerp-weights"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 3
    assert model.dtype == torch.bfloat16
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("a few words", return_tensors="pt")
    assert torch.isfinite(model(tokens["input_ids"]).logits).all()
    first, second = (warmkit.open_checkpoint(tmp_path / name) for name in ("a", "out"))
    name = "model.layers.0.self_attn.q_proj.weight"  # t is 0 there: base_model's own
    assert torch.equal(second[name].load(), first[name].load().bfloat16())


def test_explain_prints_a_recipe_that_does_the_same_and_writes_nothing(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    path = config(RECIPE)
    before = sorted(tmp_path.iterdir())
    text = call("merge", path, "--explain").stdout
    assert sorted(tmp_path.iterdir()) == before
    assert json.loads(call("merge", path, "--explain", "--json").stdout) == yaml.safe_load(text)
    (tmp_path / "own.yaml").write_text(text)
    call("merge", path, "-o", "theirs")
    call("merge", "own.yaml", "-o", "own")
    one, two = (tmp_path / name / "model.safetensors" for name in ("theirs", "own"))
    assert one.read_bytes() == two.read_bytes()


def test_explain_without_a_recipe_is_an_error(call: Call, config: Callable[[str], Path]) -> None:
    config(RECIPE)
    done = call("merge", "a", "b", "--explain", code=2)
    assert "--explain prints a recipe" in done.stderr


def test_an_unknown_method_is_one_line(call: Call, config: Callable[[str], Path], tmp_path: Path) -> None:
    path = config(RECIPE.replace("slerp", "slrp"))
    done = call("merge", path, "-o", "out", code=2)
    assert done.stderr == f"error: {path}:8: merge_method: mergekit has no method 'slrp'; did you mean 'slerp'?\n"
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}, {model: c}]\nparameters: {weight: 1}\n"


def chat_template(folder: Path) -> str | None:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).chat_template


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", OTHER),
        ("tokenizer_source: c\n", None),
        ("base_model: c\ntokenizer_source: base\n", None),
        ("base_model: c\nchat_template: auto\n", OTHER),
        ("chat_template: '{{ messages[0].content }}'\n", "{{ messages[0].content }}"),
        ("chat_template: mine.jinja\n", "{{ 1 }}"),
    ],
)
def test_tokenizer_and_chat_template_are_those_that_are_asked_for(
    line: str, expected: str | None, call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.jinja").write_text("{{ 1 }}")
    call("merge", config(LINEAR + line), "-o", "out")
    assert chat_template(tmp_path / "out") == expected
    call("verify", "out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tokenizer_source: elsewhere\n", "tokenizer: expected one of the models of the merge (a, b, c), found 'elsewhere'"),
        ("chat_template: nonsense\n", "chat_template: expected auto, a Jinja template or the path of one, found 'nonsense'"),
    ],
)
def test_a_tokenizer_or_template_that_is_not_there_is_refused(
    line: str, message: str, call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    assert message in call("merge", config(LINEAR + line), "-o", "out", code=2).stderr
    assert not (tmp_path / "out").exists()


def test_options_override_a_recipe_of_mergekit(call: Call, config: Callable[[str], Path], tmp_path: Path) -> None:
    call("merge", config(RECIPE), "-o", "out", "--dtype", "float16", "--lambda", "0")
    first, second = (warmkit.open_checkpoint(tmp_path / name) for name in ("a", "out"))
    assert second["model.norm.weight"].dtype.torch_name == "float16"
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(second[name].load(), first[name].load().half())


SEVERAL = """\
merge_method: linear
models: [{model: second, parameters: {weight: 1}}, {model: c, parameters: {weight: 2}}]
---
name: first
merge_method: slerp
base_model: a
models: [{model: a}, {model: b}]
parameters: {t: 0.3}
---
name: second
merge_method: task_arithmetic
base_model: a
models: [{model: first}, {model: c}]
parameters: {weight: 0.5}
"""


def test_documents_that_name_each_other_are_merged_in_turn(call: Call, config: Callable[[str], Path], tmp_path: Path) -> None:
    done = call("merge", config(SEVERAL), "-o", "out", "--json")
    assert [each["path"] for each in json.loads(done.stdout)] == ["out-first", "out-second", "out"]
    second, c, out = (warmkit.open_checkpoint(tmp_path / name) for name in ("out-second", "c", "out"))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(out[name].load(), (second[name].load() + 2 * c[name].load()) / 3, rtol=1e-6, atol=1e-6)
    call("verify", "out", "--recipe", "mergekit_config.yml")
    (tmp_path / "own.yaml").write_text(call("merge", "mergekit_config.yml", "--explain", "-o", "own").stdout)
    call("merge", "own.yaml")
    assert (tmp_path / "own" / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_document_finds_the_result_of_another_however_its_path_is_written(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    lerp = "merge: {{method: lerp, models: [{}, {}]}}\noutput: {{path: {}}}\n"
    path = config("---\n".join((lerp.format("./a", "b", "first"), lerp.format("./first", "./c", "last"))))
    assert "last: is planned once ./first is written" in call("merge", path, "--dry-run").stderr
    call("merge", path)
    assert (tmp_path / "last" / "model.safetensors").is_file()


def test_documents_are_planned_as_far_as_their_models_are_there(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    done = call("merge", config(SEVERAL), "-o", "out", "--dry-run", "--json")
    assert [each["path"] for each in json.loads(done.stdout)] == ["out-first"]
    assert "out-second: is planned once out-first is written" in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_documents_that_were_finished_by_an_interrupted_run_are_not_merged_again(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    path = config(SEVERAL.replace("model: c, parameters: {weight: 2}", "model: c, parameters: {weight: -1}"))
    assert "sum to 0" in call("merge", path, "-o", "out", code=2).stderr  # found when the last merge begins
    before = (tmp_path / "out-first" / "warmkit.json").stat().st_mtime_ns
    done = call("merge", config(SEVERAL), "-o", "out")
    assert done.stderr.count("was finished by the interrupted run") == 2
    assert (tmp_path / "out-first" / "warmkit.json").stat().st_mtime_ns == before
    assert "already exists" in call("merge", "mergekit_config.yml", "-o", "out", code=1).stderr


def test_of_documents_that_changed_since_an_interrupted_run_nothing_is_reused(
    call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    call("merge", config(SEVERAL.replace("{weight: 2}", "{weight: -1}")), "-o", "out", code=2)
    other = config(SEVERAL.replace("t: 0.3", "t: 0.6"))
    assert "out-first: already exists" in call("merge", other, "-o", "out", code=1).stderr
    assert "finished" not in call("merge", other, "-o", "out", "--force").stderr
    call("verify", "out-first")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("model: c,", "model: elsewhere,"), (), "elsewhere: no such file"),
        (("name: second", "name: third"), (), "second: no such file"),
        (("second", "second"), ("--eta", "0.5"), "--eta: means one merge, and the recipe makes 3"),
    ],
)
def test_what_no_document_can_do_is_found_before_the_first(
    change: tuple[str, str], options: tuple[str, ...], message: str, call: Call, config: Callable[[str], Path], tmp_path: Path
) -> None:
    done = call("merge", config(SEVERAL.replace(*change)), "-o", "out", *options, code=2 if options else 1)
    assert message in done.stderr
    assert not list(tmp_path.glob("out*"))
