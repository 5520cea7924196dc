"""`warmkit score` in a pipeline: what it writes, when, and what it does with bad rows."""

from __future__ import annotations

import gzip
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import forks
from tests.cli.conftest import Call, Rewards, json_lines
from tests.unit.training import tiny
from warmkit.evaluation.scoring import windows
from warmkit.modeling.reward_model import load_scorer

transformers = pytest.importorskip("transformers")
CHAT = [{"role": "user", "content": "the cat"}]
SAID = {"role": "assistant", "content": "gold moon"}
KINDS: list[dict[str, Any]] = [
    {"id": 1, "prompt": "the cat", "response": " sleeps"},
    {"prompt": "the cat", "completion": " runs in the old blue river", "note": "größe"},
    {"prompt": "the cat", "answer": ""},
    {"prompt": CHAT, "response": [SAID]},
    {"messages": [*CHAT, SAID]},
    {"prompt": "the cat", "response": "gold moon", "messages": None},
]


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_rows_of_every_kind_are_scored_in_order_as_the_model_scores_them(call: Call, rewards: Rewards) -> None:
    tiny.write(Path("rows.jsonl"), KINDS)
    scored = json_lines(call("score", rewards.llamas[0], "--input", "rows.jsonl").stdout)
    texts = [("the cat", " sleeps"), ("the cat", KINDS[1]["completion"]), ("the cat", ""), (CHAT, [SAID]), (CHAT, [SAID])]
    expected = load_scorer(rewards.llamas[0]).score([*texts, ("the cat", "gold moon")])
    assert [{**row, "score": value} for row, value in zip(KINDS, expected)] == scored
    assert len(set(expected)) == 5  # the two chats are one


def test_pairs_get_both_scores(call: Call, rewards: Rewards) -> None:
    scored = json_lines(call("score", rewards.berts[0], "-i", rewards.pairs).stdout)
    model = load_scorer(rewards.berts[0])
    for side in ("chosen", "rejected"):
        alone = model.score([(row["prompt"], row[side]) for row in rewards.rows])
        np.testing.assert_allclose([row[f"score_{side}"] for row in scored], alone, rtol=0, atol=1e-6)
    assert [row["subset"] for row in scored] == [row["subset"] for row in rewards.rows]


def test_an_ensemble_is_the_mean_of_its_members_even_of_other_architectures(call: Call, rewards: Rewards) -> None:
    members = [rewards.llamas[0], rewards.llamas[1], rewards.berts[0]]
    together = json_lines(call("score", *members, "-i", rewards.pairs).stdout)
    alone = [json_lines(call("score", each, "-i", rewards.pairs).stdout) for each in members]
    for place, row in enumerate(together):
        for side in ("chosen", "rejected"):
            values = [each[place][f"score_{side}"] for each in alone]
            assert row[f"scores_{side}"] == values
            assert row[f"score_{side}"] == pytest.approx(np.mean(values), abs=1e-12)
            assert row[f"disagreement_{side}"] == pytest.approx(np.std(values), abs=1e-12)


def test_windows_change_neither_order_nor_scores(call: Call, rewards: Rewards) -> None:
    whole, ones, threes = (
        json_lines(call("score", rewards.llamas[0], "-i", rewards.pairs, "--window", size).stdout) for size in (512, 1, 3)
    )
    for other in (ones, threes):
        assert [row["prompt"] for row in other] == [row["prompt"] for row in whole]
        np.testing.assert_allclose([row["score_chosen"] for row in other], [row["score_chosen"] for row in whole], atol=1e-5)


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "parquet"])
def test_other_files_of_rows_are_scored_as_lines_are(call: Call, rewards: Rewards, kind: str) -> None:
    expected = json_lines(call("score", rewards.llamas[0], "-i", rewards.pairs).stdout)
    file = Path(f"pairs.{kind}")
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow.parquet import write_table

        write_table(pyarrow.Table.from_pylist(rewards.rows), file)
    elif kind == "json":
        file.write_text(json.dumps(rewards.rows, indent=1))
    else:
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rewards.rows).encode()))
    assert json_lines(call("score", rewards.llamas[0], "-i", file, "--window", 4).stdout) == pytest_approx_rows(expected)


