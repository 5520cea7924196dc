"""`warmkit eval rm`: one reward model, or several beside their averages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from tests import forks
from tests.cli.conftest import Call, Rewards, json_lines
from tests.unit.evaluation.test_partners import noisy, turn
from tests.unit.training import tiny
from warmkit.evaluation.side_by_side import short_names
from warmkit.modeling.reward_model import load_scorer


def margins(call: Call, model: Path, pairs: Path, *more: object) -> np.ndarray:
    rows = json_lines(call("score", model, "-i", pairs, *more).stdout)
    return np.array([row["score_chosen"] - row["score_rejected"] for row in rows])


def test_one_model_is_measured_whole_and_by_subset(call: Call, rewards: Rewards) -> None:
    document = json.loads(call("eval", "rm", rewards.llamas[0], "--data", f"val={rewards.pairs}", "--json").stdout)
    assert document.keys() == {"models", "data", "individuals", "probe"}
    assert document["data"] == {"val": {"pairs": 20, "truncated": 0, "same": 0, "corrupt": 4}}
    (report,) = (each["val"] for each in document["individuals"].values())
    values = margins(call, rewards.llamas[0], rewards.pairs)
    assert report["accuracy"] == (values >= 0).mean()
    assert report["low"] <= report["accuracy"] <= report["high"]
    assert report["loss"] == pytest.approx(np.log1p(np.exp(-values)).mean(), abs=1e-6)
    places = {"corrupt": slice(4), "clean": slice(4, None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
    assert report["subsets"].keys() == places.keys()
    for name, part in places.items():
        assert report["subsets"][name]["accuracy"] == (values[part] >= 0).mean()
        assert report["subsets"][name]["pairs"] == len(values[part])


def test_several_models_stand_beside_wa_ens_and_the_probe(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    other = tiny.write(tmp_path / "other.jsonl", tiny.rows(12, seed=80))
    sets = ("--data", f"val={rewards.pairs}", "--data", other)
    done = call("eval", "rm", *rewards.llamas, *sets, "--probe", rewards.probe, "--plot", "wa.png", "--json")
    document = json.loads(done.stdout)
    names = ["llama-1", "llama-2", "llama-3"]
    assert list(document["models"]) == list(document["individuals"]) == names
    assert [(row["data"], row["m"]) for row in document["averages"]] == [(d, m) for m in (1, 2, 3) for d in ("val", "other")]
    call("merge", "--method", "uniform", *rewards.llamas, "-o", "merged")
    merged = margins(call, Path("merged"), other)
    alone = [margins(call, each, other) for each in rewards.llamas]
    first, _, last = (row for row in document["averages"] if row["data"] == "other")
    assert first["wa"] == first["ens"] == first["individual"] == (alone[0] >= 0).mean()
    assert last["wa"] == (merged >= 0).mean() == document["wa"]["other"]["accuracy"]
    assert last["ens"] == (np.mean(alone, axis=0) >= 0).mean() == document["ens"]["other"]["accuracy"]
    assert last["individual"] == (alone[2] >= 0).mean()
    assert last["probe"] == (margins(call, rewards.probe, other) >= 0).mean() == document["probe"]["other"]["accuracy"]
    gain = last["wa_less_ens"]
    assert gain["value"] == pytest.approx(last["wa"] - last["ens"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    same = document["agreement"]["other"]
    assert same["llama-1"]["llama-2"] == same["llama-2"]["llama-1"] == (np.sign(alone[0]) == np.sign(alone[1])).mean()
    assert same["llama-3"]["llama-3"] == 1
    assert document["cost"]["ens"]["passes"] == 3
    assert document["cost"]["ens"]["weight_bytes"] == 3 * document["cost"]["wa"]["weight_bytes"]
    picture = Path("wa.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 20_000 < len(picture) < 500_000


def test_a_model_that_does_not_average_with_the_others_is_named(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    """Here it is as accurate as they are, and its average with any of them is wrong throughout."""
    base, names = rewards.berts[1], ["one", "two"]
    models = [noisy(base, tmp_path / name, 0.001 * (n + 1)) for n, name in enumerate(names)]
    models.append(turn(base, tmp_path / "turned"))
    file = tiny.write(tmp_path / "own.jsonl", ordered(base, tiny.rows(60, seed=9)))
    done = call("eval", "rm", *models, "--data", file, "--json")
    document = json.loads(done.stdout)
    found = document["partners"]
    assert (found["data"], found["pairs"], found["of"], list(found["bad"])) == ("own", 60, 60, ["turned"])
    assert found["bad"]["turned"].items() >= {"worse": 2, "partners": 2}.items()
    assert found["gains"]["one"]["turned"]["high"] < -0.8
    assert abs(found["gains"]["one"]["two"]["value"]) < 0.1
    told = "turned does not average: with 2 of its 2 partners the average is less accurate than the mean of the two, by"
    assert told in done.stderr
    assert document["notes"][0].startswith(told)
    shown = call("eval", "rm", *models, "--data", file).stdout.splitlines()
    rows = [line.split() for line in shown if " of 2" in line and line.split()[-1] in ("2", "(!)")]
    assert rows == [["one", "1", "of", "2"], ["two", "1", "of", "2"], ["turned", "2", "of", "2", "(!)"]]
    without = call("eval", "rm", *models, "--data", file, "--no-two-by-two", "--json")
    assert json.loads(without.stdout)["partners"]["gains"] == {}
    assert told not in without.stderr


def ordered(model: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows whose chosen answer is the one that a model prefers."""
    scorer = load_scorer(model)
    chosen, rejected = (scorer.score([(row["prompt"], row[side]) for row in rows]) for side in ("chosen", "rejected"))
    return [
        row if one > other else {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        for row, one, other in zip(rows, chosen, rejected)
    ]


def test_rank_orders_the_models_and_the_text_shows_everything(call: Call, rewards: Rewards) -> None:
    ranked = ("--data", f"val={rewards.pairs}", "--rank", "val")
    document = json.loads(call("eval", "rm", *rewards.llamas, *ranked, "--json").stdout)
    accuracies = [each["val"]["accuracy"] for each in document["individuals"].values()]
    assert accuracies == sorted(accuracies, reverse=True)
    shown = call("eval", "rm", *rewards.llamas, *ranked, "--precision", "bfloat16").stdout
    for said in ("best first on val", "WA of 3", "ENS of 3", "clean", "odd", "Agreement on val", "seconds"):
        assert said in shown


def test_a_model_that_says_the_same_of_everything_comes_last_and_passes_no_gate(
    call: Call, rewards: Rewards, tmp_path: Path
) -> None:
    silent = shutil.copytree(rewards.llamas[1], tmp_path / "silent")
    weights = tiny.tensors(silent)
    save_file(
        {name: each * 0 if name == "score.weight" else each for name, each in weights.items()},
        silent / "model.safetensors",
        metadata={"format": "pt"},
    )
    gated = ("--data", f"val={rewards.pairs}", "--at-least", "val=0.51")
    report = json.loads(call("eval", "rm", silent, *gated, "--json", code=1).stdout)["individuals"][str(silent)]["val"]
    assert (report["accuracy"], report["won"], report["tied"]) == (1, 0.5, 20)
    both = (silent, rewards.llamas[0], "--data", f"val={rewards.pairs}", "--rank", "val")
    document = json.loads(call("eval", "rm", *both, "--json").stdout)
    assert document["rank"] == "val"
    won = [each["val"]["won"] for each in document["individuals"].values()]
    assert won == sorted(won, reverse=True)
    assert "best first on val, where the choice flatters them" in " ".join(call("eval", "rm", *both).stdout.split())


def test_one_model_prints_its_table(call: Call, rewards: Rewards) -> None:
    shown = call("eval", "rm", rewards.berts[0], "--data", rewards.pairs, "--max-length", 12)
    assert "accuracy (95%)" in shown.stdout
    assert "pairs are longer than 12 tokens and were cut" in shown.stderr


def test_models_that_cannot_be_averaged_are_refused_before_scoring(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    data = ("--data", rewards.pairs)
    done = call("eval", "rm", rewards.llamas[0], rewards.berts[0], *data, "--json", code=1)
    assert "bert-0 does not fit" in done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "MismatchError"
    renamed = shutil.copytree(rewards.llamas[0], tmp_path / "renamed")
    content = json.loads((renamed / "tokenizer.json").read_text())
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"] = dict(zip([*words[:-2], words[-1], words[-2]], range(len(words))))
    (renamed / "tokenizer.json").write_text(json.dumps(content))
    done = call("eval", "rm", rewards.llamas[1], renamed, *data, "--json", code=1)
    assert json.loads(done.stdout)["error"]["kind"] == "MismatchError"
    assert "token" in done.stderr


def test_what_cannot_be_asked_is_refused(call: Call, rewards: Rewards) -> None:
    a, b, data = rewards.llamas[0], rewards.llamas[1], ("--data", rewards.pairs)
    for arguments, said in (
        ((a, b, *data, "--rank", "pear"), "--rank pear: no such data set"),
        ((a, a, *data), "twice"),
        ((a, *data, "--plot", "x.png"), "give at least two"),
        ((a, b, *data, "--plot", "x.docx"), "expected a picture"),
        ((a, *data, *data), "there is another 'pairs'"),
    ):
        assert said in call("eval", "rm", *arguments, code=2).stderr
    assert "cannot be read" in call("eval", "rm", a, "--data", "missing.jsonl", code=1).stderr


def test_names_tell_paths_apart() -> None:
    assert short_names(["runs/a/model"]) == ["runs/a/model"]
    assert short_names(["a", "./b"]) == ["a", "b"]
    assert short_names(["hf://x/rm@1", "hf://x/rm@2"]) == ["rm@1", "rm@2"]
    assert short_names(["model", "a/model"]) == ["model", "a"]
    assert short_names(["a", "a/model"]) == ["a", "a/model"]


def test_a_gate_lets_a_good_model_pass_and_stops_a_bad_one(call: Call, rewards: Rewards) -> None:
    sets = ("--data", f"val={rewards.pairs}")
    document = json.loads(call("eval", "rm", rewards.llamas[0], *sets, "--json").stdout)
    (accuracy,) = (each["val"]["accuracy"] for each in document["individuals"].values())
    call("eval", "rm", rewards.llamas[0], *sets, "--at-least", f"val={accuracy}")
    done = call("eval", "rm", rewards.llamas[0], *sets, "--at-least", f"val={accuracy + 0.01}", "--json", code=1)
    assert json.loads(done.stdout) == document, "one document all the same"
    assert f"below what was asked: val {accuracy:.4g}, at least {accuracy + 0.01:.4g}" in done.stderr
    wa = json.loads(call("eval", "rm", *rewards.llamas, *sets, "--json").stdout)["wa"]["val"]["accuracy"]
    assert "WA of 3" in call("eval", "rm", *rewards.llamas, *sets, "--at-least", f"val={wa + 0.01}", code=1).stderr
    for given, said in (
        ("val", "expected NAME=NUMBER"),
        ("vall=1", "there is no 'vall'; did you mean 'val'?"),
        ("val=80", "--at-least val=80: expected a share from 0 to 1, for instance val=0.8"),
    ):
        assert said in call("eval", "rm", rewards.llamas[0], *sets, "--at-least", given, code=2).stderr


def test_one_number_alone_is_what_a_gate_looks_at(call: Call, rewards: Rewards) -> None:
    model, sets = rewards.llamas[0], ("--data", f"val={rewards.pairs}")
    (report,) = json.loads(call("eval", "rm", model, *sets, "--json").stdout)["individuals"].values()
    for quiet in ((), ("-q",)):
        assert call("eval", "rm", model, *sets, "--print", "val", *quiet).stdout == f"{report['val']['won']}\n"
    wa = json.loads(call("eval", "rm", *rewards.llamas, *sets, "--json").stdout)["wa"]["val"]["won"]
    assert call("eval", "rm", *rewards.llamas, *sets, "--print", "val").stdout == f"{wa}\n"
    failed = call("eval", "rm", model, *sets, "--print", "val", "--at-least", "val=1", code=1)
    assert float(failed.stdout) == report["val"]["won"], "what a gate stops is printed all the same"
    assert (
        "--print vall: there is no 'vall'; did you mean 'val'?"
        in call("eval", "rm", model, *sets, "--print", "vall", code=2).stderr
    )
    assert "give one of them" in call("eval", "rm", model, *sets, "--print", "val", "--json", code=2).stderr


def test_the_number_chooses_a_greedy_soup_in_one_line(call: Call, rewards: Rewards) -> None:
    score = f"{forks.shims() / 'warmkit'} eval rm {{}} --data val={rewards.pairs} --print val"
    done = json.loads(call("soup", "--greedy", "--score", score, *rewards.llamas[:2], "-o", "soup", "--json").stdout)
    alone = json.loads(call("eval", "rm", *rewards.llamas[:2], "--data", f"val={rewards.pairs}", "--json").stdout)
    best = max(each["val"]["won"] for each in alone["individuals"].values())
    assert done["trials"][0]["score"] == best
    assert done["trials"][1]["score"] == alone["wa"]["val"]["won"]


def test_models_that_read_a_text_otherwise_are_refused(call: Call, rewards: Rewards) -> None:
    """All are scored as the first one reads: another padding token, or another template, would be a wrong number."""
    for name, file, old, new in (
        ("padding", "config.json", '"pad_token_id": 3', '"pad_token_id": 2'),
        ("template", "chat_template.jinja", "[{{", "sun {{"),
    ):
        shutil.copytree(rewards.llamas[1], name)
        content = (Path(name) / file).read_text()
        assert old in content
        (Path(name) / file).write_text(content.replace(old, new))
    chats = [{"prompt": [{"role": "user", "content": "the cat"}], "chosen": "sings", "rejected": "runs"}]
    tiny.write(Path("chats.jsonl"), chats)
    done = call("eval", "rm", rewards.llamas[0], "padding", "--data", rewards.pairs, code=1)
    assert "padding: pads with '</s>', and" in done.stderr
    done = call("eval", "rm", rewards.llamas[0], "template", "--data", "chats.jsonl", code=1)
    assert "template: reads chats as other tokens than" in done.stderr
    call("eval", "rm", rewards.llamas[0], "template", "--data", rewards.pairs)


def test_equal_pairs_are_refused_or_left_out_and_texts_become_chats(call: Call, rewards: Rewards) -> None:
    rows = [*rewards.rows, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    tiny.write(Path("pairs.jsonl"), rows)
    assert "1 of 21 rows are bad" in call("eval", "rm", rewards.llamas[0], "--data", "pairs.jsonl", code=1).stderr
    done = call("eval", "rm", rewards.llamas[0], "--data", "pairs.jsonl", "--equal-pairs", "skip", "--json")
    assert json.loads(done.stdout)["data"]["pairs"]["skipped"] == 1
    assert "pairs: 1 pairs of equal answers were left out" in done.stderr
    assert "pairs: 20 of 20 pairs are texts, read without the model's chat template (--chat)" in done.stderr
    assert "--chat" not in call("eval", "rm", rewards.llamas[0], "--data", rewards.pairs, "--chat").stderr
