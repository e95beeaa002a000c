"""Numbers and findings in words: what each figure shows, and how sure it is."""

from __future__ import annotations

from plaudit.evaluate.changes import Change
from plaudit.evaluate.overoptimization import Paid, flag_sentence
from plaudit.evaluate.report.names import IN_SENTENCES
from plaudit.evaluate.report.results import Results, StageRow
from plaudit.evaluate.statistics import Interval
from plaudit.evaluate.sweeps.score import Sweep, SweepRow

MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 3) -> str:
    """A number with a real minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A number that always shows its sign, for differences."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0.0 else f"+{text}"


def span(interval: Interval, digits: int = 3) -> str:
    """The ends of an interval: "[0.051, 0.193]"."""
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]"


def percent(value: float, digits: int = 0) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f} %"


def percent_span(interval: Interval, digits: int = 0) -> str:
    """The ends of an interval of a share: "[46 %, 61 %]"."""
    return f"[{percent(interval.low, digits)}, {percent(interval.high, digits)}]"


def p_value(p: float) -> str:
    """ "p = 0.031", or "p < 0.001" below what anyone should read into."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float) -> str:
    """ "48 s", "14 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int) -> str:
    """Bytes in GB (10^9)."""
    return f"{size / 1e9:.1f} GB"


def stage_findings(results: Results, utility_name: str) -> list[tuple[str, str]]:
    """For each stage after the first, its title and what it did to every metric, compared with the stage before."""
    return [(row.title, _changes_in_words(row.changes, utility_name)) for row in results.stages[1:]]


def overall_finding(results: Results, utility_name: str) -> str:
    """What all stages together did; empty where there are fewer than three, which `stage_findings` says all about."""
    if not results.overall:
        return ""
    first, last = results.stages[0], results.stages[-1]
    sentence = f"From {first.title} to {last.title}, the chain {_changes_in_words(results.overall, utility_name)}"
    if last.wins_baseline is not None:
        share = f"{percent(last.wins_baseline.mean)} {percent_span(last.wins_baseline)}"
        sentence += f" {last.title} wins {share} of prompts against {first.title}, by "
        sentence += f"{utility_name if results.wins_by == 'utility' else 'reward'}."
    return sentence


def _changes_in_words(changes: list[Change], utility_name: str) -> str:
    """ "raised mean reward by 0.12 [0.05, 0.19]. No change in CLAP score (...) can be told from chance ..." """
    names = IN_SENTENCES | {"utility": utility_name}
    established = [change for change in changes if change.established]
    verdicts = {
        "raised": [f"{names[c.metric]} by {_amount(c.difference)}" for c in established if c.difference.mean > 0],
        "lowered": [f"{names[c.metric]} by {_amount(c.difference)}" for c in established if c.difference.mean < 0],
    }
    uncorrected = [c for c in changes if c.difference.excludes_zero and not c.established]
    within = [c for c in changes if not c.difference.excludes_zero]
    parts = [f"{verb} {_listed(what)}" for verb, what in verdicts.items() if what]
    sentences = [" and ".join(parts) or "made no established difference"]
    for change in uncorrected:
        sentences.append(
            f"A change in {names[change.metric]} of {_gap(change)} does not survive the correction for many tests"
            f" ({p_value(change.p_holm or 0.0)})"
        )
    if within:
        what = _listed([f"{names[c.metric]} ({_gap(c)})" for c in within], "or")
        includes = "the interval includes" if len(within) == 1 else "the intervals include"
        sentences.append(f"No change in {what} can be told from chance: {includes} zero")
    return ". ".join(sentences) + "."


def _gap(change: Change) -> str:
    return f"{signed(change.difference.mean)} {span(change.difference)}"


def _amount(gap: Interval) -> str:
    """The size of a change and its interval, both positive when the change is what the verb says."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f"{number(abs(gap.mean))} [{number(low)}, {number(high)}]"


def watch_finding(results: Results, utility_name: str) -> str:
    """One line on all stages: which raised reward at the cost of another metric; empty for a single stage."""
    if len(results.stages) < 2:
        return ""
    return flag_sentence([Paid(r.title, paid_for(r, utility_name)) for r in results.stages if r.paid_for_reward])


def paid_for(row: StageRow, utility_name: str) -> list[str]:
    """What a stage's reward was paid for with, by the names that people read."""
    names = IN_SENTENCES | {"utility": utility_name}
    return [names[metric] for metric in row.paid_for_reward]


