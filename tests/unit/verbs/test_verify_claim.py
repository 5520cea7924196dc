"""Whether a merged model is what it is said to be: true, false and rounded-away merges of warmkit, torch and peft."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import CONFIG, Family, Run, make_family, save, tensors_of, weights
from tests.unit.layouts import lora
from warmkit.errors import UsageError
from warmkit.verbs.claim_report import ClaimReport

Tensors = dict[str, torch.Tensor]
TYPES = [torch.float32, torch.bfloat16, torch.float16]
MLP = "model.layers.1.mlp.weight"
in_every_type = pytest.mark.parametrize("dtype", TYPES, ids=str)


def answers(report: ClaimReport) -> dict[str, str]:
    return {each.name: each.answer for each in report.tensors}


def mixed(init: Tensors, models: list[Tensors], shares: list[float], eta: float = 1.0) -> Tensors:
    """Return x0 + eta sum c (x - x0) in float64, rounded once to the models' type."""

    def one(name: str) -> torch.Tensor:
        start = init[name].double()
        moved = sum(share * (each[name].double() - start) for share, each in zip(shares, models))
        return (start + eta * moved).to(init[name].dtype)

    return {name: one(name) for name in init}


def three(folder: Path, dtype: torch.dtype) -> tuple[Family, list[Tensors]]:
    """Write models of a type; return also their weights, the init first."""
    family = make_family(folder, dtype)
    return family, [tensors_of(each) for each in (family.init, family.a, family.b)]


WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "float64": lambda a, b: (0.7 * a.double() + 0.3 * b.double()).to(a.dtype),
    "float32": lambda a, b: (0.7 * a.float() + 0.3 * b.float()).to(a.dtype),
    "the stored type": lambda a, b: 0.7 * a + 0.3 * b,
    "the stored type, its shares rounded": lambda a, b: (
        (torch.stack([a, b]) * torch.tensor([0.7, 0.3], dtype=a.dtype).reshape(2, *[1] * a.ndim)).sum(0)
        / torch.tensor([0.7, 0.3], dtype=a.dtype).sum()
    ),
    "the stored type, from a on": lambda a, b: torch.lerp(a, b, 0.3),
}


@in_every_type
def test_a_merge_that_torch_made_contains_the_claim_however_it_was_rounded(dtype: torch.dtype, tmp_path: Path) -> None:
    family, (_, a, b) = three(tmp_path, dtype)
    for way, merge in WAYS.items():
        merged = save(tmp_path / way, {name: merge(a[name], b[name]) for name in a})
        for init in (family.init, None):
            report = warmkit.verify_claim(merged, models=[family.a, family.b], method="lerp", lambda_=0.3, init=init)
            assert set(answers(report).values()) == {"contains"}, (way, report)
            assert report.answer == "contains"
            assert report.scale == pytest.approx(1, abs=0.01)


@in_every_type
def test_false_claims_are_named_with_what_is_there_instead(dtype: torch.dtype, tmp_path: Path) -> None:
    family, (init, a, b) = three(tmp_path, dtype)
    shares = [0.7, 0.3]
    true = mixed(init, [a, b], shares)
    swapped = {name.replace(".0.", ".9.").replace(".1.", ".0.").replace(".9.", ".1."): each for name, each in true.items()}
    made: dict[str, tuple[Tensors, float | None, str]] = {
        "another lambda": (mixed(init, [a, b], [0.2, 0.8]), None, "another change"),
        "nothing": (init, 0.0, f"{family.init}: the change is missing"),
        "half": (mixed(init, [a, b], shares, 0.5), 0.5, "times the change"),
        "twice": (mixed(init, [a, b], shares, 2.0), 2.0, "times the change"),
        "a model": (a, None, str(family.a)),
        "transposed": ({k: v.T.contiguous() if v.shape == (8, 8) else v for k, v in true.items()}, None, ""),
        "layers": (swapped, None, ""),
    }
    for name, (tensors, scale, what) in made.items():
        report = warmkit.verify_claim(
            save(tmp_path / name, tensors), models=[family.a, family.b], method="lerp", lambda_=0.3, init=family.init
        )
        assert report.answer == "does not contain", (name, report)
        wrong = [each for each in report.tensors if each.answer == "does not contain"]
        if name == "transposed":
            assert [each.name for each in wrong] == [f"model.layers.{layer}.attn.weight" for layer in range(3)]
        elif name == "layers":
            assert all(".layers.0." in each.name or ".layers.1." in each.name for each in wrong)
        else:
            assert what in next(each for each in wrong if each.name == MLP).what
            assert len(wrong) == len(true) or name == "another lambda"
        if scale is not None:
            assert report.scale == pytest.approx(scale, abs=0.01)


