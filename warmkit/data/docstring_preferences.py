"""Preference pairs on real text that anyone can rebuild without network: which summary belongs to this docstring?

The prompt is a docstring without its first line, the chosen answer is that line, the rejected one is made of parts of two
such lines. Every rule *exchanges*: what A's rejected summary takes from B's, B's takes from A's. So words, verbs, lengths,
capitals and full stops are as frequent among the rejected as among the chosen, and no habit tells the two apart; who
reads the docstring can.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator
from warmkit.common.whole_files import writing
from warmkit.data.docstrings import SUMMARY_WORDS, Docstring, gather, version_of
from warmkit.data.preferences import Pair, write_pairs
from warmkit.errors import OutputError, UsageError

REACH = 400  # documents tried as the partner of one, at most

# fmt: off
VERBS = tuple(frozenset(group.split()) for group in (  # no two of a group are exchanged: they may mean the same
    """return get fetch retrieve obtain give yield extract list compute calculate evaluate determine find search
    create make build construct generate initialize define""",
    "test check verify validate assert ensure compare",
    "set update change modify replace rename configure",
    "add insert append register store save put",
    "write send emit print display show log report",
    "remove delete drop clear discard pop close stop unregister cancel",
    "read load parse decode open receive import",
    "convert transform encode translate format cast rewrite",
    "run call execute apply invoke start perform",
    "raise represent implement provide handle wrap",
    "merge join combine concatenate split sort reverse",
))
STOP_WORDS = frozenset((
    "about", "after", "also", "been", "before", "being", "between", "both", "does", "each", "else", "ever", "every", "from",
    "given", "have", "into", "like", "more", "most", "must", "object", "only", "other", "over", "same", "should", "some",
    "such", "than", "that", "their", "them", "then", "there", "these", "they", "this", "through", "used", "using", "value",
    "values", "were", "what", "when", "where", "whether", "which", "while", "will", "with", "within", "without", "would",
))  # of four letters and more: shorter words are none that carry meaning
LINKS = ("of", "for", "from", "with", "in", "to", "into", "by", "on", "if", "that", "as", "whether", "using")
# fmt: on

Exchange: TypeAlias = Callable[[Docstring, Docstring], tuple[str, str] | None]
"""Makes the rejected summaries of two docstrings; None where the two do not suit each other."""


# ---- rules ----------------------------------------------------------------------------------------------------------


def neighbour(one: Docstring, two: Docstring) -> tuple[str, str] | None:
    """Give each the summary of the other, from the same file, with at most a third of their words in common."""
    words, others = content(one.summary), content(two.summary)
    if 3 * len(words & others) > len(words | others):
        return None
    return two.summary, one.summary


def verb(one: Docstring, two: Docstring) -> tuple[str, str] | None:
    """Exchange the leading verbs, of different meaning; each summary keeps its person (return, returns)."""
    first, second = FORMS.get(_head(one)), FORMS.get(_head(two))
    if first is None or second is None or first.group == second.group:
        return None
    return _led(second.lemma, first.third, one), _led(first.lemma, second.third, two)


def tail(one: Docstring, two: Docstring) -> tuple[str, str] | None:
    """Exchange what follows the first link both have: return the name *of the thread* and the size *of the window*."""
    words, others = one.summary.split(), two.summary.split()
    for link in LINKS:
        if link in words[2:-1] and link in others[2:-1]:
            here, there = words.index(link, 2), others.index(link, 2)
            made = " ".join(words[:here] + others[there:]), " ".join(others[:there] + words[here:])
            apart = content(" ".join(words[here:])).isdisjoint(content(" ".join(others[there:])))
            sized = all(len(text.split()) in SUMMARY_WORDS for text in made)
            return made if apart and sized and words[:here] != others[:there] else None
    return None


def words(one: Docstring, two: Docstring) -> tuple[str, str] | None:
    """Exchange two content words for two of the same ending (-s, -ing, -ed, -ly) and the same kind of first letter."""
    mine, yours = one.summary.split(), two.summary.split()
    taken = set(map(_bare, mine + yours))
    if len(taken) < 6 or not content(one.summary).isdisjoint(content(two.summary)):
        return None
    swaps: list[tuple[int, int]] = []
    for here in _exchangeable(mine):
        free = [place for place in _exchangeable(yours) if place not in {there for _, there in swaps}]
        match = next((place for place in free if _shape(mine[here]) == _shape(yours[place])), None)
        if match is not None:
            swaps.append((here, match))
    if len(swaps) < 2:
        return None
    for here, there in swaps[-2:]:  # the last are the objects
        a, b = _bare(mine[here]), _bare(yours[there])
        mine[here], yours[there] = mine[here].replace(a, b), yours[there].replace(b, a)
    return " ".join(mine), " ".join(yours)


@dataclass(frozen=True)
class Rule:
    """How rejected summaries are made, and whose parts are exchanged: docstrings of one `file` or one `family`."""

    exchange: Exchange
    scope: str


RULES = {
    "neighbour": Rule(neighbour, "file"),
    "verb": Rule(verb, "family"),
    "tail": Rule(tail, "family"),
    "words": Rule(words, "family"),
}
"""By the name that a pair has in `subset`."""


# ---- words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A verb as it stands in a summary: its lemma, its group of meaning, whether it is in the third person."""

    lemma: str
    group: int
    third: bool


