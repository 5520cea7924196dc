"""Charts of fronts: what eta did is written beside the points, and training lies behind, smooth and faint."""

from __future__ import annotations

from typing import Any

from warmkit.report.chart import Chart
from warmkit.report.html_page import charts_in
from warmkit.report.runs.fronts import PATHS, SMOOTH, front_charts, reward_charts


def point(eta: float, reward: float, kl: float, mix: list[float] | None = None, **more: float) -> dict[str, Any]:
    values = {"reward": reward, "kl_sft": kl, **more}
    spread = {name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name, value in values.items()}
    return {"eta": eta, "coefficients": mix, "values": spread}


FRONT = [point(eta / 10, 1 - (1 - eta / 10) ** 2, (eta / 10) ** 2) for eta in range(11)]
STEPS = [{"step": step, "kl_sft": step / 100, "reward": (step % 7) / 7} for step in range(1, 101)]


def chart(fronts: dict[str, Any], title: str, **more: Any) -> Chart:
    return {each.title: each for each in charts_in(front_charts(fronts, **more))}[title]


def labels(shown: Chart) -> list[tuple[str, str]]:
    return [(row["line"], row["label"]) for row in shown.rows if "label" in row]


def test_etas_are_written_where_there_is_room() -> None:
    shown = chart({"slerp": FRONT}, "Reward against the KL")
    assert labels(shown) == [
        ("slerp", each) for each in ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1")
    ]
    crowded = chart({"slerp": FRONT, "lerp": [dict(each) for each in FRONT]}, "Reward against the KL")
    assert len(labels(crowded)) == len(labels(shown)), "two numbers at one place cannot be read"
    assert "Numbers: eta." in crowded.caption


def test_lambdas_are_written_where_lambda_slides() -> None:
    mixes = [point(1, share, 1 + share, [1 - share, share]) for share in (0.0, 0.5, 1.0)]
    shown = chart({"lerp": mixes}, "Reward against the KL")
    assert labels(shown) == [("lerp", "0"), ("lerp", "0.5"), ("lerp", "1")]
    assert "Numbers: lambda." in shown.caption


def test_training_lies_behind_in_few_smooth_points() -> None:
    shown = chart({"slerp": FRONT}, "Reward against the KL", trajectories={"run-1": STEPS})
    path = [row for row in shown.rows if row.get("run") == "run-1"]
    assert 1 < len(path) <= SMOOTH
    assert {row["line"] for row in path} == {PATHS}
    assert (shown.thin, shown.emphasised) == ("run", ["slerp"])
    assert shown.caption.endswith("faint: means along the training of run-1.")
    assert max(row["reward"] for row in path) < max(each["reward"] for each in STEPS), "noise is averaged"


def test_a_training_without_a_control_is_not_drawn_in_its_chart() -> None:
    controlled = [point(eta, eta, eta, control_gold=eta) for eta in (0.0, 1.0)]
    shown = chart({"slerp": controlled}, "Control gold against the KL", trajectories={"run-1": STEPS})
    assert shown.thin is None


def test_policies_alone_are_named_in_the_front_of_rewards() -> None:
    mixes = [point(1, 0, 1, [1 - share, share], reward_a=share, reward_b=1 - share) for share in (0.0, 0.5, 1.0)]
    (shown,) = reward_charts({"lerp": mixes}, ["helpful", "harmless"])
    assert labels(shown) == [("lerp", "helpful"), ("lerp", "harmless")]
    assert (shown.x_title, shown.y_title) == ("reward a", "reward b")