def test_one_tensor_left_as_it_was_is_found(family: Family, tmp_path: Path) -> None:
    claim: dict[str, Any] = {"models": [family.a, family.b], "init": family.init, "method": "lerp"}
    warmkit.merge(output=tmp_path / "out", **claim, exclude=[MLP])
    report = warmkit.verify_claim(tmp_path / "out", **claim)
    assert report.counts() == {"contains": 11, "does not contain": 1, "cannot tell": 0}
    assert [(each.name, each.scale) for each in report.tensors if each.answer != "contains"] == [(MLP, 0.0)]
    assert warmkit.verify_claim(tmp_path / "out", **claim, exclude=[MLP]).answer == "contains"


def test_one_weight_that_was_changed_is_found(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors[MLP][3, 3] *= 1.001
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    report = warmkit.verify_claim(tmp_path / "out", models=[family.a, family.b], init=family.init)
    assert [(each.name, each.what) for each in report.tensors if each.answer != "contains"] == [(MLP, "1 of 192 elements")]


@pytest.mark.parametrize("method", warmkit.METHODS)
def test_every_method_makes_what_it_claims_and_no_other_eta_does(method: str, tmp_path: Path) -> None:
    family = make_family(tmp_path, torch.bfloat16)
    init = None if method == "slerp-weights" else family.init
    own = {"limit": 0.1} if method == "nearswap" else {}  # its default is lost in the rounding of these weights
    for eta in (1.0, 0.5):
        warmkit.merge(family.models, tmp_path / f"{eta}", init=family.init, method=method, eta=eta, **own)
    for made, expected in ((1.0, "contains"), (0.5, "does not contain")):
        report = warmkit.verify_claim(tmp_path / f"{made}", models=family.models, init=init, method=method, **own)
        assert report.answer == expected, report
        assert report.scale is not None
        if made == 1.0:
            small = [each.name for each in report.tensors if each.answer != "contains"]
            assert all(name.endswith("norm.weight") for name in small)  # eight numbers, a step or two from the init's
            assert report.scale == pytest.approx(1, abs=1e-3)


# ---- adapters -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter on it, both in float32."""
    folder = tmp_path_factory.mktemp("world")
    base = lora.base(folder / "base")
    return base, lora.adapter(folder / "adapter", base, r=4, target_modules=["q_proj", "o_proj", "down_proj"])


def in_type(base: Path, folder: Path, dtype: torch.dtype) -> Path:
    return save(folder, {k: v.to(dtype) for k, v in tensors_of(base).items()}, json.loads((base / "config.json").read_text()))


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype, autocast: bool) -> Tensors:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(lora.loaded(base, dtype), adapter, autocast_adapter_dtype=autocast)
        return {name: each.contiguous() for name, each in model.merge_and_unload().state_dict().items()}