def pytest_approx_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: pytest.approx(value, abs=1e-5) if key.startswith("score") else value for key, value in row.items()}
        for row in rows
    ]


def test_several_answers_get_lists_of_scores(call: Call, rewards: Rewards) -> None:
    """RewardBench 2."""
    row: dict[str, Any] = {
        "prompt": "the cat",
        "chosen": [" sings"],
        "rejected": [" runs", " sleeps", " is old"],
        "num_correct": 1,
        "subset": "Math",
    }
    tiny.write(Path("rows.jsonl"), [row])
    model = load_scorer(rewards.llamas[0])
    [one] = json_lines(call("score", rewards.llamas[0], "-i", "rows.jsonl").stdout)
    assert one["score_chosen"] == pytest.approx(model.score([("the cat", " sings")]), abs=1e-6)
    assert one["score_rejected"] == pytest.approx(model.score([("the cat", each) for each in row["rejected"]]), abs=1e-6)
    [two] = json_lines(call("score", *rewards.llamas[:2], "-i", "rows.jsonl").stdout)
    assert np.shape(two["scores_rejected"]) == (3, 2)
    assert two["score_rejected"] == pytest.approx(np.mean(two["scores_rejected"], 1), abs=1e-12)


def test_texts_at_a_model_with_a_chat_template_are_said_and_put_into_it_by_a_switch(call: Call, rewards: Rewards) -> None:
    tiny.write(Path("rows.jsonl"), [{"prompt": "the cat", "response": "gold moon"}, {"prompt": CHAT, "response": [SAID]}])
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl")
    assert "rows of texts, read without the model's chat template: 1 (--chat puts them into it)" in done.stderr
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl", "--chat")
    first, second = json_lines(done.stdout)
    assert first["score"] == pytest.approx(second["score"], abs=1e-6)
    assert "--chat" not in done.stderr


def test_a_conversation_beside_an_answer_is_its_prompt_or_an_error(call: Call, rewards: Rewards) -> None:
    rows = [{"prompt": "x", "messages": CHAT, "response": "gold moon"}, {"messages": [*CHAT, SAID], "response": "gold moon"}]
    tiny.write(Path("rows.jsonl"), [{"messages": [*CHAT, SAID]}, *rows])
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl", "--on-error", "skip", code=1)
    first, second, third = json_lines(done.stdout)
    assert first["score"] == pytest.approx(second["score"], abs=1e-6)
    assert "expected one answer, found the last of messages and response" in third["error"]


TRL = Path(__file__).parents[1] / "data" / "trl_reward_models"


@pytest.mark.parametrize(
    "name",
    ["gemma-chats", "llama-chats", "llama-texts", "qwen-chats", "qwen-texts", "llama-own-eos", "llama-lora-1", "qwen-lora"],
)
def test_reward_models_of_trl_score_and_evaluate_as_in_trl(call: Call, name: str) -> None:
    expected = json.loads((TRL / name / "scores.json").read_text())
    rows = json_lines(call("score", TRL / name, "-i", TRL / name / "rows.jsonl").stdout)
    for side in ("chosen", "rejected"):
        assert [row[f"score_{side}"] for row in rows] == pytest.approx(expected[side], abs=1e-5)
    document = json.loads(call("eval", "rm", TRL / name, "--data", f"own={TRL / name / 'rows.jsonl'}", "--json").stdout)
    [report] = [each["own"] for each in document["individuals"].values()]
    margins = np.subtract(expected["chosen"], expected["rejected"])
    assert report["accuracy"] == (margins >= 0).mean()
    assert report["loss"] == pytest.approx(np.logaddexp(0, -margins).mean(), abs=1e-5)


