import { useEffect, useRef, useState } from "preact/hooks";
import { address, request, type Page } from "../../api";
import { useAction, useEvents, useGet } from "../../ui/data";
import { CopyButton } from "../../ui/CopyButton";
import { fixed, percent, plural, sentence, spanText, when } from "../../ui/format";
import { Definitions, Empty, Fault, Field, Form, Heading, Icon, Input, Loading, Notice } from "../../ui/parts";
import { JobList, useJob, useJobs } from "../jobs";
import { Link } from "../router";
import { RULES, ratingRule, type ExclusionRules, type Invitation, type TestInfo, type TestResults } from "../testTypes";
import type { Job } from "../types";
import { PreferenceFigures, RatingFigures } from "../results";
import { listenersText, TestBadge } from "./Tests";

/** Votes come in bursts; results are asked for at most this often. */
const RESULTS_EVERY_MS = 1500;

export function TestPage({ id }: { id: string }) {
  const test = useGet<TestInfo>(`/tests/${id}`);
  const results = useGet<TestResults>(test.data?.prepared ? `/tests/${id}/results` : null);
  const job = useJob(test.data?.job ?? null);
  const { put } = useJobs();
  const timer = useRef(0);
  useEvents(`/tests/${id}/results/events`, ["vote", "rating", "listener", "test"], () => {
    if (timer.current) return;
    timer.current = window.setTimeout(() => {
      timer.current = 0;
      test.reload();
      results.reload();
    }, RESULTS_EVERY_MS);
  });
  useEffect(() => () => window.clearTimeout(timer.current), []);
  useEffect(() => {
    const seconds = results.data?.refresh_after ?? null;
    if (seconds === null) return;
    const refresh = window.setTimeout(results.reload, Math.max(RESULTS_EVERY_MS, 1000 * seconds));
    return () => window.clearTimeout(refresh);
  }, [results.data]);
  useEffect(() => {
    if (job && job.status !== "queued") test.reload();
  }, [job?.status]);

  const change = useAction(async (status: "open" | "closed") => {
    const changed = await request<TestInfo>("PATCH", `/tests/${id}`, { status });
    test.set(() => changed);
    results.reload();
  });
  const report = useAction(async () => put(await request<Job>("POST", `/tests/${id}/reports`)));

  if (!test.data) return test.error ? <Fault error={test.error} retry={test.reload} /> : <Loading what="the test" />;
  const info = test.data;
  return (
    <>
      <Heading title={info.name}>
        <TestBadge test={info} />
        {info.prepared && info.status !== "open" && (
          <button type="button" class="primary" disabled={change.busy} onClick={() => void change.run("open")}>
            {info.status === "closed" ? "Open again" : "Open the test"}
          </button>
        )}
        {info.status === "open" && (
          <button type="button" disabled={change.busy} onClick={() => void change.run("closed")}>
            Close the test
          </button>
        )}
      </Heading>
      <div class="stack loose">
        <Fault error={change.error || test.error} />
        {info.problem && job?.status !== "failed" && <Notice kind="error">{sentence(info.problem)}</Notice>}
        {info.notes.map((note) => (
          <Notice key={note} kind="warning">
            {sentence(note)}
          </Notice>
        ))}
        <JobList jobs={job && job.status !== "done" ? [job] : []} title={() => "Preparing the clips"} />
        <div class="card">
          <Definitions
            items={[
              ["Systems", info.systems.map((system) => system.name).join(", ")],
              ["Prompts", info.prompts],
              [info.kind === "rating" ? "Pages" : "Pairs", info.settings.pairing === "active" ? `${info.pairs}, active pairing` : info.pairs],
              ["Listeners", listenersText(info)],
              ["Answers", info.votes],
            ]}
          />
        </div>
        {info.status === "draft" && info.prepared && (
          <Notice>The clips are ready and equally loud. Open the test to let listeners in. After that, its settings and rules cannot be changed.</Notice>
        )}
        {info.prepared && info.status !== "closed" && <Invitations test={info} />}
        {info.prepared && (
          <section class="stack" aria-labelledby="results">
            <div class="row apart">
              <h2 id="results">{info.status === "closed" ? "Results" : "Results so far"}</h2>
              <div class="row">
                {info.kind === "preference" && (
                  <a class="button small" href={address(`/tests/${id}/export`, { format: "votes" })} download>
                    <Icon name="download" size={14} /> Votes
                  </a>
                )}
                <a class="button small" href={address(`/tests/${id}/export`, { format: "csv" })} download>
                  <Icon name="download" size={14} /> CSV
                </a>
                <button type="button" class="small" disabled={report.busy} onClick={() => void report.run()}>
                  Write a report
                </button>
              </div>
            </div>
            <Fault error={results.error || report.error} retry={results.error ? results.reload : undefined} />
            <ReportJob test={id} />
            {!results.data && results.loading && <Loading what="results" />}
            {results.data && results.data.at_votes < results.data.votes && (
              <p class="small muted">
                {sentence(
                  `from ${results.data.at_votes} of ${plural(results.data.votes, "answer")}, computed ${when(results.data.computed_at)}; newer results follow in a few seconds`,
                )}
              </p>
            )}
            {results.data && !results.data.at_votes && (
              <Empty title="No answers yet">
                <p class="muted">Results appear here as listeners answer.</p>
              </Empty>
            )}
            {results.data?.preference && results.data.at_votes > 0 && <PreferenceFigures results={results.data.preference} test={info} />}
            {results.data?.rating && results.data.at_votes > 0 && <RatingFigures results={results.data.rating} />}
            {results.data?.true_utilities && results.data.true_utilities.length > 0 && (
              <section class="card stack tight" aria-labelledby="truth">
                <h3 id="truth">True utility</h3>
                <p class="small muted">Simulated listeners vote by the utility of the synthetic world, which is known.</p>
                <Definitions
                  items={results.data.true_utilities.map((row) => [row.system, spanText(row.utility, (value) => fixed(value))])}
                />
              </section>
            )}
            <Exclusions test={info} results={results.data} />
          </section>
        )}
        {info.votes > 0 && info.kind === "preference" && (
          <p>
            <Link href={`/tune?test=${id}`} class="button">
              Tune a model with these votes
            </Link>
          </p>
        )}
      </div>
    </>
  );
}

