"""A reward model scores as transformers does with the directory that it was written to, alone or averaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import warmkit
from tests.unit.training import tiny
from warmkit.errors import MismatchError, UnsupportedError
from warmkit.modeling.reward_model import RewardModel, load_scorer
from warmkit.training.reward_modeling import save_reward_model

transformers = pytest.importorskip("transformers")
TEXTS = [(each["prompt"], each[side]) for each in tiny.rows(7) for side in ("chosen", "rejected")]


def trained(folder: Path, architecture: str, seed: int = 0) -> RewardModel:
    """Return a reward model whose every weight is its own."""
    reward_model = tiny.load(tiny.model(architecture, folder / architecture), architecture)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reward_model.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return reward_model


def saved(folder: Path, architecture: str, seed: int = 0, name: str = "rm") -> Path:
    save_reward_model(trained(folder, architecture, seed), folder / name)
    return folder / name


def theirs(path: Path, texts: list[tuple[str, str]]) -> list[float]:
    """Score as someone does who knows transformers alone: one padded batch of the saved tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    if tokenizer.cls_token_id is not None:
        batch = tokenizer([x for x, _ in texts], [y for _, y in texts], padding=True, return_tensors="pt")
    else:
        batch = tokenizer([x + y + tokenizer.eos_token for x, y in texts], padding=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**batch).logits[:, 0].tolist()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_scores_are_those_of_transformers_from_the_written_directory(architecture: str, tmp_path: Path) -> None:
    path = saved(tmp_path, architecture)
    ours = trained(tmp_path, architecture).score(TEXTS)
    assert len(set(ours)) == len(TEXTS), "the model tells texts apart"
    assert ours == pytest.approx(theirs(path, TEXTS), abs=1e-5)
    assert ours == pytest.approx(load_scorer(path).score(TEXTS), abs=1e-6)


def test_a_roberta_with_a_head_of_two_layers_scores_as_transformers_does(tmp_path: Path) -> None:
    tokenizer = tiny.roberta_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, max_position_embeddings=98, **shape)
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "init")
    tokenizer.save_pretrained(tmp_path / "init")
    first, second = tiny.load(tmp_path / "init"), tiny.load(tmp_path / "init")
    dense = [each.model.classifier.dense.weight for each in (first, second)]
    assert torch.equal(*dense), "the layer that the checkpoint lacks is the same in every run"
    with torch.no_grad():
        first.head.weight.normal_()
    save_reward_model(first, tmp_path / "rm")
    assert tiny.tensors(tmp_path / "rm")["classifier.out_proj.weight"].shape == (1, 32)
    assert first.score(TEXTS) == pytest.approx(theirs(tmp_path / "rm", TEXTS), abs=1e-5)
    assert first.score(TEXTS) == pytest.approx(load_scorer(tmp_path / "rm").score(TEXTS), abs=1e-6)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_texts_score_the_same_together_and_one_by_one(architecture: str, tmp_path: Path) -> None:
    reward_model = trained(tmp_path, architecture)
    assert reward_model.score(TEXTS) == pytest.approx([reward_model.score([each])[0] for each in TEXTS], abs=1e-5)
    assert reward_model.score([]) == []


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_soup_of_one_model_and_its_copy_is_that_model(architecture: str, tmp_path: Path) -> None:
    a, b = saved(tmp_path, architecture), saved(tmp_path, architecture, name="copy")
    warmkit.soup([a, b], tmp_path / "soup")
    assert load_scorer(tmp_path / "soup").score(TEXTS) == load_scorer(a).score(TEXTS)
    assert theirs(tmp_path / "soup", TEXTS) == theirs(a, TEXTS)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_written_reward_model_has_one_label_and_says_how_to_pad(architecture: str, tmp_path: Path) -> None:
    path = saved(tmp_path, architecture)
    config, tokenizer = json.loads((path / "config.json").read_text()), transformers.AutoTokenizer.from_pretrained(path)
    assert config["num_labels"] == 1
    assert len(config["id2label"]) == len(config["label2id"]) == 1
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert config["pad_token_id"] == tokenizer.pad_token_id
    head = tiny.tensors(path)["classifier.weight" if architecture == "bert" else "score.weight"]
    assert head.shape == (1, tiny.HIDDEN)


