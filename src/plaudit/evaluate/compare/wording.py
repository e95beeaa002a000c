"""What a comparison found, in sentences."""

from __future__ import annotations

from plaudit.evaluate.compare.table import Comparison, ComparisonTable
from plaudit.evaluate.overoptimization import Regression, regression_sentence, regressions_under_reward, reward_among
from plaudit.evaluate.report.text import number, p_value, signed, span


def comparison_finding(row: Comparison) -> str:
    """One row of the table: what differs by how much, how sure that is, and what more prompts would tell."""
    gap = f"{signed(row.difference.mean)} {span(row.difference)}"
    tested = f"{p_value(row.p_holm)} corrected, {row.method}"
    start = f"{row.metric}, {row.second} against {row.first}: {gap} ({tested})"
    margin = f"±{number(row.equivalence.margin)}"
    if row.established:
        small = f"; it lies within {margin}, so it hardly matters" if row.equivalent else ""
        return f"{start}: {row.verdict.split()[0]}, beyond chance{small}."
    if row.equivalent:
        return f"{start}: equivalent, the difference is smaller than {margin} ({p_value(row.equivalence_p_holm)})."
    needed = "more prompts than anyone has" if row.prompts_needed is None else f"{row.prompts_needed} prompts"
    return (
        f"{start}: undecided. It may be nothing and it may exceed {margin}: these prompts find differences from "
        f"{number(row.detectable)} on, one as small as this needs {needed}."
    )


def regressions_of(table: ComparisonTable) -> list[Regression]:
    """The pairs whose second system has more reward and is worse in another metric, both beyond chance."""
    reward = reward_among(table.pairing.metrics)
    found = []
    for first, second in dict.fromkeys((row.first, row.second) for row in table.rows):
        metrics = regressions_under_reward(table.of_pair(first, second), reward or "")
        if metrics:
            found.append(Regression(f"{second} (against {first})", metrics))
    return found


def comparison_summary(table: ComparisonTable) -> str:
    """The last line of the command: how many differences are established, and the watch over the reward."""
    rows = table.rows
    found = sum(row.established for row in rows)
    same = sum(row.equivalent and not row.established for row in rows)
    open_ = len(rows) - found - same
    line = f"Of {len(rows)} differences {found} are beyond chance, {same} equivalent, {open_} undecided."
    if reward_among(table.pairing.metrics) is None or len(table.pairing.metrics) < 2:
        return line
    return f"{line} {regression_sentence(regressions_of(table), 'system')}"