def third_person(lemma: str) -> str:
    """Return `writes` for `write`."""
    if lemma.endswith("y") and lemma[-2] not in "aeiou":
        return lemma[:-1] + "ies"
    return lemma + ("es" if lemma.endswith(("s", "x", "ch", "sh")) else "s")


FORMS = {
    form: Form(lemma, group, third)
    for group, lemmas in enumerate(VERBS)
    for lemma in sorted(lemmas)
    for form, third in ((lemma, False), (third_person(lemma), True))
}


@lru_cache(maxsize=1 << 16)  # a summary meets hundreds of others
def content(text: str) -> frozenset[str]:
    """Return the words that carry meaning: four letters and more, no stop words."""
    return frozenset(word for word in map(_bare, text.split()) if len(word) > 3 and word.lower() not in STOP_WORDS)


def _bare(word: str) -> str:
    return word.strip(".,;:()'\"")


def _head(docstring: Docstring) -> str:
    return docstring.summary.split()[0].lower()


def _led(lemma: str, third: bool, docstring: Docstring) -> str:
    rest = docstring.summary.split()[1:]
    return " ".join([(third_person(lemma) if third else lemma).capitalize(), *rest])


def _exchangeable(summary: Sequence[str]) -> list[int]:
    plain = (_bare(word) for word in summary)
    return [
        place
        for place, word in enumerate(plain)
        if place and word.isalpha() and word.islower() and len(word) > 3 and word not in STOP_WORDS
    ]


def _shape(word: str) -> tuple[str, bool]:
    bare = _bare(word)
    return next((end for end in ("ing", "ed", "ly", "s") if bare.endswith(end)), ""), bare[0] in "aeiou"


# ---- the data set ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How many pairs each split has: train and validation share families, ood has its own."""

    train: int = 2000
    validation: int = 500
    ood: int = 500


