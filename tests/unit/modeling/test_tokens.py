"""From text to tokens: ends, beginnings, chats, truncation, padding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training import tiny
from warmkit.data.chats import Chat
from warmkit.errors import DataError, UnsupportedError
from warmkit.modeling.tokens import Encoder, by_length, masked_padding, padding_token

BOS, EOS = 1, 2
QUESTION = [{"role": "user", "content": "the cat"}]
ANSWER = [{"role": "assistant", "content": "sings"}]
LONG = ("the cat sings the sun runs " * 3, "a grey moon sleeps " * 2)


def llama(length: int = 96, **changes: Any) -> Encoder:
    return Encoder(tiny.llama_tokenizer(**changes), length)


def encoded(encoder: Encoder, prompt: Any = "the cat", answer: Any = " sings"):
    return encoder.encode([(prompt, answer)])[0]


# ---- decoders -------------------------------------------------------------------------------------------------------


def test_a_decoder_reads_bos_prompt_answer_eos() -> None:
    encoder = llama()
    tokens = encoded(encoder)
    assert tokens.ids[0] == BOS
    assert tokens.ids[-1] == EOS
    assert tokens.ids.count(BOS) == tokens.ids.count(EOS) == 1
    assert encoder.tokenizer.decode(tokens.ids[1 : tokens.answer]) == "the cat"
    assert encoder.tokenizer.decode(tokens.ids[tokens.answer : -1]) == " sings"
    assert tokens.truncated == 0


def test_there_is_no_bos_where_the_tokenizer_itself_puts_none() -> None:
    tokens = encoded(Encoder(tiny.gpt2_tokenizer(), 96, "<|spare|>"))
    assert tokens.ids.count(0) == 1, "EOS, which is BOS, only at the end"
    assert tokens.ids[-1] == 0


def test_an_end_that_is_there_is_not_put_twice() -> None:
    assert encoded(llama(), answer=" sings</s>").ids == encoded(llama()).ids


def test_a_chat_is_rendered_by_the_template_with_one_beginning_and_one_end() -> None:
    encoder = llama()
    tokens = encoded(encoder, QUESTION, ANSWER)
    assert encoder.tokenizer.decode(tokens.ids) == "<s>[user]the cat</s>[assistant]sings</s>"
    assert encoder.tokenizer.decode(tokens.ids[tokens.answer :]) == "sings</s>"


def test_text_beside_messages_is_the_users_or_the_assistants() -> None:
    encoder = llama()
    chat = encoded(encoder, QUESTION, ANSWER)
    assert encoded(encoder, QUESTION, "sings") == encoded(encoder, "the cat", ANSWER) == chat


OPEN = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + (m['content'] or '') + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


def templated(template: str, **changes: Any) -> Encoder:
    encoder = llama(**changes)
    encoder.tokenizer.chat_template = template
    return encoder


@pytest.mark.parametrize("template", [tiny.CHAT, OPEN, CHATML], ids=["llama", "open", "chatml"])
def test_a_chat_is_what_the_template_writes_and_nothing_else(template: str) -> None:
    encoder = templated(template)
    theirs = encoder.tokenizer.apply_chat_template([*QUESTION, *ANSWER], tokenize=True, return_dict=True)["input_ids"]
    assert encoded(encoder, QUESTION, ANSWER).ids == theirs
    opened = encoder.tokenizer.apply_chat_template(QUESTION, tokenize=True, add_generation_prompt=True, return_dict=True)
    assert encoder.encode_prompts([QUESTION], 90)[0].ids == opened["input_ids"]


@pytest.mark.parametrize(
    ("template", "ends"), [(tiny.CHAT, False), (OPEN, True), (CHATML, False)], ids=["llama", "open", "chatml"]
)
def test_who_learns_to_write_learns_an_end_where_the_template_leaves_the_turn_open(template: str, ends: bool) -> None:
    encoder = templated(template)
    [whole], [closed] = encoder.encode([(QUESTION, ANSWER)]), encoder.encode([(QUESTION, ANSWER)], closed=True)
    assert closed.ids == [*whole.ids, *[EOS] * ends]


def test_a_text_is_what_the_tokenizer_makes_of_it_with_eos_behind() -> None:
    encoder = llama()
    assert encoded(encoder).ids == encoder.tokenizer("the cat sings</s>")["input_ids"]


def test_the_template_is_given_the_tools_and_arguments_of_the_row() -> None:
    encoder = templated("{% for t in tools or [] %}{{ t['name'] }} {% endfor %}{{ word }}" + tiny.CHAT)
    chat = Chat(QUESTION, [{"name": "sun"}], {"word": "moon"})
    assert encoder.tokenizer.decode(encoded(encoder, chat, ANSWER).ids).startswith("sun moon<s>[user]the cat")
    assert encoder.tokenizer.decode(encoder.encode_prompts([chat], 90)[0].ids).startswith("sun moon<s>[user]the cat")


def test_a_chat_that_the_template_cannot_write_is_refused() -> None:
    encoder = templated("{{ messages[-1]['content'] + '.' }}")
    with pytest.raises(DataError, match="refuses a chat of user, assistant: "):
        encoded(encoder, QUESTION, [{"role": "assistant", "content": None}])


def test_a_chat_without_a_template_is_refused() -> None:
    tokenizer = tiny.llama_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UnsupportedError, match="no chat template"):
        encoded(Encoder(tokenizer, 96), QUESTION, ANSWER)


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_the_oldest_tokens_of_a_decoder_go_first_and_bos_and_eos_stay(chat: bool) -> None:
    texts = ([{"role": "user", "content": LONG[0]}], [{"role": "assistant", "content": LONG[1]}]) if chat else LONG
    whole = encoded(llama(), *texts)
    for length in range(8, len(whole) + 1):
        cut = encoded(llama(length), *texts)
        assert len(cut) == length
        assert cut.truncated == len(whole) - length
        assert cut.ids[0] == BOS
        assert cut.ids[1:] == whole.ids[len(whole) - length + 1 :]
        assert cut.answer == max(1, whole.answer - cut.truncated)


def test_the_answer_starts_inside_the_tokens_even_where_it_is_empty() -> None:
    tokens = encoded(llama(), "g", "")
    assert tokens.answer <= len(tokens) - 1


def sentencepiece() -> Any:
    """Return a tokenizer whose words begin with the mark of SentencePiece and whose decoder takes the first one away."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(["<unk>", "</s>", "\u2581a", "\u2581cat", "\u2581sings", "s", "\u2581"])}
    inner = Tokenizer(models.Unigram([(word, -float(place)) for word, place in words.items()], unk_id=0))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")


