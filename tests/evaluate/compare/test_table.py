"""The numbers of a comparison, against SciPy."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from plaudit.errors import EvaluationError
from plaudit.evaluate.comparison import ComparisonTable, Difference, Pairing, compare, pair, track_series
from plaudit.evaluate.metrics import METRICS, NAMES, lower_is_better
from plaudit.evaluate.pages.comparison import comparison_finding, comparison_summary, results
from plaudit.evaluate.pages.html import csv_of
from plaudit.evaluate.systems import read_systems
from plaudit.statistics import RESAMPLES, Array, expanded, mixed_difference, paired_difference
from tests.evaluate.compare.tables import clips, write_table, write_values

PUBLISHED = Path(__file__).parents[3] / "../shared/real/clips.csv"


def paired(*paths: Path) -> Pairing:
    return pair(read_systems(paths))


def assert_scipys(row: Difference, before: Array, after: Array) -> None:
    """Every figure of a row, worked out by SciPy from the clips."""
    gaps = after - before
    interval = stats.bootstrap(
        (gaps,), np.mean, method="BCa", confidence_level=expanded(len(gaps)), n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    t = stats.ttest_rel(after, before)
    flips = stats.permutation_test(
        (after, before), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        n_resamples=RESAMPLES, rng=np.random.default_rng(0),
    )  # fmt: skip
    close = {"abs": 1e-9, "rel": 0}
    assert row.mean_first == pytest.approx(before.mean(), **close)
    assert row.mean_second == pytest.approx(after.mean(), **close)
    assert row.difference.mean == pytest.approx(gaps.mean(), **close)
    assert (row.difference.low, row.difference.high) == pytest.approx(tuple(interval), **close)
    assert (row.t_interval.low, row.t_interval.high) == pytest.approx(tuple(t.confidence_interval(0.95)), **close)
    assert row.p == pytest.approx(t.pvalue, **close)
    assert row.p_wilcoxon == pytest.approx(stats.wilcoxon(after, before).pvalue, **close)
    # Swapping two values and flipping the sign of their difference draw differently from the same seed.
    assert row.p_permutation == pytest.approx(flips.pvalue, abs=4 * np.sqrt(flips.pvalue / RESAMPLES))
    assert row.p_permutation == paired_difference(after, before).p_permutation
    assert row.effect.d == pytest.approx(gaps.mean() / gaps.std(ddof=1), **close)
    margin = row.equivalence.margin
    sides = [
        stats.ttest_1samp(gaps, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(gaps, margin, alternative="less").pvalue,
    ]
    assert row.equivalence.p == pytest.approx(max(sides), **close)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published clips are not on this machine")
def test_published_values_of_forty_prompts_agree_with_scipy() -> None:
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = compare(paired(PUBLISHED))
    assert [row.metric for row in table.rows] == ["tunejury_reward", "clap_score"]
    for row in table.rows:
        values = {
            system: np.array([float(r[row.metric]) for r in sorted(rows, key=lambda r: int(r["prompt_id"]))
                              if r["system"] == system])
            for system in ("baseline", "sub1")
        }  # fmt: skip
        assert (row.first, row.second, row.prompts) == ("baseline", "sub1", 40)
        gaps = values["sub1"] - values["baseline"]
        assert row.difference.mean == pytest.approx(gaps.mean(), abs=1e-9)
        assert_scipys(row, *(np.array([c.values[row.metric] for p in table.pairing.prompts for c in p.clips[s]])
                             for s in ("baseline", "sub1")))  # fmt: skip
        assert sorted(gaps) == pytest.approx(
            sorted((table.pairing.values(row.metric, "sub1") - table.pairing.values(row.metric, "baseline"))[:, 0])
        )
        assert row.verdict == "better"


def test_every_figure_agrees_with_scipy(tmp_path: Path) -> None:
    first, second = clips(1), clips(2, lift=0.2)
    paths = write_table(tmp_path / "a.csv", first), write_table(tmp_path / "b.csv", second[::-1])
    table = compare(paired(*paths))
    assert [(r.metric, r.first, r.second) for r in table.rows] == [("reward", "a", "b"), ("clap", "a", "b")]
    for row in table.rows:
        assert_scipys(row, *(np.array([r[row.metric] for r in rows]) for rows in (first, second)))
    assert [row.p_holm for row in table.rows] == pytest.approx(
        [min(1.0, 2 * table.rows[0].p), max(table.rows[1].p, 2 * table.rows[0].p)]
    )
    assert [row.p_bh for row in table.rows] == pytest.approx(stats.false_discovery_control([r.p for r in table.rows]))


def test_an_evaluation_is_a_system(tmp_path: Path) -> None:
    for name, lift in (("base", 0.0), ("tuned", 0.5)):
        rows = clips(len(name), lift=lift)
        write_values(tmp_path / name, [row | {"clip-frechet": 1.0 + row.pop("clap")} for row in rows])
    table = compare(paired(tmp_path / "base", tmp_path / "tuned"))
    assert [(r.metric, r.first, r.second, r.prompts) for r in table.rows] == [
        ("reward", "base", "tuned", 20), ("clip-frechet", "base", "tuned", 20)
    ]  # fmt: skip
    assert all(lower_is_better(name) == (METRICS.load(name).better == "lower") for name in NAMES)


def test_three_systems_are_three_pairs_corrected_together(tmp_path: Path) -> None:
    rows = [r for place, name in enumerate("abc") for r in clips(place, lift=0.4 * place, system=name)]
    table = compare(paired(write_table(tmp_path / "all.csv", rows)))
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(r.first, r.second) for r in table.rows] == pairs * 2
    assert min(r.p for r in table.rows) * 6 == pytest.approx(min(r.p_holm for r in table.rows))


def seeded(seed: int, shared: bool, lift: float = 0.0) -> list[dict]:
    rows = [{**row, "seed": k if shared else 100 * k + place} for k in range(3)
            for place, row in enumerate(clips(seed + k, count=12, lift=lift))]  # fmt: skip
    return rows


@pytest.mark.parametrize("shared", [True, False])
def test_several_seeds_are_a_mixed_model(tmp_path: Path, shared: bool) -> None:
    first, second = seeded(1, shared), seeded(50, shared, lift=0.3)
    paths = write_table(tmp_path / "a.csv", first), write_table(tmp_path / "b.csv", second)
    row = compare(paired(*paths)).rows[0]
    values = [np.array([r["reward"] for r in rows]).reshape(3, 12).T for rows in (first, second)]
    expected = mixed_difference(values[1] - values[0], shared)
    assert (row.prompts, row.seeds) == (12, 3)
    assert row.method == ("mixed model: prompt and seed" if shared else "mixed model: prompt")
    assert row.p == pytest.approx(expected.p)
    assert (row.difference.low, row.difference.high) == pytest.approx(
        (expected.difference.low, expected.difference.high)
    )


def test_a_difference_within_the_margin_is_equivalent_not_only_insignificant(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = clips(1, count=60)
    second = [{**row, "reward": row["reward"] + 0.01 * rng.normal()} for row in first]
    second = [{**row, "clap": row["clap"] + rng.normal()} for row in second]
    pairing = paired(write_table(tmp_path / "a.csv", first), write_table(tmp_path / "b.csv", second))
    table = compare(pairing)
    assert [row.verdict for row in table.rows] == ["equivalent", "undecided"]
    assert "equivalent within ±" in comparison_finding(table.rows[0])
    assert "undecided" in comparison_finding(table.rows[1]) and "prompts" in comparison_finding(table.rows[1])
    assert compare(pairing, {"reward": 0.001}).rows[0].verdict == "undecided"
    assert compare(pairing, {"reward": 0.5}).rows[0].equivalence.margin == 0.5
    for margins, said in (({"rewrd": 1.0}, "no such metric"), ({"reward": 0.0}, "above zero")):
        with pytest.raises(EvaluationError, match=said):
            compare(pairing, margins)


def flagged(tmp_path: Path, worse: float) -> ComparisonTable:
    first, second = clips(1, count=40), clips(2, count=40, lift=1.0)
    second = [{**row, "clap": row["clap"] - worse} for row in second]
    return compare(paired(write_table(tmp_path / "a.csv", first), write_table(tmp_path / "b.csv", second)))


def test_the_summary_lists_regressions_under_reward(tmp_path: Path) -> None:
    summary = comparison_summary(flagged(tmp_path, 0.3))
    assert "2 are significant" in summary and "b (vs a) raised reward while clap got worse" in summary
    assert "No system raised reward" in comparison_summary(flagged(tmp_path, 0.0))


def test_distances_are_better_where_they_are_lower(tmp_path: Path) -> None:
    first, second = clips(1), clips(1)
    rng = np.random.default_rng(3)
    for row, other in zip(first, second, strict=True):
        row["clip-frechet"] = 1.0 + 0.1 * rng.normal()
        other["clip-frechet"] = row["clip-frechet"] - 0.5 + 0.1 * rng.normal()
        other["reward"], other["clap"] = row["reward"] + 1 + 0.1 * rng.normal(), row["clap"] + 0.1 * rng.normal()
    table = compare(paired(write_table(tmp_path / "a.csv", first), write_table(tmp_path / "b.csv", second)))
    assert {row.metric: row.verdict for row in table.rows}["clip-frechet"] == "better"
    assert "No system raised" in comparison_summary(table)


def test_a_series_of_systems_is_tracked(tmp_path: Path) -> None:
    rows = []
    for place, fit in enumerate([0.0, 0.2, 0.3, 0.1, -0.2]):
        rows_of = clips(place, count=40, lift=0.5 * place, system=f"step-{place}")
        rows += [{**row, "clap": row["clap"] + fit} for row in rows_of]
    pairing = paired(write_table(tmp_path / "all.csv", rows))
    (watched,) = track_series(pairing)
    assert watched.divergence is not None and watched.divergence.established
    assert (watched.divergence.place, watched.divergence.end) == (2, 4)
    two = paired(write_table(tmp_path / "two.csv", [r for r in rows if r["system"] < "step-2"]))
    with pytest.raises(EvaluationError, match="at least three"):
        track_series(two)
    with pytest.raises(EvaluationError, match="metric named reward"):
        track_series(pair(read_systems([tmp_path / "all.csv"]), ["clap"]))


def test_json_and_csv_hold_every_number(tmp_path: Path) -> None:
    table = flagged(tmp_path, 0.3)
    found = results(table)
    assert found["regressions_under_reward"] == [{"title": "b (vs a)", "metrics": ["clap"]}]
    assert found["comparisons"][0]["effect"]["g"] == table.rows[0].effect.g
    rows = list(csv.DictReader(csv_of(table.to_rows()).splitlines()))
    assert [row["metric"] for row in rows] == ["reward", "clap"]
    assert float(rows[0]["difference_low"]) == table.rows[0].difference.low
    assert rows[1]["verdict"] == "worse"
