from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from warmkit.data.docstring_preferences import (
    FORMS,
    RULES,
    VERBS,
    Packages,
    Sizes,
    content,
    docstring_preferences,
    neighbour,
    tail,
    third_person,
    verb,
    words,
    write_docstring_preferences,
)
from warmkit.data.docstrings import Docstring
from warmkit.data.preferences import Pair, read_pairs
from warmkit.errors import OutputError, UsageError

SIZES = Sizes(train=80, validation=24, ood=32)  # whole exchanges
SMALL = Packages(("stdlib",), ("numpy",), files=150)


def of(summary: str, file: str = "a/b.py") -> Docstring:
    return Docstring("a", file, summary, "A body.")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Pair]]:
    return docstring_preferences(SIZES, seed=3, packages=SMALL)


@pytest.fixture(scope="module")
def pairs(splits) -> list[Pair]:
    return [pair for part in splits.values() for pair in part]


def test_splits_have_their_sizes_and_as_many_pairs_of_every_rule(splits):
    assert {name: len(part) for name, part in splits.items()} == {"train": 80, "validation": 24, "ood": 32}
    for part in splits.values():
        counts = Counter(pair.subset for pair in part)
        assert set(counts) == set(RULES)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_seed_decides_every_pair(splits):
    assert docstring_preferences(SIZES, seed=3, packages=SMALL) == splits
    other = docstring_preferences(SIZES, seed=4, packages=SMALL)
    assert {pair.where for pair in other["validation"]} != {pair.where for pair in splits["validation"]}


def test_splits_share_no_text_and_no_file(splits):
    texts = [{text for pair in part for text in (pair.prompt, pair.chosen, pair.rejected)} for part in splits.values()]
    files = [{pair.where for pair in part} for part in splits.values()]
    for groups in (texts, files):
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_train_and_validation_share_families_and_ood_has_its_own(splits):
    families = {split: {pair.where.split("/")[0] for pair in part} for split, part in splits.items()}
    assert families == {"train": {"stdlib"}, "validation": {"stdlib"}, "ood": {"numpy"}}


def test_a_docstring_is_in_one_pair_and_its_summaries_differ(pairs):
    assert len({pair.prompt for pair in pairs}) == len({pair.chosen for pair in pairs}) == len(pairs)
    assert all(pair.chosen != pair.rejected for pair in pairs)


@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())], ids=["characters", "words"])
def test_no_rule_of_length_tells_chosen_from_rejected(pairs, measure):
    wins = sum((measure(pair.chosen) > measure(pair.rejected)) for pair in pairs)
    ties = sum((measure(pair.chosen) == measure(pair.rejected)) for pair in pairs)
    assert 0.4 < (wins + ties / 2) / len(pairs) < 0.6


def vocabulary(texts: Iterable[str]) -> Counter[str]:
    """Count the words, without punctuation, with verbs at the start as their lemmas."""
    words = [[word.strip(".,;:()'\"") for word in text.split()] for text in texts]
    heads = (FORMS[line[0].lower()].lemma if line[0].lower() in FORMS else line[0] for line in words)
    return Counter([*heads, *(word for line in words for word in line[1:])])


@pytest.mark.parametrize("rule", RULES)
def test_each_word_is_as_frequent_among_the_rejected_as_among_the_chosen(splits, rule):
    for part in splits.values():
        mine = [pair for pair in part if pair.subset == rule]
        assert vocabulary(str(pair.chosen) for pair in mine) == vocabulary(str(pair.rejected) for pair in mine)


def test_chosen_and_rejected_alike_have_a_full_stop_and_persons_stay(pairs):
    assert all(pair.chosen.endswith(".") and pair.rejected.endswith(".") for pair in pairs)
    heads = [(FORMS[p.chosen.split()[0].lower()], FORMS[p.rejected.split()[0].lower()]) for p in pairs if p.subset == "verb"]
    assert all(one.third == two.third and one.group != two.group for one, two in heads)


def test_made_summaries_are_ones_nobody_wrote(splits):
    for part in splits.values():
        chosen = {pair.chosen for pair in part}
        assert not any(pair.rejected in chosen for pair in part if pair.subset != "neighbour")