@in_every_type
def test_what_peft_merges_contains_the_adapter_and_what_it_merges_twice_does_not(
    world: tuple[Path, Path], dtype: torch.dtype, tmp_path: Path
) -> None:
    base, adapter = in_type(world[0], tmp_path / "base", dtype), world[1]
    config = json.loads((base / "config.json").read_text())
    for autocast in (True, False):
        merged = merged_by_peft(base, adapter, dtype, autocast)
        report = warmkit.verify_claim(save(tmp_path / f"{autocast}", merged, config), init=base, adapter=adapter)
        assert set(answers(report).values()) == {"contains"}, report
        assert sum(each.scale is not None for each in report.tensors) == 6
    twice = merged_by_peft(tmp_path / "True", adapter, dtype, autocast=True)
    report = warmkit.verify_claim(save(tmp_path / "twice", twice, config), init=base, adapter=adapter)
    assert report.counts()["does not contain"] == 6
    assert report.scale == pytest.approx(2, abs=0.02)
    missing = warmkit.verify_claim(base, init=base, adapter=adapter)
    assert (missing.answer, missing.scale) == ("does not contain", 0)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dora", {"r": 4, "use_dora": True, "target_modules": ["q_proj"]}),
        ("a head of its own", {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    ],
)
def test_adapters_of_other_kinds_are_verified_too(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", tie_word_embeddings=kind != "dora")
    adapter = lora.adapter(tmp_path / "adapter", base, **config)
    lora.save_dense(tmp_path / "merged", base, adapter)
    report = warmkit.verify_claim(tmp_path / "merged", init=base, adapter=adapter)
    assert set(answers(report).values()) == {"contains"}, report
    assert warmkit.verify_claim(base, init=base, adapter=adapter).answer == "does not contain"


def test_an_adapter_that_the_stored_type_cannot_hold_cannot_be_told(world: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    base, adapter = world[0], tmp_path / "adapter"
    tensors = load_file(world[1] / "adapter_model.safetensors")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_bytes((world[1] / "adapter_config.json").read_bytes())
    save_file({k: v * 1e-4 for k, v in tensors.items()}, adapter / "adapter_model.safetensors")
    narrow = in_type(base, tmp_path / "base", torch.bfloat16)
    warmkit.soup([f"{narrow}+{adapter}"], tmp_path / "narrow")
    warmkit.soup([f"{base}+{adapter}"], tmp_path / "wide")
    done = run("verify", "narrow", "--init", narrow, "--adapter", adapter)
    assert done.returncode == 3, done.stderr
    assert "narrow: cannot tell" in done.stdout
    report = warmkit.verify_claim(tmp_path / "narrow", init=narrow, adapter=adapter)
    assert report.counts() == {"contains": len(report.tensors) - 6, "does not contain": 0, "cannot tell": 6}
    assert warmkit.verify_claim(narrow, init=narrow, adapter=adapter).answer == "cannot tell"
    assert warmkit.verify_claim(tmp_path / "wide", init=base, adapter=adapter).answer == "contains"
    assert warmkit.verify_claim(base, init=base, adapter=adapter).answer == "does not contain"


# ---- tensors that cannot be compared, types, and tensors that many tasks read ----------------------------------------


def test_missing_extra_and_misshapen_tensors_are_named(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors |= {"bias": torch.ones(3), MLP: tensors[MLP][:5].clone()}
    report = warmkit.verify_claim(save(tmp_path / "odd", tensors), models=[family.a, family.b], init=family.init)
    assert {each.name: each.what for each in report.tensors if each.answer == "does not contain"} == {
        "model.norm.weight": "missing",
        MLP: "shape [5, 8], the claim has [24, 8]",
        "bias": "extra: the claim has no such tensor",
    }
    assert report.counts()["contains"] == 10


def test_integers_must_be_the_same(tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 2}.items():
        save(tmp_path / name, {**weights(seed), "places": torch.arange(9)})
    claim: dict[str, Any] = {"models": [tmp_path / "a", tmp_path / "b"], "method": "lerp"}
    warmkit.merge(claim["models"], tmp_path / "out", method="lerp")
    assert warmkit.verify_claim(tmp_path / "out", **claim).answer == "contains"
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for places, what in {
        torch.arange(1, 10): "other numbers; integers are copied",
        torch.arange(9, dtype=torch.int32): "int32, the claim has int64",
    }.items():
        report = warmkit.verify_claim(save(tmp_path / "odd", {**merged, "places": places}), **claim)
        assert [(each.name, each.what) for each in report.tensors if each.answer == "does not contain"] == [("places", what)]


def test_not_a_number_is_off(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors[MLP][0, 0] = torch.nan
    report = warmkit.verify_claim(save(tmp_path / "nan", tensors), models=[family.a, family.b], init=family.init)
    assert answers(report)[MLP] == "does not contain"
    assert report.scale == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_model_of_another_type_is_held_to_that_type(dtype: str, family: Family, tmp_path: Path) -> None:
    claim: dict[str, Any] = {"models": [family.a, family.b], "init": family.init}
    warmkit.merge(claim["models"], tmp_path / "true", init=family.init, dtype=dtype)
    warmkit.merge(claim["models"], tmp_path / "false", init=family.init, dtype=dtype, eta=0.9)
    assert warmkit.verify_claim(tmp_path / "true", **claim).answer == "contains"
    assert warmkit.verify_claim(tmp_path / "false", **claim).answer == "does not contain"
    wide = {k: v.double() for k, v in warmkit.merged_state_dict([family.a, family.b], init=family.init).items()}
    assert warmkit.verify_claim(save(tmp_path / "wide", wide), **claim).answer == "contains"


def test_a_head_that_is_tied_or_stored_twice_is_the_same(tmp_path: Path) -> None:
    tied = {**CONFIG, "tie_word_embeddings": True}
    for name, seed in {"sft": 0, "a": 1, "b": 2}.items():
        save(tmp_path / name, {k: v for k, v in weights(seed).items() if k != "lm_head.weight"}, tied)
    claim: dict[str, Any] = {"models": [tmp_path / "a", tmp_path / "b"], "init": tmp_path / "sft"}
    warmkit.merge(claim["models"], tmp_path / "out", init=claim["init"])
    merged = load_file(tmp_path / "out" / "model.safetensors")
    merged["lm_head.weight"] = merged["model.embed_tokens.weight"].clone()
    assert warmkit.verify_claim(save(tmp_path / "twice", merged, tied), **claim).answer == "contains"
    merged["lm_head.weight"] += 1
    report = warmkit.verify_claim(save(tmp_path / "own", merged, tied), **claim)
    assert [each.what for each in report.tensors if each.answer != "contains"] == ["extra: the claim has no such tensor"]


def test_threads_and_tasks_do_not_change_a_digit(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    rows = {name: {"w": torch.randn((2100, 1100), generator=draw).bfloat16()} for name in ("init", "a", "b")}
    for name, tensors in rows.items():
        save(tmp_path / name, tensors)
    claim: dict[str, Any] = {"models": [tmp_path / "a", tmp_path / "b"], "init": tmp_path / "init"}
    warmkit.merge(claim["models"], tmp_path / "out", init=claim["init"], eta=0.9)
    one, three = (warmkit.verify_claim(tmp_path / "out", **claim, threads=threads) for threads in (1, 3))
    assert one.as_document() == three.as_document()
    assert one.answer == "does not contain"
    assert one.scale == pytest.approx(0.9, abs=1e-4)


# ---- two hundred merges ---------------------------------------------------------------------------------------------

SHAPES = {"model.q.weight": (32, 32), "model.k.weight": (32, 32)}
STEPS = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
TRUE = ("float64", "float32", "the stored type")


def start(seed: int) -> tuple[torch.Generator, torch.dtype, float, Tensors]:
    """Return a generator, a type, the size of changes (every fourth far below a step of the type, else 16 to 64) and a base."""
    draw = torch.Generator().manual_seed(seed)
    dtype, power = TYPES[seed % 3], float(torch.rand((), generator=draw))
    size = STEPS[dtype] * 2 ** (power - 12 if seed % 4 == 3 else 4 + 2 * power)
    return draw, dtype, size, {name: (0.5 + torch.rand(shape, generator=draw)).to(dtype) for name, shape in SHAPES.items()}


def ways(init: Tensors, change: Callable[[float, str], Tensors], other: Tensors) -> dict[str, Tensors]:
    """Return merges by how they were made; `change` makes one of a factor, in a type."""
    true = change(1.0, "float64")
    return {
        **{way: change(1.0, way) for way in TRUE},
        **{f"times {factor}": change(factor, "float64") for factor in (0.5, 2.0, -1.0)},
        "missing": init,
        "one missing": {**true, "model.k.weight": init["model.k.weight"]},
        "another": other,
        "transposed": {name: each.T.contiguous() for name, each in true.items()},
        "swapped": dict(zip(true, reversed(true.values()))),
    }


def averages(seed: int, folder: Path) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Write a base and two or three models; return a claim, and merges of them, most of them false."""
    draw, dtype, size, init = start(seed)
    kept = dtype if size > STEPS[dtype] else torch.float64  # in which the models hold their changes
    models: list[Tensors] = []
    for _ in range(2 + seed % 2):
        moves = {name: size * torch.randn(each.shape, generator=draw, dtype=torch.float64) for name, each in init.items()}
        models.append({name: (init[name].double() + each).to(kept) for name, each in moves.items()})
    drawn = torch.rand(len(models), generator=draw) + 0.2
    shares = (drawn / drawn.sum()).tolist()

    def change(factor: float, way: str) -> Tensors:
        if way == "the stored type":
            return {
                k: sum((c * each[k].to(dtype) for c, each in zip(shares, models)), torch.zeros((), dtype=dtype)) for k in init
            }
        wide = getattr(torch, way)
        return {
            k: (v.to(wide) + factor * sum(c * (m[k].to(wide) - v.to(wide)) for c, m in zip(shares, models))).to(dtype)
            for k, v in init.items()
        }

    places = [save(folder / f"m{place}", each) for place, each in enumerate(models)]
    base = save(folder / "init", {name: each.to(kept) for name, each in init.items()})
    claim = {"models": places, "init": base, "method": "lerp", "coefficients": shares}
    return claim, ways(init, change, mixed(init, models, [shares[-1] + 0.3, *shares[:-1]]))


def adapters(seed: int, folder: Path) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Write a base and an adapter of peft's; return a claim, and merges of it, most of them false."""
    from peft import LoraConfig, get_peft_model

    draw, dtype, size, init = start(seed)
    layers = {name: torch.nn.Linear(32, 32, bias=False) for name in "qk"}
    module = torch.nn.ModuleDict({"model": torch.nn.ModuleDict(layers)})
    adapted: Any = get_peft_model(module, LoraConfig(r=4, lora_alpha=8, target_modules=["q", "k"]))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_((size / 4) ** 0.5 * torch.randn(parameter.shape, generator=draw))
    adapted.save_pretrained(folder / "adapter")
    factors = load_file(folder / "adapter" / "adapter_model.safetensors")

    def product(name: str, wide: torch.dtype) -> torch.Tensor:
        a, b = (factors[f"base_model.model.{name.removesuffix('weight')}lora_{each}.weight"].to(wide) for each in "AB")
        return 2 * (b @ a)

    def change(factor: float, way: str) -> Tensors:
        wide = dtype if way == "the stored type" else getattr(torch, way)
        return {k: (v.to(wide) + factor * product(k, wide)).to(dtype) for k, v in init.items()}

    other = {k: (v.double() + product(k, torch.float64).flip(0)).to(dtype) for k, v in init.items()}
    base = save(folder / "init", init)
    return {"init": base, "adapter": folder / "adapter"}, ways(init, change, other)


def test_two_hundred_drawn_merges_get_no_wrong_answer(tmp_path: Path) -> None:
    found: dict[str, int] = {}
    for seed in range(20):
        claim, made = (adapters if seed % 5 > 2 else averages)(seed, tmp_path / str(seed))
        for way, tensors in made.items():
            report = warmkit.verify_claim(save(tmp_path / "out", tensors), **claim, threads=1)
            lost = seed % 4 == 3 and way not in ("transposed", "swapped")  # these move the base's own numbers
            expected = "cannot tell" if lost else "contains" if way in TRUE else "does not contain"
            assert report.answer == expected, (seed, way, report, report.tensors)
            found[report.answer] = found.get(report.answer, 0) + 1
    assert found == {"contains": 45, "does not contain": 130, "cannot tell": 45}


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_has_an_exit_code_for_every_answer_and_writes_nothing(family: Family, tmp_path: Path, run: Run) -> None:
    run("merge", "--method", "lerp", "--lambda", "0.3", family.a, family.b, "-o", "out")
    before = sorted(tmp_path.rglob("*"))
    claim = ("verify", "out", "--models", family.a, family.b, "--init", family.init, "--method", "lerp")
    done = run(*claim, "--lambda", "0.3", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["answer"], document["scale"]) == (0, "contains", 1)
    assert document["counts"] == {"contains": 12, "does not contain": 0, "cannot tell": 0}
    done = run(*claim, "--lambda", "0.5")
    assert done.returncode == 4
    assert "does not contain" in done.stdout
    assert MLP in done.stdout
    done = run(*claim, "--lambda", "0.5", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "")
    assert MLP not in run(*claim, "--lambda", "0.3").stdout
    assert MLP in run(*claim, "--lambda", "0.3", "-v").stdout
    assert sorted(tmp_path.rglob("*")) == before


RECIPES = {
    "ours.yaml": """\
merge: {method: lerp, models: [a, b], init: sft, coefficients: [0.5, 0.5], eta: 0.5}
output: {dtype: bfloat16}
""",
    "slices.yaml": """\
merge:
  slices:
  - sources: [{model: a, layers: [0, 2]}]
  - sources: [{model: b, layers: [1, 3]}]
""",
    "mergekit.yml": """\
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]
dtype: float32
""",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_claim(recipe: str, family: Family, tmp_path: Path, run: Run) -> None:
    for each in ("sft", "a", "b"):
        config = {**CONFIG, "num_hidden_layers": 3}
        (tmp_path / each / "config.json").write_text(json.dumps(config))
    (tmp_path / recipe).write_text(RECIPES[recipe])
    assert run("merge", recipe, "-o", "out").returncode == 0
    done = run("verify", "out", "--recipe", recipe, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["answer"] == "contains"
    assert run("verify", "a", "--recipe", recipe, "-q").returncode == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lambda", "0.3"], "--lambda is part of a claim"),
        (["--only", "x"], "--only is part of a claim"),
        (["--models", "a", "--adapter", "b"], "expected one claim, found --models and --adapter"),
        (["--adapter", "a"], "an adapter needs --init"),
        (["--adapter", "a", "--init", "sft", "--density", "0.5"], "density: an adapter is merged by no method"),
        (["--adapter", "a", "--init", "sft", "--lambda", "0.5"], "lambda: an adapter is merged by no method"),
        (["--recipe", "a"], "expected a .yaml file"),
        (["--models", "a", "b", "--init", "sft", "--eta", "0.1,0.2"], "expected one eta, found 2"),
        (["--models", "a", "b", "--init", "sft", "--method", "lerpp"], "did you mean 'lerp'?"),
    ],
)
def test_a_claim_that_is_none_is_refused(words: list[str], said: str, family: Family, run: Run) -> None:
    done = run("verify", "a", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_options_of_writing_are_refused(family: Family) -> None:
    with pytest.raises(UsageError, match="sha256: means nothing here"):
        warmkit.verify_claim(family.a, models=[family.a, family.b], sha256=True)
    with pytest.raises(UsageError, match="expected one claim"):
        warmkit.verify_claim(family.a)