def test_a_completion_of_a_text_keeps_the_space_that_sentencepiece_takes_from_a_first_word() -> None:
    encoder = Encoder(sentencepiece(), 96)
    assert encoder.tokenizer.decode([4, 3]) == "sings cat"
    assert encoder.decode([[4, 3], [4], [5], []], [True, False, True, True]) == [" sings cat", "sings", "s", ""]
    assert encoder.decode([[4]]) == ["sings"]
    assert "a cat" + encoder.decode([[4]], [True])[0] == "a cat sings"


def test_other_decoders_keep_their_spaces_themselves() -> None:
    encoder = Encoder(tiny.gpt2_tokenizer(), 96)
    ids = encoder.tokenizer([" sings", "sings"])["input_ids"]
    assert encoder.decode(ids, [True, True]) == encoder.decode(ids) == [" sings", "sings"]


# ---- encoders -------------------------------------------------------------------------------------------------------


def test_an_encoder_reads_two_segments() -> None:
    encoder = Encoder(tiny.bert_tokenizer(), 96)
    tokens = encoded(encoder)
    theirs = encoder.tokenizer("the cat", " sings")
    assert tokens.ids == theirs["input_ids"]
    batch = encoder.batch([tokens])
    assert batch.types is not None
    assert batch.types[0].tolist() == theirs["token_type_ids"]


def test_an_encoder_puts_between_texts_what_its_tokenizer_does() -> None:
    encoder = Encoder(tiny.roberta_tokenizer(), 96)
    tokens = encoded(encoder)
    assert tokens.ids == encoder.tokenizer("the cat", " sings")["input_ids"]
    assert encoder.tokenizer.decode(tokens.ids) == "<s>the cat</s></s> sings</s>"
    assert encoder.tokenizer.decode(tokens.ids[tokens.answer :]) == " sings</s>"
    cut = Encoder(tiny.roberta_tokenizer(), 8).encode([LONG])[0]
    assert len(cut) == 8
    assert cut.ids[-1] == 2