@pytest.mark.parametrize("names", [("llama-chats", "llama-chats-2"), ("llama-lora-1", "llama-lora-2")])
def test_reward_models_of_trl_stand_beside_their_average_as_in_transformers(
    call: Call, names: tuple[str, str], tmp_path: Path
) -> None:
    """Whole models and adapters: TRL's own scores of each, transformers' of the average that is written."""
    rows, alone = TRL / names[0] / "rows.jsonl", [json.loads((TRL / name / "scores.json").read_text()) for name in names]
    found = json.loads(call("eval", "rm", *(TRL / name for name in names), "--data", f"own={rows}", "--json").stdout)
    call("soup", *(TRL / name for name in names), "-o", tmp_path / "average")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "average").eval()
    with torch.no_grad():
        average = {
            side: [float(model(torch.tensor([ids])).logits) for ids in alone[0][f"{side}_ids"]]
            for side in ("chosen", "rejected")
        }
    ensemble = {side: np.mean([each[side] for each in alone], axis=0) for side in ("chosen", "rejected")}
    told = [*(each["own"] for each in found["individuals"].values()), found["wa"]["own"], found["ens"]["own"]]
    for report, scores in zip(told, [*alone, average, ensemble]):
        margins = np.subtract(scores["chosen"], scores["rejected"])
        assert report["accuracy"] == (margins >= 0).mean()
        assert report["loss"] == pytest.approx(np.logaddexp(0, -margins).mean(), abs=1e-5)
        assert report["mean"] == pytest.approx(np.mean([scores["chosen"], scores["rejected"]]), abs=1e-5)


# ---- more -----------------------------------------------------------------------------------------------------------


def test_json_is_one_document(call: Call, rewards: Rewards) -> None:
    document = json.loads(call("score", rewards.llamas[0], "-i", rewards.pairs, "--json").stdout)
    assert document["failed"] == 0
    assert [row["prompt"] for row in document["rows"]] == [row["prompt"] for row in rewards.rows]


def test_long_texts_are_cut_and_counted(call: Call, rewards: Rewards) -> None:
    tiny.write(Path("rows.jsonl"), [{"prompt": "the cat " * 20, "response": "gold"}, {"prompt": "a", "response": "b"}])
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl", "--max-length", 16)
    assert "texts longer than the model takes, which were cut: 1" in done.stderr
    cut = load_scorer(rewards.llamas[0], 16).score([("the cat " * 20, "gold")])
    assert json_lines(done.stdout)[0]["score"] == pytest.approx(cut[0], abs=1e-6)


# ---- bad rows -------------------------------------------------------------------------------------------------------

BAD: list[tuple[str, str]] = [
    ("no JSON", "expected a line of JSON in UTF-8"),
    ("[1]", "expected a JSON object"),
    ('{"prompt": "p"}', "expected prompt and response or completion or answer, or messages"),
    ('{"prompt": "p", "response": 3}', "expected response to be text or a list of messages"),
    ('{"response": "r"}', "expected the key 'prompt'"),
    ('{"prompt": "p", "response": "r", "answer": "a"}', "expected one answer, found response and answer"),
    ('{"prompt": "p", "chosen": "x", "rejected": "x"}', "expected chosen and rejected to differ"),
    ('{"messages": [{"role": "user", "content": "x"}]}', "expected messages to end with the assistant's"),
]
GOOD = '{"prompt": "p", "response": "r"}'


def test_a_bad_row_stops_after_those_before_it(call: Call, rewards: Rewards) -> None:
    Path("rows.jsonl").write_text(f"{GOOD}\n\n{GOOD}\nno JSON\n{GOOD}\n")
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl", code=1)
    assert [row.keys() >= {"score"} for row in json_lines(done.stdout)] == [True, True]
    assert done.stderr.strip().splitlines()[-1] == "error: rows.jsonl:4: expected a line of JSON in UTF-8, found 'no JSON'"


def test_bad_rows_are_written_with_their_error_and_reported_by_line(call: Call, rewards: Rewards) -> None:
    Path("rows.jsonl").write_text("".join(f"{bad}\n{GOOD}\n" for bad, _ in BAD))
    done = call("score", rewards.llamas[0], "-i", "rows.jsonl", "--on-error", "skip", code=1)
    scored = json_lines(done.stdout)
    assert ["score" in row for row in scored] == [False, True] * len(BAD)
    assert scored[0]["line"] == 1
    assert scored[4]["prompt"] == "p"
    for place, (_, said) in enumerate(BAD):
        assert said in scored[2 * place]["error"]
        assert any(line.startswith(f"error: rows.jsonl:{2 * place + 1}: {said}") for line in done.stderr.splitlines())
    assert f"{len(BAD)} of {2 * len(BAD)} rows have no score" in done.stderr