function ReportJob({ test }: { test: string }) {
  const { jobs } = useJobs();
  const latest = jobs.filter((job) => job.kind === "test-report" && job.request.test === test).slice(0, 1);
  return (
    <JobList jobs={latest} title={() => "Report"}>
      {() => (
        <p>
          <a class="button small" href={address(`/tests/${test}/export`, { format: "report" })} download>
            <Icon name="download" size={14} /> Download the report
          </a>
        </p>
      )}
    </JobList>
  );
}

function Invitations({ test }: { test: TestInfo }) {
  const invitations = useGet<Page<Invitation>>(`/tests/${test.id}/invitations`, { limit: 100 });
  const [label, setLabel] = useState("");
  const [most, setMost] = useState("");
  const invite = useAction(async () => {
    await request("POST", `/tests/${test.id}/invitations`, {
      label: label.trim() || "listeners",
      max_listeners: most ? Number(most) : null,
    });
    setLabel("");
    setMost("");
    invitations.reload();
  });
  const withdraw = useAction(async (id: string) => {
    await request("DELETE", `/tests/${test.id}/invitations/${id}`);
    invitations.reload();
  });
  useEffect(() => invitations.reload(), [test.listeners]);
  const link = (invitation: Invitation) => new URL(invitation.url, location.origin).href;
  return (
    <section class="stack" aria-labelledby="invitations">
      <div class="stack tight">
        <h2 id="invitations">Invitations</h2>
        <p class="muted prose">
          Anyone with a link can take part, and can see nothing else of the studio. A link for one listener continues on
          any device where that listener left off.
          {test.status !== "open" && " Links work once the test is open."}
        </p>
      </div>
      <Form class="row end" onSubmit={() => void invite.run()}>
        <div class="grow wide-field">
          <Field label="Label">
            <Input type="text" maxLength={120} placeholder="listeners" value={label} onChange={setLabel} />
          </Field>
        </div>
        <Field label="Maximum of listeners">
          <Input type="number" min="1" placeholder="no limit" value={most} onChange={setMost} />
        </Field>
        <button type="submit" disabled={invite.busy}>
          Create a link
        </button>
      </Form>
      <Fault error={invite.error || withdraw.error || invitations.error} />
      {invitations.data && invitations.data.items.length > 0 && (
        <ul class="links">
          {invitations.data.items.map((invitation) => (
            <li key={invitation.id} class={invitation.revoked ? "muted" : ""}>
              <div class="grow">
                <p>
                  <strong>{invitation.label}</strong>{" "}
                  <span class="small muted">
                    {invitation.max_listeners
                      ? `${invitation.listeners} of ${plural(invitation.max_listeners, "listener")}`
                      : plural(invitation.listeners, "listener")}
                    {invitation.revoked && ", withdrawn"}
                  </span>
                </p>
                <p id={`link-${invitation.id}`} class="mono link-text">
                  {link(invitation)}
                </p>
              </div>
              {!invitation.revoked && (
                <div class="row">
                  <CopyButton
                    text={link(invitation)}
                    shownIn={`link-${invitation.id}`}
                    label={`Copy the link for ${invitation.label}`}
                    class="small"
                  />
                  <a class="button small quiet" href={invitation.url} target="_blank" rel="noreferrer">
                    Open
                  </a>
                  <button
                    type="button"
                    class="small quiet danger"
                    aria-label={`Withdraw the link for ${invitation.label}`}
                    onClick={() =>
                      confirm(`Withdraw the link for ${invitation.label}? It stops working.`) && void withdraw.run(invitation.id)
                    }
                  >
                    Withdraw
                  </button>
                </div>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** The rules that were set before the test, and whom they exclude. */
function Exclusions({ test, results }: { test: TestInfo; results: TestResults | null }) {
  const excluded = {
    ...(results?.preference?.excluded ?? results?.rating?.excluded),
    ...results?.screened_out,
  };
  const count = Object.keys(excluded).length;
  return (
    <section class="stack tight" aria-labelledby="rules">
      <h3 id="rules">
        Exclusion rules{test.registered && <span class="small muted"> fixed on {when(test.registered.at)}</span>}
      </h3>
      {test.kind === "rating" ? (
        <p>{ratingRule(test.settings.reference)}</p>
      ) : (
        <PreferenceRules rules={test.settings.exclusion_rules} />
      )}
      {count > 0 && (
        <details>
          <summary>{plural(count, "listener is", "listeners are")} excluded</summary>
          <ul class="plain">
            {Object.entries(excluded).map(([listener, reasons]) => (
              <li key={listener}>
                <span class="mono">{listener.slice(0, 6)}</span>: {reasons.join("; ")}
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

function PreferenceRules({ rules }: { rules: ExclusionRules }) {
  const set = RULES.filter((rule) => rules[rule.key] !== null && rules[rule.key] !== undefined);
  if (!set.length) return <p class="muted">None.</p>;
  return (
    <ul class="plain">
      {set.map((rule) => (
        <li key={rule.key}>
          {rule.label}: {rule.percent ? percent(rules[rule.key]) : `${fixed(rules[rule.key], rule.step < 1 ? 1 : 0)} ${rule.unit ?? ""}`}
        </li>
      ))}
    </ul>
  );
}