def exploitation_finding(results: Results, utility_name: str) -> str:
    """Where reward rose and the truth fell, stage by stage; empty where no truth is known."""
    if any(row.utility is None for row in results.stages) or len(results.stages) < 2:
        return ""
    exploited = []
    for row in results.stages[1:]:
        changes = {change.metric: change for change in row.changes}
        if changes["reward"].established and changes["reward"].difference.mean > 0:
            if changes["utility"].established and changes["utility"].difference.mean < 0:
                exploited.append(row.title)
    first, last = results.stages[0], results.stages[-1]
    if exploited:
        return f"Reward rose while {utility_name} fell at {_listed(exploited)}: there the reward was exploited."
    moved = (last.reward.mean - first.reward.mean, last.utility.mean - first.utility.mean)  # type: ignore[union-attr]
    return (
        f"No stage raised reward while lowering {utility_name} beyond chance. From {first.title} to {last.title}, "
        f"reward moved by {signed(moved[0])} and {utility_name} by {signed(moved[1])}."
    )


def agreement_finding(results: Results, utility_name: str) -> str:
    """How well the reward ranks clips within the first and the last stage; empty where no truth is known."""
    first, last = results.stages[0], results.stages[-1]
    if first.agreement is None or last.agreement is None or first is last:
        return ""
    return (
        f"Between clips of one stage, reward and {utility_name} rank alike with Spearman "
        f"{number(first.agreement.mean, 2)} {span(first.agreement, 2)} for {first.title} and "
        f"{number(last.agreement.mean, 2)} {span(last.agreement, 2)} for {last.title}; a fall means that the reward "
        f"is running out of what it knows."
    )


def sweep_finding(sweep: SweepRow, utility_name: str) -> str:
    """Whether the model does what the score asks of it."""
    follows = sweep.follows
    if follows.low > 0.0:
        verdict = "mean reward rises with the score asked for"
    elif follows.high < 0.0:
        verdict = "mean reward falls as the score asked for rises"
    else:
        verdict = "mean reward does not clearly follow the score asked for"
    sentence = (
        f"{sweep.stage}: {verdict} (Spearman {number(follows.mean, 2)} {span(follows, 2)} over {len(sweep.asked)} "
        f"scores, {sweep.clips} prompts), over a range of {number(sweep.spread)}."
    )
    if sweep.truth_follows is not None:
        truth = sweep.truth_follows
        sentence += f" For {utility_name} that Spearman is {number(truth.mean, 2)} {span(truth, 2)}."
    for score, reason in sweep.unjudged.items():
        sentence += f" The clips asked for {score:g} are in none of this: {reason}."
    return sentence


def unjudged_finding(sweep: Sweep) -> str:
    """Why there is nothing to say of a sweep."""
    reasons = "; ".join(f"asked for {score:g}, {reason}" for score, reason in sweep.unjudged.items())
    return f"{sweep.stage}: too few of its clips can be judged to say whether it follows the score ({reasons})."


def coverage_finding(scale: tuple[float, float] | None) -> str:
    """What concept coverages are to be held against: those of right clips, and of clips of other prompts."""
    if scale is None:
        return ""
    right, other = scale
    return (
        f"Whoever hears concepts is wrong at times: clips that have all they were asked for reach {number(right, 2)}, "
        f"and clips of other prompts {number(other, 2)}."
    )


def reward_finding(results: Results) -> str:
    """How good the reward is at its one task; empty where it was not tested."""
    quality = results.reward
    if quality is None:
        return ""
    reached = Interval(quality.accuracy, quality.accuracy_low, quality.accuracy_high)
    share = f"{percent(quality.accuracy, 1)} {percent_span(reached, 1)}"
    sentence = f"The reward predicts {share} of {quality.votes} held-out votes"
    if quality.ceiling is not None:
        sentence += (
            f", {number(100 * (quality.ceiling - quality.accuracy), 1)} points below the {percent(quality.ceiling, 1)} "
            f"that the listeners' own noise allows"
        )
    sentence += f". Its confidence is off by {number(quality.ece)} on average (ECE)."
    if quality.accuracy_low > 0.5:
        return sentence
    return f"{sentence} The interval includes 50 %: it may be no better than chance, and so all that was trained on it."


def _listed(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
