import { fixed, percent, plural, roughly, spanText } from "../ui/format";
import { IntervalBar } from "../ui/IntervalBar";
import { Definitions, Empty, Table } from "../ui/parts";
import type { ComparisonState, PreferenceResults, RatingResults, TestInfo } from "./testTypes";

const number = (value: number | null) => fixed(value);
const points = (value: number | null) => fixed(value, 1);

function verdict(state: ComparisonState, margin: number): string {
  switch (state.verdict) {
    case "first":
      return `${state.first} is better.`;
    case "second":
      return `${state.second} is better.`;
    case "equivalent":
      return `No relevant difference: the win rate is within ${fixed(margin * 100, 0)} points of 50\u00a0%.`;
    case "open":
      return "Not decided yet.";
  }
}

function votesNeeded(state: ComparisonState): string {
  if (state.verdict !== "open") return "No more votes are needed.";
  if (state.needed === null) {
    return state.votes
      ? "At this win rate, no practical number of votes would decide it."
      : `To find a difference of this size takes about ${plural(roughly(state.planned), "vote")}.`;
  }
  return `About ${plural(roughly(state.needed), "more vote")} needed if the win rate stays the same.`;
}

export function PreferenceFigures({ results, test }: { results: PreferenceResults; test: TestInfo }) {
  const { board, agreement, intransitivity } = results;
  const ends = board.strengths.flatMap(({ strength }) => [strength.low ?? strength.mean, strength.high ?? strength.mean]);
  const limit = Math.max(0.5, ...ends.map(Math.abs)) * 1.05;
  return (
    <div class="stack loose">
      <div class="columns" aria-live="polite">
        {results.decisions.map((state) => (
          <article key={`${state.first} ${state.second}`} class="card stack decision">
            <h3>
              {state.first} against {state.second}
            </h3>
            <p class="verdict">{verdict(state, test.settings.margin)}</p>
            <div>
              <IntervalBar
                {...state.rate}
                from={0}
                to={1}
                zero={0.5}
                label={`${state.first} wins ${spanText(state.rate, percent)} of the votes`}
              />
              <div class="scale-ends small muted">
                <span>{state.second} better</span>
                <span>{state.first} better</span>
              </div>
            </div>
            <p class="numeric">
              {state.first} wins {spanText(state.rate, percent)} of {plural(state.votes, "vote")} by {plural(state.listeners, "listener")}.
            </p>
            <p class="needed">{votesNeeded(state)}</p>
          </article>
        ))}
      </div>
      <section class="stack" aria-labelledby="strengths">
        <h3 id="strengths">Strengths</h3>
        <Table
          label="Strengths of the systems"
          head={
            <>
              <th>System</th>
              <th class="wide-cell">Bradley-Terry strength, 95&nbsp;% interval</th>
              <th class="right">Strength</th>
              <th class="right">Rank</th>
              <th class="right">Votes</th>
            </>
          }
        >
          {board.strengths.map((row) => (
            <tr key={row.system}>
              <td class="title">{row.system}</td>
              <td>
                <IntervalBar {...row.strength} from={-limit} to={limit} zero={0} label={`Strength ${spanText(row.strength, number)}`} />
              </td>
              <td class="right numeric nowrap-text">{spanText(row.strength, number)}</td>
              <td class="right numeric nowrap-text">{row.ranks[0] === row.ranks[1] ? row.ranks[0] : `${row.ranks[0]} to ${row.ranks[1]}`}</td>
              <td class="right numeric">{row.votes}</td>
            </tr>
          ))}
        </Table>
        {board.groups.length > 1 && (
          <p class="small muted">Some systems have not been compared with each other yet, not even by way of a third. Compare strengths only within{" "}
            {board.groups.map((group) => group.join(", ")).join("; or within ")}.</p>
        )}
      </section>
      <section class="stack" aria-labelledby="rates">
        <h3 id="rates">Win rates</h3>
        <Table
          label="Win rates of each comparison"
          head={
            <>
              <th>Comparison</th>
              <th class="right">Wins</th>
              <th class="right">Losses</th>
              <th class="right">Ties</th>
              <th class="right">Both bad</th>
              <th class="right">Win rate, 95&nbsp;% interval</th>
            </>
          }
        >
          {results.win_rates.map((row) => (
            <tr key={`${row.first} ${row.second}`}>
              <td class="title">
                {row.first} against {row.second}
              </td>
              <td class="right numeric">{row.wins}</td>
              <td class="right numeric">{row.losses}</td>
              <td class="right numeric">{row.ties}</td>
              <td class="right numeric">{row.both_bad}</td>
              <td class="right numeric nowrap-text">{spanText(row.rate, percent)}</td>
            </tr>
          ))}
        </Table>
        {results.without_exclusion.length > 0 && (
          <p class="small muted numeric">
            Win rates with the excluded listeners:{" "}
            {results.without_exclusion.map((row) => `${row.first} against ${row.second} ${spanText(row.rate, percent)}`).join("; ")}.
          </p>
        )}
      </section>
      <section class="card stack" aria-label="Reliability">
        <Definitions
          items={[
            ["Answers counted", `${results.counted} of ${results.answers}`],
            ["Agreement between listeners", agreement.pairs ? spanText(agreement.agreeing, percent) : "no pair answered twice yet"],
            ["Krippendorff’s alpha", fixed(agreement.alpha)],
            ["Repeats answered the same", spanText(results.repeats, percent)],
            [
              "Circular triads",
              intransitivity.triads ? `${intransitivity.circular} of ${intransitivity.triads}` : "none to check yet",
            ],
            ...(results.reward
              ? ([["Reward agrees with the votes", results.reward.votes ? spanText(results.reward.accuracy, percent) : "–"]] as [string, string][])
              : []),
          ]}
        />
        {intransitivity.cycles.length > 0 && (
          <p class="small muted">Systems that beat each other in a circle: {intransitivity.cycles.map((cycle) => cycle.join(" over ")).join("; ")}.</p>
        )}
      </section>
      <details>
        <summary>Time and attention of each listener</summary>
        <Table
          label="Listeners"
          head={
            <>
              <th>Listener</th>
              <th class="right">Answers</th>
              <th class="right">Median time (s)</th>
              <th class="right">Listened (s)</th>
              <th class="right">Checks passed</th>
              <th class="right">Same on repeats</th>
              <th class="right">Chose left</th>
              <th>Excluded because</th>
            </>
          }
        >
          {results.listeners.map((row) => (
            <tr key={row.listener}>
              <td class="mono">{row.listener.slice(0, 6)}</td>
              <td class="right numeric">{row.answers}</td>
              <td class="right numeric">{fixed(row.seconds, 1)}</td>
              <td class="right numeric">{fixed(row.listened, 1)}</td>
              <td class="right numeric nowrap-text">{shareText(row.obvious)}</td>
              <td class="right numeric nowrap-text">{shareText(row.repeats)}</td>
              <td class="right numeric">{percent(row.left)}</td>
              <td class="small">{(results.excluded[row.listener] ?? []).join("; ")}</td>
            </tr>
          ))}
        </Table>
      </details>
    </div>
  );
}

