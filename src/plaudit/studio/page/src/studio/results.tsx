import { fixed, percent, plural } from "../ui/format";
import { IntervalBar } from "../ui/IntervalBar";
import { Definitions } from "../ui/parts";
import type { ComparisonState, PreferenceResults, RatingResults, Span, TestInfo } from "./testTypes";

function spanText(span: Span | null, text: (value: number | null) => string): string {
  if (!span) return "–";
  if (span.low === null || span.high === null) return text(span.mean);
  return `${text(span.mean)} [${text(span.low)}, ${text(span.high)}]`;
}

const number = (value: number | null) => fixed(value);
const share = (value: number | null) => percent(value);

function verdict(state: ComparisonState, margin: number): string {
  switch (state.verdict) {
    case "first":
      return `${state.first} is better.`;
    case "second":
      return `${state.second} is better.`;
    case "equivalent":
      return `Equal within ${percent(margin)} of a win rate of one half.`;
    case "open":
      return "Not decided yet.";
  }
}

function votesNeeded(state: ComparisonState): string {
  if (state.verdict !== "open") return "No more votes are needed.";
  if (state.needed === null) {
    return state.votes ? "As it stands, no sensible number of votes would decide it." : `A test of this size needs about ${plural(state.planned, "vote")}.`;
  }
  return `About ${plural(state.needed, "more vote")} needed, if the rate stays as it is.`;
}

