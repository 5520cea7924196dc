"""The demo as a page: what six reward models and their average learned, and what policies made of it."""

from __future__ import annotations

from typing import Any

from warmkit.report.chart import Chart
from warmkit.report.page import Page, Section, Table

ACCURACIES = {"validation": "validation", "ood": "out of distribution"}
MEMORISED = {"train corrupt": "fit to swapped labels", "validation": "validation"}


def page_of(document: dict[str, Any]) -> Page:
    """Return the story in three parts, from what `demo.json` holds."""
    subtitle = f"Seed {document['seed']}, one seed: a story, not evidence"
    sections = [_reward_models(document), _memorised(document), _policies(document), _answers(document)]
    return Page("WARM and WARP in miniature", subtitle, sections, notes=document["notes"])


def accuracy_table(document: dict[str, Any]) -> Table:
    """Return accuracies in percent, a row a reward model."""
    members, measured = document["members"], document["measured"]
    rows = [
        [f"{each['model']}, a member" if each["model"] in members else each["model"], *_percents(each, ACCURACIES)]
        for each in document["reward_models"]
    ]
    caption = (
        f"Accuracy, percent. {measured['ranking']} pairs chose the members of WARM and the ensemble; validation is "
        f"{measured['validation']} others"
    )
    return Table(("reward model", *ACCURACIES.values()), rows, caption=caption)


def memory_table(document: dict[str, Any]) -> Table:
    """Return what models remember that learned a few pairs by heart, in percent, a row a model."""
    rows = [[each["model"], *_percents(each, MEMORISED)] for each in document["memorised"]]
    return Table(("reward model", *MEMORISED.values()), rows, caption="Accuracy, percent, of models that learned by heart")


def _percents(row: dict[str, Any], columns: dict[str, str]) -> list[str]:
    return [f"{row[name]:.1f}" for name in columns]


def policy_table(document: dict[str, Any]) -> Table:
    """Return what each policy is worth, a row a policy."""
    rows = [
        [each["policy"], f"{each['proxy']:+.2f}", f"{each['gold']:+.2f}", f"{round(each['kl'], 2) + 0.0:.2f}"]
        for each in document["policies"]
    ]
    columns = ("policy", "proxy reward above the SFT model", "gold reward", "KL to the SFT model, nats")
    return Table(columns, rows, caption="What the policies are worth")


def _reward_models(document: dict[str, Any]) -> Section:
    rows = [
        {"line": title, "model": each["model"], "accuracy": each[name]}
        for each in document["reward_models"]
        for name, title in ACCURACIES.items()
    ]
    chart = Chart(
        "accuracies",
        "Six reward models, their average and their ensemble",
        rows,
        "model",
        "accuracy",
        x_title="reward model",
        y_title="accuracy, percent",
        kind="points",
        caption="WARM and the ensemble are of the same members.",
    )
    words = (
        "Six reward models learn from the same preferences, of which a quarter are swapped, in different orders and "
        "with different rates, from one SFT model. **WARM** is one model, the mean of the weights of the three "
        f"that rank best ({', '.join(document['members'])}); the ensemble asks the three. The probe is a linear head on the "
        "SFT model that was never fine-tuned."
    )
    return Section("Reward models: WARM", [words, accuracy_table(document), chart])


def _memorised(document: dict[str, Any]) -> Section:
    words = (
        "Other reward models see a few pairs again and again until they know them by heart, swapped ones too. Fit to swapped "
        "labels is what was memorised: less is better, and WARM's claim is that the mean of the weights keeps less of it than "
        "the ensemble."
    )
    return Section("Swapped labels: what is memorised", [words, memory_table(document)])


def _policies(document: dict[str, Any]) -> Section:
    words = (
        "Two policies learn from WARM, each held back by a moving average of itself, and are merged by **SLERP** of their "
        "task vectors, layer by layer. **LITI** draws the merge back towards the SFT model: eta goes from 0, the SFT model, "
        "to 1, the merge, and beyond. A third policy learns from the same reward with nothing that holds it back. The gold "
        "reward is the oracle that labelled the preferences; no policy sees it."
    )
    points, titles = document["points"], {"proxy": "proxy reward above the SFT model", "gold": "gold reward"}
    fronts = [
        Chart(
            f"front-{number}",
            f"{number.capitalize()} reward and KL",
            points,
            "kl",
            number,
            x_title="KL to the SFT model, nats",
            y_title=title,
            order="at",
            caption="Trajectories by steps; the front by eta." if number == "gold" else "",
        )
        for number, title in titles.items()
    ]
    return Section("Policies: WARP", [words, policy_table(document), *reversed(fronts)])


def _answers(document: dict[str, Any]) -> Section:
    rows = [[each["policy"], each["prompt"], each["answer"]] for each in document["examples"]]
    return Section("What they say", [Table(("policy", "prompt", "answer"), rows)])
