"""Cost and worth of backbones and views, as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.report.plain import size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.evaluation.economics import Economics
    from featstore.evaluation.viewcurve import ViewPoint


def economics_text(result: Economics) -> str:
    """Tables of prices, of the Pareto front and of redundancy."""
    names = [price.name for price in result.prices]
    prices = [
        [
            p.name,
            "-" if p.milliseconds is None else f"{p.milliseconds:.1f}",
            size(p.bytes),
            f"{p.alone:.3f}",
            f"{p.shapley:+.3f}",
            f"{p.caruana:.2f}",
            f"{p.log_me:.4f}",
            f"{p.h_score:.4f}",
        ]
        for p in result.prices
    ]
    front = [["+".join(b.backbones), f"{b.milliseconds:.1f}", f"{b.score:.3f}"] for b in result.front]
    alike = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, result.redundancy, strict=True)]
    metric = result.metric.upper()
    how = "over all subsets" if result.exact else "over sampled permutations"
    basis = "; ".join(dict.fromkeys(price.basis for price in result.prices))
    return "\n\n".join(
        [
            "What does a backbone cost, and what is it worth?\n"
            + table(
                [
                    "backbone",
                    "ms/image",
                    "vector",
                    f"{metric} alone",
                    "Shapley",
                    "Caruana",
                    "LogME",
                    "H-score",
                ],
                prices,
            ),
            f"Times: {basis}. Shapley: mean gain in {metric} {how}, by the linear probe. {_advice(result)}",
            "Subsets that no cheaper one surpasses (point estimates, not verdicts):\n"
            + table(["backbones", "ms/image", metric], front),
            "How alike are they? (linear CKA; 1 is the same)\n" + table(["", *names], alike),
        ]
    )


def view_curve_text(points: Sequence[ViewPoint]) -> str:
    """One line per number of augmented views."""
    rows = [
        [
            p.views,
            "-" if p.mean is None else f"{p.mean:.3f}",
            f"[{p.interval[0]:.3f}, {p.interval[1]:.3f}]" if p.interval else "",
        ]
        for p in points
    ]
    first = points[0]
    head = table(["augmented views", first.metric.upper(), "95 %"], rows)
    return f"How many views pay? ({first.contestant}, every view a row in training)\n{head}"


def _advice(result: Economics) -> str:
    known = [
        f"{name} {value:+.2f}"
        for name, value in zip(("LogME", "H-score"), result.agreement.values(), strict=True)
        if value is not None
    ]
    if not known:
        return "LogME and H-score are advice only."
    return (
        f"LogME and H-score are advice only: their rank correlation with {result.metric.upper()} alone is"
        f" {', '.join(known)} over {len(result.prices)} backbones."
    )
