"""The demo as a page: what six reward models and their average learned, and what policies made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warmkit.common.whole_files import writing
from warmkit.evidence.demo.demo_answers import POLICY_NAMES, answers, language
from warmkit.evidence.demo.demo_conclusions import number, of_memory, of_policies, of_reward_models
from warmkit.report.chart import Chart
from warmkit.report.html_page import Cell, Page, Section, Table
from warmkit.report.picture import svg

Document = Mapping[str, Any]
ACCURACIES = {"validation": "validation", "ood": "out of distribution"}
MEMORISED = {"train corrupt": "swapped labels repeated", "validation": "validation"}
NAMES = {**POLICY_NAMES, "ensemble of all": "ensemble of all six"}


def page_of(document: Document) -> Page:
    """Return the story, from what `demo.json` holds."""
    subtitle = (
        f"Seed {document['seed']}, one seed: a story, not evidence. Another one: `warmkit demo --seed {document['seed'] + 1}`"
    )
    sections = [language(), _reward_models(document), _memorised(document), _policies(document), answers(document["examples"])]
    return Page("WARM and WARP in miniature", subtitle, sections, notes=document["notes"])


def told(document: Document) -> list[tuple[Table, str]]:
    """Return the tables of the story, each with what it says."""
    return [
        (accuracy_table(document), of_reward_models(document)),
        (memory_table(document), of_memory(document)),
        (policy_table(document), of_policies(document)),
    ]


def write_front(document: Document, path: Path) -> None:
    """Draw the front of gold reward and KL into a file.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(path):
        path.write_text(svg(front_chart(document)), "utf-8")


# ---- tables -------------------------------------------------------------------------------------------------------------


def accuracy_table(document: Document) -> Table:
    """Return accuracies, a row a reward model, and what asking it costs."""
    measured = document["measured"]
    rows = [[_named(document, row["model"]), row["models"], *_shares(row, ACCURACIES)] for row in document["reward_models"]]
    caption = (
        f"Accuracy. {measured['ranking']} pairs chose the members of WARM and the best single model; validation is "
        f"{measured['validation']} others"
    )
    return Table(("reward model", "models to ask", *ACCURACIES.values()), rows, caption=caption)


def memory_table(document: Document) -> Table:
    """Return what models make of swapped labels that they learned by heart, a row a model."""
    models, rows = document["memorised"], list[list[Cell]]()
    mean = f"mean of the {number(models[-1]['models'])}"
    for row in models:
        name = mean if row["model"] == "mean of the members" else row["model"]
        rows.append([name, row["models"], *_shares(row, MEMORISED)])
    caption = f"Accuracy of models that learned by heart; {document['memorised_pairs']} labels were swapped"
    return Table(("reward model", "models to ask", *MEMORISED.values()), rows, caption=caption)


def policy_table(document: Document) -> Table:
    """Return what each policy is worth, a row a policy."""
    rows = [
        [_name(row["policy"]), f"{row['proxy']:+.2f}", f"{row['gold']:+.2f}", f"{round(row['kl'], 2) + 0.0:.2f}"]
        for row in document["policies"]
    ]
    columns = ("policy", "reward above the SFT model", "gold reward", "KL to the SFT model, nats")
    caption = "What the policies are worth. The one without an anchor is policy 1 once more, the same in everything else"
    return Table(columns, rows, caption=caption)


def _shares(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return [f"{row[name]:.3f}" for name in columns]


def _name(name: str) -> str:
    return NAMES.get(name, name)


def _named(document: Document, name: str) -> str:
    if name in document["members"]:
        return f"{name}, a member"
    return f"{name}: {document['best']}" if name == "best single" else _name(name)


# ---- charts -------------------------------------------------------------------------------------------------------------


def accuracy_chart(document: Document) -> Chart:
    """Draw the accuracies of the reward models."""
    rows = [
        {"line": title, "model": _name(each["model"]), "accuracy": each[name]}
        for each in document["reward_models"]
        if each["model"] != "best single"
        for name, title in ACCURACIES.items()
    ]
    return Chart(
        "accuracies",
        "Six reward models, their average and their ensembles",
        rows,
        "model",
        "accuracy",
        x_title="reward model",
        y_title="accuracy",
        kind="points",
        caption="WARM and the ensemble are of the same members.",
    )


def front_chart(document: Document, reward: str = "gold") -> Chart:
    """Draw a reward against the KL: the policies on their way, and the front of their merge."""
    titles = {"proxy": "reward above the SFT model", "gold": "gold reward"}
    return Chart(
        f"front-{reward}",
        f"{'Gold reward' if reward == 'gold' else 'Reward'} and KL",
        [{**point, "line": _name(point["line"])} for point in document["points"]],
        "kl",
        reward,
        x_title="KL to the SFT model, nats",
        y_title=titles[reward],
        order="at",
        caption="Policies by steps of training; SLERP and LITI by eta, from 0, the SFT model, over 1, the merge, to 1.2."
        if reward == "gold"
        else "What the policies learned from: it goes on rising where the gold reward falls.",
    )


# ---- sections -----------------------------------------------------------------------------------------------------------


def _reward_models(document: Document) -> Section:
    words = (
        "Six reward models learn from the same preferences, of which a quarter are swapped, in different orders and "
        "with different rates, from one SFT model. **WARM** is one model, the mean of the weights of the "
        f"{len(document['members'])} that rank best ({', '.join(document['members'])}); the ensembles ask several models and "
        "average their rewards. The probe is a linear head on the SFT model, which was never fine-tuned."
    )
    return Section(
        "Reward models: WARM", [words, accuracy_table(document), of_reward_models(document), accuracy_chart(document)]
    )


def _memorised(document: Document) -> Section:
    words = (
        "Other reward models see a few pairs again and again until they know them by heart, the swapped ones too. How many "
        "swapped labels a model repeats is what it memorised: less is better. WARM's claim is that the mean of the weights "
        "keeps less of that than the ensemble, since each model learns it in its own way."
    )
    return Section("Swapped labels: what is memorised", [words, memory_table(document), of_memory(document)])


def _policies(document: Document) -> Section:
    words = (
        "Two policies learn from WARM, each held back by a moving average of itself (its anchor), and are merged by **SLERP** "
        "of their task vectors, layer by layer. **LITI** draws the merge back towards the SFT model: eta goes from 0, the SFT "
        "model, to 1, the merge, and beyond. Then policy 1 is trained once more without its anchor: same start, same prompts "
        "in the same order, same random numbers. No policy sees the gold reward."
    )
    blocks = [
        words,
        policy_table(document),
        of_policies(document),
        *(front_chart(document, each) for each in ("gold", "proxy")),
    ]
    return Section("Policies: WARP", blocks)