def test_neighbours_exchange_whole_summaries_of_different_words():
    one, two = of("Return the size of the window."), of("Close every open socket.")
    assert neighbour(one, two) == (two.summary, one.summary)
    assert neighbour(one, of("Set the size of the window.")) is None


def test_verbs_are_exchanged_in_the_person_of_the_summary():
    assert verb(of("Return the size."), of("Writes the file.")) == ("Write the size.", "Returns the file.")
    assert verb(of("Applies the patch."), of("Search the tree.")) == ("Searches the patch.", "Apply the tree.")


def test_verbs_of_one_meaning_or_none_are_not_exchanged():
    assert verb(of("Return the size."), of("Get the file.")) is None
    assert verb(of("Return the size."), of("The file.")) is None


def test_tails_are_exchanged_from_a_link_that_both_have():
    one, two = of("Return the name of the current thread."), of("Set the size of a window.")
    assert tail(one, two) == ("Return the name of a window.", "Set the size of the current thread.")


@pytest.mark.parametrize("other", ["Set the size.", "Set the size of this thread.", "Return the name of a window."])
def test_tails_without_a_common_link_or_with_common_words_or_heads_are_not_exchanged(other):
    assert tail(of("Return the name of the current thread."), of(other)) is None


def test_two_content_words_are_exchanged_for_words_of_their_shape():
    one, two = of("Return the remaining bytes, as text."), of("Close the waiting sockets at exit.")
    assert words(one, two) == ("Return the waiting sockets, as text.", "Close the remaining bytes at exit.")


def test_words_are_not_exchanged_where_only_one_suits():
    assert words(of("Return the remaining bytes."), of("Close every socket at once.")) is None


def test_no_verb_is_in_two_groups_and_persons_are_distinct():
    lemmas = [lemma for group in VERBS for lemma in group]
    assert len(set(lemmas)) == len(lemmas)
    assert len(FORMS) == 2 * len(lemmas)
    assert [third_person(lemma) for lemma in ("apply", "display", "fetch", "write")] == [
        "applies",
        "displays",
        "fetches",
        "writes",
    ]


def test_content_leaves_out_stop_words_and_punctuation():
    assert content("Return the value of (each) window, or 'None'.") == {"Return", "window", "None"}


def test_too_few_docstrings_are_an_error_that_says_so():
    with pytest.raises(UsageError, match=r"train: expected docstrings for 500 pairs of the rule 'neighbour', found \d+ in \d+"):
        docstring_preferences(Sizes(2000, 10, 10), packages=replace(SMALL, files=20))


def test_a_family_on_both_sides_is_refused():
    with pytest.raises(UsageError, match="found numpy on both sides"):
        docstring_preferences(packages=Packages(("stdlib", "numpy"), ("numpy",)))


def test_what_is_written_is_what_was_built(splits, tmp_path):
    about = write_docstring_preferences(tmp_path / "new" / "out", SIZES, seed=3, packages=SMALL)
    for split, part in splits.items():
        read = read_pairs(tmp_path / "new" / "out" / f"{split}.jsonl")
        assert [replace(pair, where="") for pair in read] == [replace(pair, where="") for pair in part]
    assert json.loads((tmp_path / "new" / "out" / "about.json").read_text()) == about
    assert about["counts"]["train"] == dict.fromkeys(sorted(RULES), 20)
    assert set(about["versions"]) == {"stdlib", "numpy"}
    assert set(about["rules"]) == set(RULES)


def test_a_data_set_is_replaced_with_force_alone(tmp_path):
    tiny = Sizes(10, 5, 4)
    (tmp_path / "ood.jsonl").write_text("mine")
    with pytest.raises(OutputError, match=r"ood.jsonl: already exists; choose another -o, or replace it with --force"):
        write_docstring_preferences(tmp_path, tiny, packages=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["ood.jsonl"]
    about = write_docstring_preferences(tmp_path, tiny, force=True, packages=SMALL)
    assert len(read_pairs(tmp_path / "ood.jsonl")) == 4
    assert sorted(about["counts"]["train"].values()) == [2, 2, 3, 3]
