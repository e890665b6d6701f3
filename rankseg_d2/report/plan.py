"""Calibration and rules for wanted recalls, from image-level scores alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..ranking import (
    Calibration,
    Reliability,
    Rule,
    choose_threshold,
    choose_topk,
    fit_calibration,
    image_shares,
)
from ..tables import text_table
from .image_scores import ImageScores


@dataclass(frozen=True)
class Plan:
    """What images say about a head."""

    calibration: Calibration  # with the rules
    before: Reliability
    after: Reliability
    refused: tuple[str, ...] = ()  # why a wanted recall has no rule

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.calibration.rules


def plan(images: ImageScores, recalls: Sequence[float], units: Sequence[str]) -> Plan:
    """Fit the calibration, and choose κ and a threshold for each recall of each unit."""
    fitted, before, after = fit_calibration(images.scores, images.present)
    rules, refused = [], []
    for unit in units:
        shares = image_shares(images.present, images.pixels if unit == "pixels" else None)
        for recall in recalls:
            for choose in (choose_topk, choose_threshold):
                try:
                    rules.append(choose(images.scores, shares, recall, images.topk, unit))
                except ValueError as error:  # too few images, or a κ that is too small
                    refused.append(str(error))
    refused = tuple(dict.fromkeys(refused))
    return Plan(replace(fitted, rules=tuple(rules)), before, after, refused)


def describe(planned: Plan) -> str:
    """The rules as a table with their guarantee in words, and what calibration has changed."""
    lines = [text_table([_row(rule) for rule in planned.rules])] if planned.rules else []
    for sentence in dict.fromkeys(rule.sentence() for rule in planned.rules):
        lines += ["", sentence]
    lines += ["", *(f"No rule: {reason}" for reason in planned.refused)]
    before, after = planned.before, planned.after
    lines.append(
        f"Calibration (temperature {planned.calibration.temperature:.3g}, a bias for each "
        f"category): negative log likelihood {before.nll:.4f} -> {after.nll:.4f}, expected "
        f"calibration error {before.ece:.4f} -> {after.ece:.4f}, on the images that it was fitted "
        "on."
    )
    return "\n".join(lines).strip() + "\n"


def _row(rule: Rule) -> dict:
    threshold = "-" if rule.threshold is None else f"{rule.threshold:.3g}"
    return {
        "wanted recall": f"{100 * rule.recall:g} %",
        "of": rule.unit,
        "kappa": rule.topk,
        "threshold": threshold,
        "kept on average": rule.kept,
        "observed recall": f"{100 * rule.observed_recall:.2f} %",
    }