export function PreferenceFigures({ results, test }: { results: PreferenceResults; test: TestInfo }) {
  const { board, agreement, intransitivity } = results;
  const ends = board.strengths.flatMap(({ strength }) => [strength.low ?? strength.mean, strength.high ?? strength.mean]);
  const reach = Math.max(0.5, ...ends.map(Math.abs)) * 1.05;
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
                label={`${state.first} wins ${spanText(state.rate, share)} of the votes`}
              />
              <div class="scale-ends small muted">
                <span>{state.second}</span>
                <span>{state.first}</span>
              </div>
            </div>
            <p class="numeric">
              {state.first} wins {spanText(state.rate, share)} of {plural(state.votes, "vote")} by {plural(state.listeners, "listener")}.
            </p>
            <p class="needed">{votesNeeded(state)}</p>
          </article>
        ))}
      </div>
      <section class="stack" aria-labelledby="strengths">
        <h3 id="strengths">Strengths</h3>
        <div class="table-box" tabIndex={0} role="region" aria-label="Strengths of the systems">
          <table>
            <thead>
              <tr>
                <th>System</th>
                <th class="wide-cell">Bradley-Terry strength, 95 % interval</th>
                <th class="right">Strength</th>
                <th class="right">Places</th>
                <th class="right">Votes</th>
              </tr>
            </thead>
            <tbody>
              {board.strengths.map((row) => (
                <tr key={row.system}>
                  <td class="title">{row.system}</td>
                  <td>
                    <IntervalBar {...row.strength} from={-reach} to={reach} zero={0} label={`Strength ${spanText(row.strength, number)}`} />
                  </td>
                  <td class="right numeric nowrap-text">{spanText(row.strength, number)}</td>
                  <td class="right numeric">{row.ranks[0] === row.ranks[1] ? row.ranks[0] : `${row.ranks[0]}–${row.ranks[1]}`}</td>
                  <td class="right numeric">{row.votes}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        {board.groups.length > 1 && (
          <p class="small muted">Not all systems were compared with each other yet: strengths of different groups cannot be compared.</p>
        )}
      </section>
      <section class="stack" aria-labelledby="rates">
        <h3 id="rates">Win rates</h3>
        <div class="table-box" tabIndex={0} role="region" aria-label="Win rates">
          <table>
            <thead>
              <tr>
                <th>Comparison</th>
                <th class="right">Wins</th>
                <th class="right">Losses</th>
                <th class="right">Ties</th>
                <th class="right">Both bad</th>
                <th class="right">Win rate</th>
              </tr>
            </thead>
            <tbody>
              {results.win_rates.map((row) => (
                <tr key={`${row.first} ${row.second}`}>
                  <td>
                    {row.first} against {row.second}
                  </td>
                  <td class="right numeric">{row.wins}</td>
                  <td class="right numeric">{row.losses}</td>
                  <td class="right numeric">{row.ties}</td>
                  <td class="right numeric">{row.both_bad}</td>
                  <td class="right numeric nowrap-text">{spanText(row.rate, share)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        {results.without_exclusion.length > 0 && (
          <p class="small muted numeric">
            With the excluded listeners:{" "}
            {results.without_exclusion.map((row) => `${row.first} against ${row.second} ${spanText(row.rate, share)}`).join("; ")}.
          </p>
        )}
      </section>
      <div class="card">
        <Definitions
          items={[
            ["Answers that count", `${results.counted} of ${results.answers}`],
            ["Agreement of two listeners", agreement.pairs ? spanText(agreement.agreeing, share) : "no pair twice yet"],
            ["Krippendorff’s alpha", fixed(agreement.alpha)],
            ["Repeats answered the same", spanText(results.repeats, share)],
            [
              "Circular triads",
              intransitivity.triads ? `${intransitivity.circular} of ${intransitivity.triads}` : "none to check",
            ],
            ...(results.reward
              ? ([["Reward agrees with the votes", results.reward.votes ? spanText(results.reward.accuracy, share) : "–"]] as [string, string][])
              : []),
          ]}
        />
        {intransitivity.cycles.length > 0 && (
          <p class="small muted">Systems in circles: {intransitivity.cycles.map((cycle) => cycle.join(" over ")).join("; ")}.</p>
        )}
      </div>
      <details>
        <summary>Listeners, their time and attention</summary>
        <div class="table-box" tabIndex={0} role="region" aria-label="Listeners">
          <table>
            <thead>
              <tr>
                <th>Listener</th>
                <th class="right">Answers</th>
                <th class="right">Median time (s)</th>
                <th class="right">Listened (s)</th>
                <th class="right">Obvious pairs</th>
                <th class="right">Repeats</th>
                <th class="right">Left side</th>
                <th>Left out</th>
              </tr>
            </thead>
            <tbody>
              {results.listeners.map((row) => (
                <tr key={row.listener}>
                  <td class="mono">{row.listener.slice(0, 6)}</td>
                  <td class="right numeric">{row.answers}</td>
                  <td class="right numeric">{fixed(row.seconds, 1)}</td>
                  <td class="right numeric">{fixed(row.listened, 1)}</td>
                  <td class="right numeric">{outOf(row.obvious)}</td>
                  <td class="right numeric">{outOf(row.repeats)}</td>
                  <td class="right numeric">{percent(row.left)}</td>
                  <td class="small">{(results.excluded[row.listener] ?? []).join("; ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </div>
  );
}

function outOf([right, count]: [number, number]): string {
  return count ? `${right} of ${count}` : "–";
}

export function RatingFigures({ results }: { results: RatingResults }) {
  return (
    <div class="stack loose">
      <div class="table-box" tabIndex={0} role="region" aria-label="Mean ratings">
        <table>
          <thead>
            <tr>
              <th>System</th>
              <th class="wide-cell">Mean rating, 95 % interval</th>
              <th class="right">Mean</th>
              <th class="right">Ratings</th>
              <th class="right">Listeners</th>
            </tr>
          </thead>
          <tbody>
            {results.systems.map((row) => (
              <tr key={row.system}>
                <td class="title">{row.system}</td>
                <td>
                  <IntervalBar {...row.mean} from={0} to={100} label={`Mean ${spanText(row.mean, (value) => fixed(value, 1))}`} />
                </td>
                <td class="right numeric nowrap-text">{spanText(row.mean, (value) => fixed(value, 1))}</td>
                <td class="right numeric">{row.ratings}</td>
                <td class="right numeric">{row.listeners}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {results.differences.length > 0 && (
        <div class="table-box" tabIndex={0} role="region" aria-label="Differences of ratings">
          <table>
            <thead>
              <tr>
                <th>Difference</th>
                <th class="right">Points</th>
                <th class="right">Listeners</th>
              </tr>
            </thead>
            <tbody>
              {results.differences.map((row) => (
                <tr key={`${row.first} ${row.second}`}>
                  <td>
                    {row.second} minus {row.first}
                  </td>
                  <td class="right numeric nowrap-text">{spanText(row.difference, (value) => fixed(value, 1))}</td>
                  <td class="right numeric">{row.listeners}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <p class="small muted numeric">
        {results.counted} of {plural(results.pages, "page")} count. Krippendorff’s alpha {fixed(results.alpha)}.
      </p>
    </div>
  );
}