def test_a_written_llama_is_readable_by_transformers_4(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama")
    config = json.loads((path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 50_000
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert json.loads((path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert transformers.AutoTokenizer.from_pretrained(path).chat_template == tiny.CHAT


def test_special_tokens_are_written_under_the_name_that_transformers_4_reads(tmp_path: Path) -> None:
    source = tiny.model("llama", tmp_path / "llama")
    file = source / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"extra_special_tokens": ["<s>"]}))
    save_reward_model(tiny.load(source), tmp_path / "rm")
    written = json.loads((tmp_path / "rm" / "tokenizer_config.json").read_text())
    assert written["additional_special_tokens"] == ["<s>"]
    assert "extra_special_tokens" not in written
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "rm")("a")["input_ids"][0] == 1


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no padding", "padding is EOS"])
def test_where_padding_is_eos_the_true_last_token_is_still_read(pad: str | None, tmp_path: Path) -> None:
    source = tiny.make(tmp_path / "init", "llama", own=tiny.llama_tokenizer(pad_token=pad))
    reward_model = tiny.load(source)
    with torch.no_grad():
        reward_model.head.weight.normal_()
    tokens = reward_model.encoder.encode([("the cat", " sings"), ("a grey dog", " sleeps the sun runs a moon")])
    together, alone = reward_model.score_tokens(tokens)[0], reward_model.score_tokens(tokens[:1])[0]
    assert float(together) == pytest.approx(float(alone), abs=1e-5)
    # the head reads EOS: what stands at the last place of the last layer
    with torch.no_grad():
        states = reward_model.model.model(torch.tensor([tokens[0].ids])).last_hidden_state
        expected = float(states[0, -1] @ reward_model.head.weight[0])
    assert expected == pytest.approx(float(alone), abs=1e-5)
    assert torch.allclose(reward_model.features(tokens)[0], states[0, -1], atol=1e-6)
    save_reward_model(reward_model, tmp_path / "rm")
    assert theirs(tmp_path / "rm", TEXTS) == pytest.approx(reward_model.score(TEXTS), abs=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_head_is_linear_in_the_features(architecture: str, tmp_path: Path) -> None:
    reward_model = trained(tmp_path, architecture)
    tokens = reward_model.encoder.encode(TEXTS)
    rewards = reward_model.features(tokens) @ reward_model.head.weight[0].detach()
    assert rewards.tolist() == pytest.approx(reward_model.score_tokens(tokens).tolist(), abs=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_language_model_gets_a_head_of_zeros(architecture: str, tmp_path: Path) -> None:
    reward_model = tiny.load(tiny.model(architecture, tmp_path / "init"), architecture)
    assert not reward_model.head.weight.any()
    assert reward_model.score(TEXTS) == [0.0] * len(TEXTS)


def test_a_scalar_head_that_is_there_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama")
    assert torch.equal(tiny.load(path).head.weight, trained(tmp_path, "llama").head.weight)


def test_layers_that_the_checkpoint_lacks_are_the_same_in_every_run(tmp_path: Path) -> None:
    path = tiny.model("bert", tmp_path / "bert")
    encoder = transformers.BertModel.from_pretrained(path, add_pooling_layer=False)
    encoder.save_pretrained(path)
    assert not any("pooler" in name for name in tiny.tensors(path))
    torch.manual_seed(1)
    first = tiny.load(path).model.state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = tiny.load(path).model.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before), "loading does not move the caller's generator"
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_head_of_two_labels_is_refused(architecture: str, tmp_path: Path) -> None:
    path = tiny.model(architecture, tmp_path / "init")
    config = transformers.AutoConfig.from_pretrained(path, num_labels=2)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(path, config=config)
    classifier.save_pretrained(path)
    with pytest.raises(UnsupportedError, match="has 2 labels, expected a scalar reward"):
        tiny.load(path, architecture)


def test_a_language_model_is_no_scorer(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no scalar head"):
        load_scorer(tiny.model("llama", tmp_path / "init"))


def test_weights_of_another_architecture_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="weights do not fit"):
        trained(tmp_path, "llama").load_weights(trained(tmp_path, "gpt2").model.state_dict())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_loaded_weights_are_what_scores(architecture: str, tmp_path: Path) -> None:
    reward_model, other = trained(tmp_path, architecture), trained(tmp_path, architecture, seed=1)
    reward_model.load_weights(other.model.state_dict())
    assert reward_model.score(TEXTS) == other.score(TEXTS)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_rewards_keep_float32_under_autocast(architecture: str, tmp_path: Path) -> None:
    model = tiny.load(tiny.model(architecture, tmp_path / "init"), architecture)
    with torch.no_grad():
        model.head.weight.normal_()
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.score_tokens(model.encoder.encode([("", text) for text in tiny.sentences(8)]))
    assert not torch.equal(scores, scores.bfloat16().float())