def test_a_score_that_is_no_number_is_an_error(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    broken = shutil.copytree(rewards.llamas[0], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file({**weights, "score.weight": torch.full_like(weights["score.weight"], torch.nan)}, broken / "model.safetensors")
    Path("rows.jsonl").write_text(f"{GOOD}\n")
    assert "rows.jsonl:1: the score is nan" in call("score", broken, "-i", "rows.jsonl", code=1).stderr


def test_messages_that_the_chat_template_refuses_are_an_error_of_their_row(
    call: Call, rewards: Rewards, tmp_path: Path
) -> None:
    strict = shutil.copytree(rewards.llamas[0], tmp_path / "strict")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + tiny.CHAT
    (strict / "chat_template.jinja").write_text(refusing)
    tiny.write(Path("rows.jsonl"), [{"messages": [*CHAT, SAID]}, {"messages": [{**CHAT[0], "role": "system"}, SAID]}])
    done = call("score", strict, "-i", "rows.jsonl", code=1)
    assert len(json_lines(done.stdout)) == 1
    assert "rows.jsonl:2: the chat template of " in done.stderr
    assert "no system" in done.stderr


def test_models_that_cannot_score_are_refused(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    tiny.make(tmp_path / "lm", "llama")
    assert "no scalar head" in call("score", "lm", "-i", rewards.pairs, code=1).stderr
    file = rewards.llamas[0] / "model.safetensors"
    assert (
        "expected a model directory with config and tokenizer, found a file"
        in call("score", file, "-i", rewards.pairs, code=1).stderr
    )
    assert "has 96 positions" in call("score", rewards.berts[0], "-i", rewards.pairs, "--max-length", 97, code=2).stderr
    assert "cannot be read" in call("score", rewards.llamas[0], "-i", "missing.jsonl", code=1).stderr
    assert "expected a file of rows, found a directory" in call("score", rewards.llamas[0], "-i", tmp_path, code=1).stderr


def test_a_directory_without_its_tokenizer_or_config_is_refused(call: Call, rewards: Rewards, tmp_path: Path) -> None:
    for name, files in (("bare", ["config.json"]), ("mute", ["tokenizer.json", "tokenizer_config.json"])):
        copy = shutil.copytree(rewards.llamas[0], tmp_path / name)
        for each in files:
            (copy / each).unlink()
        assert f"{name}: transformers cannot load it" in call("score", name, "-i", rewards.pairs, code=1).stderr


# ---- pipes ----------------------------------------------------------------------------------------------------------


def test_windows_close_when_nothing_waits_and_keep_lines_whole() -> None:
    read, write = os.pipe()
    os.write(write, b"1\n\n3\n4\n5")
    stream = windows(read, 2)
    assert next(stream) == [(1, b"1"), (3, b"3")]
    assert next(stream) == [(4, b"4")]
    os.write(write, b"5\n6")
    assert next(stream) == [(5, b"55")]
    os.close(write)
    assert list(stream) == [[(6, b"6")]]
    os.close(read)


def test_a_pipe_answers_before_its_end(rewards: Rewards) -> None:
    command = [sys.executable, "-m", "warmkit", "score", str(rewards.llamas[0]), "--chat", "-q"]
    with forks.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for number in range(3):
            process.stdin.write(json.dumps({"prompt": "a", "response": "b", "id": number}).encode() + b"\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 100)[0]
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert (process.stdout.read(), process.stderr.read(), process.wait()) == (b"", b"", 0)


def test_head_ends_it_quietly(rewards: Rewards, tmp_path: Path) -> None:
    rows = tiny.write(tmp_path / "many.jsonl", [{"prompt": "a", "response": "b " * 30, "pad": "x" * 3000}] * 400)
    line = f"{forks.shims()}/warmkit score {rewards.llamas[0]} --window 8 -q < {rows} | head -1; echo ${{PIPESTATUS[@]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
    first, status = done.stdout.splitlines()
    assert "score" in json.loads(first)
    assert (status, done.stderr) == ("0 0", "")


def test_where_stderr_is_no_terminal_the_rows_are_counted(
    call: Call, rewards: Rewards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmkit.cli.narrator.FIRST", 0.0)
    done = call("score", rewards.llamas[0], "--input", rewards.pairs)
    assert len(done.stdout.splitlines()) == 20
    assert "scoring: done, 20 rows in" in done.stderr