@dataclass(frozen=True)
class Packages:
    """Whose docstrings are read; the defaults come with `pip install 'warmkit[train]'`.

    Attributes:
        families: Of train and validation, as in `warmkit.data.docstrings.gather`.
        ood: Of the split out of distribution.
        files: Read of a family at most; None reads all.
    """

    families: Sequence[str] = ("stdlib", "numpy", "numba", "sympy", "networkx", "huggingface_hub", "fsspec", "transformers")
    ood: Sequence[str] = ("torch",)
    files: int | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Return the families of both kinds."""
        return (*self.families, *self.ood)


def docstring_preferences(
    sizes: Sizes | None = None, seed: int = 0, packages: Packages | None = None, advance: Advance | None = None
) -> dict[str, list[Pair]]:
    """Build the splits `train`, `validation` and `ood`; each has as many pairs of every rule, give or take one.

    A source file belongs to one split, and a docstring to one pair. Summaries that a rule makes are ones nobody wrote.

    Args:
        sizes: Pairs of every split.
        seed: Decides which files are for validation, which docstrings meet, and the order.
        packages: Whose docstrings.
        advance: Progress callback.

    Returns:
        The pairs by split; `subset` is the rule, `where` the source file.

    Raises:
        UsageError: If a package is not installed, a family is on both sides, or there are too few docstrings.
    """
    sizes, packages = sizes or Sizes(), packages or Packages()
    if both := set(packages.families) & set(packages.ood):
        raise UsageError(f"expected other families out of distribution, found {', '.join(sorted(both))} on both sides")
    draw = generator("docstring pairs", seed)
    documents = gather(packages.all, packages.files, advance)
    outside = [each for each in documents if each.family in packages.ood]
    validation, train = _parted([each for each in documents if each.family in packages.families], sizes, draw)
    taken = {each.summary for each in documents}
    parts = {"train": train, "validation": validation, "ood": outside}
    return {split: _pairs(split, part, getattr(sizes, split), taken, draw) for split, part in parts.items()}


def _parted(documents: list[Docstring], sizes: Sizes, draw: np.random.Generator) -> tuple[list[Docstring], list[Docstring]]:
    """Part docstrings by file, in proportion to the sizes of validation and training."""
    files = Counter(each.file for each in documents)
    wanted = len(documents) * sizes.validation / max(1, sizes.validation + sizes.train)
    names, held_out = list(files), set[str]()
    for place in draw.permutation(len(names)):
        if wanted > 0:
            held_out.add(names[place])
            wanted -= files[names[place]]
    return [each for each in documents if each.file in held_out], [each for each in documents if each.file not in held_out]


def _pairs(split: str, documents: list[Docstring], size: int, taken: set[str], draw: np.random.Generator) -> list[Pair]:
    free = {id(documents[place]): documents[place] for place in draw.permutation(len(documents))}
    result: list[Pair] = []
    for number, name in enumerate(RULES):
        quota = (size + len(RULES) - 1 - number) // len(RULES)
        found = _matched(name, list(free.values()), quota, taken)
        if len(found) < quota:
            raise UsageError(
                f"{split}: expected docstrings for {quota} pairs of the rule {name!r}, found {len(found)} "
                f"in {len(documents)} docstrings; ask for fewer pairs"
            )
        for document, _ in found:
            del free[id(document)]
        result += [_pair(document, rejected, name) for document, rejected in found[:quota]]
    return [result[place] for place in draw.permutation(len(result))]


def _matched(name: str, documents: list[Docstring], quota: int, taken: set[str]) -> list[tuple[Docstring, str]]:
    """Let each document exchange with the first that suits it, and add what they make to `taken`."""
    rule, result = RULES[name], list[tuple[Docstring, str]]()
    waiting: defaultdict[str, list[Docstring]] = defaultdict(list)
    for document in documents:
        if len(result) >= quota:
            break
        others = waiting[getattr(document, rule.scope)]
        for place, partner in enumerate(others[:REACH]):
            made = rule.exchange(document, partner)
            if made and (rule.scope == "file" or _unwritten(made, taken)):
                result += [(document, made[0]), (partner, made[1])]
                del others[place]
                break
        else:
            others.append(document)
    return result


def _unwritten(made: tuple[str, str], taken: set[str]) -> bool:
    fresh = taken.isdisjoint(made)
    if fresh:
        taken.update(made)
    return fresh


def _pair(document: Docstring, rejected: str, rule: str) -> Pair:
    return Pair(document.body, document.summary, rejected, subset=rule, where=document.file)


def write_docstring_preferences(
    folder: Path,
    sizes: Sizes | None = None,
    seed: int = 0,
    packages: Packages | None = None,
    advance: Advance | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write `train.jsonl`, `validation.jsonl` and `ood.jsonl`, and `about.json`, which says what they were made of.

    Args:
        folder: Where to; created if absent.
        sizes: Pairs of every split.
        seed: As in `docstring_preferences`.
        packages: Whose docstrings.
        advance: Progress callback.
        force: Replace files of these names.

    Returns:
        What `about.json` holds: the seed, the rules, the versions of the packages, counts by rule and by family.

    Raises:
        OutputError: If a file exists and `force` is not set, or cannot be written.
        UsageError: As in `docstring_preferences`.
    """
    names = ("train.jsonl", "validation.jsonl", "ood.jsonl", "about.json")
    if not force and (there := [name for name in names if (folder / name).exists()]):
        raise OutputError(f"{folder / there[0]}: already exists; choose another -o, or replace it with --force")
    sizes, packages = sizes or Sizes(), packages or Packages()
    pairs = docstring_preferences(sizes, seed, packages, advance)
    about = {
        "what": "prompt: a docstring without its first line; chosen: that line; rejected: parts of two such lines",
        "seed": seed,
        "sizes": asdict(sizes),
        "rules": {name: (rule.exchange.__doc__ or "").strip() for name, rule in RULES.items()},
        "versions": {family: version_of(family) for family in packages.all},
        "counts": {split: dict(sorted(Counter(str(each.subset) for each in part).items())) for split, part in pairs.items()},
        "families": {split: dict(Counter(each.where.split("/")[0] for each in part)) for split, part in pairs.items()},
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for split, part in pairs.items():
        write_pairs(part, folder / f"{split}.jsonl", force=force)
    with writing(folder / "about.json"):
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    return about