function shareText([right, count]: [number, number]): string {
  return count ? `${right} of ${count}` : "–";
}

export function RatingFigures({ results }: { results: RatingResults }) {
  if (!results.counted) {
    return (
      <Empty title="No ratings count yet">
        <p class="muted">All listeners so far are excluded; the reasons are listed below.</p>
      </Empty>
    );
  }
  return (
    <div class="stack loose">
      <Table
        label="Mean ratings"
        head={
          <>
            <th>System</th>
            <th class="wide-cell">Mean rating from 0 to 100, 95&nbsp;% interval</th>
            <th class="right">Mean</th>
            <th class="right">Ratings</th>
            <th class="right">Listeners</th>
          </>
        }
      >
        {results.systems.map((row) => (
          <tr key={row.system}>
            <td class="title">{row.system}</td>
            <td>
              <IntervalBar {...row.mean} from={0} to={100} label={`Mean ${spanText(row.mean, points)}`} />
            </td>
            <td class="right numeric nowrap-text">{spanText(row.mean, points)}</td>
            <td class="right numeric">{row.ratings}</td>
            <td class="right numeric">{row.listeners}</td>
          </tr>
        ))}
      </Table>
      {results.differences.length > 0 && (
        <Table
          label="Differences of ratings"
          head={
            <>
              <th>Difference</th>
              <th class="right">Points, 95&nbsp;% interval</th>
              <th class="right">Listeners</th>
            </>
          }
        >
          {results.differences.map((row) => (
            <tr key={`${row.first} ${row.second}`}>
              <td class="title">
                {row.second} minus {row.first}
              </td>
              <td class="right numeric nowrap-text">{spanText(row.difference, points)}</td>
              <td class="right numeric">{row.listeners}</td>
            </tr>
          ))}
        </Table>
      )}
      <p class="small muted numeric">
        {results.counted} of {plural(results.pages, "page")} counted. Krippendorff’s alpha {fixed(results.alpha)}.
      </p>
    </div>
  );
}