def test_an_encoder_loses_the_end_of_the_prompt_then_of_the_answer() -> None:
    tokenizer = tiny.bert_tokenizer()
    whole = encoded(Encoder(tokenizer, 96), *LONG)
    prompt, answer = whole.ids[1 : whole.answer - 1], whole.ids[whole.answer : -1]
    for length in range(8, len(whole) + 1):
        cut = encoded(Encoder(tokenizer, length), *LONG)
        room = length - 3
        assert cut.ids[1 : cut.answer - 1] == prompt[: max(0, room - len(answer))]
        assert cut.ids[cut.answer : -1] == answer[:room]
        assert [cut.ids[0], cut.ids[cut.answer - 1], cut.ids[-1]] == [whole.ids[0], whole.ids[-1], whole.ids[-1]]
        assert cut.truncated == len(whole) - length


def test_an_encoder_whose_tokenizer_knows_no_token_types_gets_none() -> None:
    tokenizer = tiny.bert_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # RoBERTa has one type, DistilBERT none
    encoder = Encoder(tokenizer, 96)
    assert set(encoder.batch(encoder.encode([("a", "b")])).inputs()) == {"input_ids", "attention_mask"}


# ---- padding --------------------------------------------------------------------------------------------------------


def test_batches_are_padded_on_the_right() -> None:
    encoder = llama()
    batch = encoder.batch(encoder.encode([("the cat", " sings"), ("a", " grey dog sleeps")]))
    short = int(batch.mask[0].sum())
    assert batch.mask[0].tolist() == [1] * short + [0] * (batch.mask.shape[1] - short)
    assert batch.ids[0, short:].unique().tolist() == [encoder.pad_id]


PADDING = {
    "its own": ({}, "<pad>"),
    "none": ({"pad_token": None}, "<unk>"),
    "EOS": ({"pad_token": "</s>"}, "<unk>"),
    "EOS and no unknown": ({"pad_token": "</s>", "unk_token": None}, "<s>"),
}


@pytest.mark.parametrize("case", PADDING)
def test_padding_is_never_the_token_that_ends_a_text(case: str) -> None:
    changes, expected = PADDING[case]
    assert padding_token(tiny.llama_tokenizer(**changes)) == expected


def test_a_padding_token_can_be_chosen() -> None:
    assert padding_token(tiny.gpt2_tokenizer(), "<|spare|>") == "<|spare|>"


@pytest.mark.parametrize("wanted", ["</s>", "<nowhere>"])
def test_a_chosen_padding_token_must_be_a_token_other_than_eos(wanted: str) -> None:
    with pytest.raises(UnsupportedError, match=f"pad_token '{wanted}'.*other than EOS"):
        padding_token(tiny.llama_tokenizer(), wanted)


def test_a_tokenizer_without_another_token_to_pad_with_is_refused_with_advice() -> None:
    tokenizer = tiny.byte_tokenizer(["</s>"], eos_token="</s>", pad_token="</s>")
    with pytest.raises(UnsupportedError, match=r"no padding token other than EOS; set model\.pad_token"):
        padding_token(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    assert padding_token(tokenizer) == "<|im_start|>"


def test_what_is_masked_can_be_padded_with_any_token_but_eos() -> None:
    tokenizer = tiny.gpt2_tokenizer()
    assert masked_padding(tokenizer) == "<|spare|>", "the first of the vocabulary"
    assert masked_padding(tokenizer, "a") == "a"
    assert masked_padding(tiny.llama_tokenizer()) == "<pad>"
    with pytest.raises(UnsupportedError, match="other than EOS"):
        masked_padding(tokenizer, "<|endoftext|>")


def test_a_decoder_without_eos_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no EOS token, so no answer ends"):
        llama(eos_token=None)


# ---- groups ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 120), max_size=60),
    st.integers(1, 2000),
    st.floats(0, 1),
    st.integers(1, 30),
)
def test_groups_cover_every_text_once_and_only_a_text_alone_is_too_large(
    lengths: list[int], most: int, waste: float, least: int
) -> None:
    groups = by_length(lengths, most, waste, least)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * max(lengths[place] for place in group) <= most or len(group) == 1
