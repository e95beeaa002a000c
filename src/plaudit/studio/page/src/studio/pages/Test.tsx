import { useEffect, useRef, useState } from "preact/hooks";
import { address, request, type Page } from "../../api";
import { useAction, useEvents, useGet } from "../../ui/data";
import { fixed, percent, plural, when } from "../../ui/format";
import { Definitions, Empty, Fault, Field, Heading, Icon, Loading, Notice } from "../../ui/parts";
import { JobRow, useJob, useJobs } from "../jobs";
import { Link } from "../router";
import { RULES, type ExclusionRules, type Invitation, type TestInfo, type TestResults } from "../testTypes";
import type { Job } from "../types";
import { PreferenceFigures, RatingFigures } from "../results";
import { TestBadge } from "./Tests";

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
    if (job && job.status !== "queued") test.reload();
  }, [job?.status]);

  const change = useAction(async (status: "open" | "closed") => {
    const changed = await request<TestInfo>("PATCH", `/tests/${id}`, { status });
    test.set(() => changed);
  });
  const report = useAction(async () => put(await request<Job>("POST", `/tests/${id}/reports`)));

  if (!test.data) return test.error ? <Fault error={test.error} retry={test.reload} /> : <Loading what="the test" />;
  const info = test.data;
  return (
    <>
      <Heading title={info.name}>
        <TestBadge status={info.status} />
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
        {info.problem && <Notice kind="error">{info.problem}</Notice>}
        {info.notes.map((note) => (
          <Notice key={note} kind="warning">
            {note}
          </Notice>
        ))}
        {job && job.status !== "done" && <JobRow job={job} title="Preparing the clips" />}
        <div class="card">
          <Definitions
            items={[
              ["Systems", info.systems.map((system) => system.name).join(", ")],
              ["Prompts", info.prompts],
              [info.kind === "rating" ? "Pages" : "Pairs", info.pairs],
              ["Listeners", `${info.listeners}, ${info.completed} done`],
              ["Answers", info.votes],
            ]}
          />
        </div>
        {info.status === "draft" && info.prepared && (
          <Notice>The clips are ready and equally loud. Open the test to admit listeners; its rules are fixed from then on.</Notice>
        )}
        {info.prepared && info.status !== "closed" && <Invitations test={info} />}
        {info.prepared && (
          <section class="stack" aria-labelledby="results">
            <div class="row apart">
              <h2 id="results">Results so far</h2>
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
            {results.data && !results.data.at_votes && (
              <Empty title="No answers yet">
                <p class="muted">Results appear here while listeners answer.</p>
              </Empty>
            )}
            {results.data?.preference && results.data.at_votes > 0 && <PreferenceFigures results={results.data.preference} test={info} />}
            {results.data?.rating && results.data.at_votes > 0 && <RatingFigures results={results.data.rating} />}
            <RulesShown rules={info.settings.exclusion_rules} registered={info.registered?.at ?? null} results={results.data} />
          </section>
        )}
        {info.votes > 0 && info.kind === "preference" && (
          <p>
            <Link href={`/tune?test=${id}`} class="button">
              Tune a model to these votes
            </Link>
          </p>
        )}
      </div>
    </>
  );
}

function ReportJob({ test }: { test: string }) {
  const { jobs } = useJobs();
  const job = jobs.find((other) => other.kind === "test-report" && other.request.test === test);
  if (!job) return null;
  return (
    <JobRow job={job} title="Report">
      {job.status === "done" && (
        <p>
          <a class="button small" href={address(`/tests/${test}/export`, { format: "report" })} download>
            <Icon name="download" size={14} /> Download the report
          </a>
        </p>
      )}
    </JobRow>
  );
}

function Invitations({ test }: { test: TestInfo }) {
  const invitations = useGet<Page<Invitation>>(`/tests/${test.id}/invitations`, { limit: 100 });
  const [label, setLabel] = useState("");
  const [most, setMost] = useState("");
  const [copied, setCopied] = useState("");
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
  const copy = async (invitation: Invitation) => {
    try {
      await navigator.clipboard.writeText(link(invitation));
      setCopied(invitation.id);
    } catch {
      getSelection()?.selectAllChildren(document.getElementById(`link-${invitation.id}`)!);
    }
  };
  return (
    <section class="stack" aria-labelledby="invitations">
      <div class="stack tight">
        <h2 id="invitations">Invitations</h2>
        <p class="muted prose">
          Whoever has a link can take part, and can see nothing else. A link for one listener goes on where it was on any
          device.
          {test.status !== "open" && " Links work once the test is open."}
        </p>
      </div>
      <form
        class="row end"
        onSubmit={(event) => {
          event.preventDefault();
          void invite.run();
        }}
      >
        <div class="grow wide-field">
          <Field label="Label">
            <input type="text" maxLength={120} placeholder="listeners" value={label} onInput={(event) => setLabel(event.currentTarget.value)} />
          </Field>
        </div>
        <Field label="Listeners, at most">
          <input type="number" min="1" placeholder="no limit" value={most} onInput={(event) => setMost(event.currentTarget.value)} />
        </Field>
        <button type="submit" disabled={invite.busy}>
          Create a link
        </button>
      </form>
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
                  <button type="button" class="small" aria-label={`Copy the link for ${invitation.label}`} onClick={() => void copy(invitation)}>
                    {copied === invitation.id ? "Copied" : "Copy"}
                  </button>
                  <a class="button small quiet" href={invitation.url} target="_blank" rel="noreferrer">
                    Open
                  </a>
                  <button
                    type="button"
                    class="small quiet danger"
                    aria-label={`Withdraw the link for ${invitation.label}`}
                    onClick={() => void withdraw.run(invitation.id)}
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

interface RulesProps {
  rules: ExclusionRules;
  registered: string | null;
  results: TestResults | null;
}

function RulesShown({ rules, registered, results }: RulesProps) {
  const set = RULES.filter((rule) => rules[rule.key] !== null && rules[rule.key] !== undefined);
  const excluded = results?.preference?.excluded ?? results?.rating?.excluded ?? {};
  const all = { ...excluded, ...(results?.screened_out ?? {}) };
  return (
    <section class="stack tight" aria-labelledby="rules">
      <h3 id="rules">Exclusion rules{registered && <span class="small muted"> fixed on {when(registered)}</span>}</h3>
      {set.length ? (
        <ul class="plain">
          {set.map((rule) => (
            <li key={rule.key}>
              {rule.label}: {rule.percent ? percent(rules[rule.key]) : `${fixed(rules[rule.key], rule.step < 1 ? 1 : 0)} ${rule.unit ?? ""}`}
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">None.</p>
      )}
      {Object.keys(all).length > 0 && (
        <p class="small">
          {plural(Object.keys(all).length, "listener is", "listeners are")} left out:{" "}
          {Object.entries(all)
            .map(([listener, reasons]) => `${listener.slice(0, 6)} (${reasons.join("; ")})`)
            .join(", ")}
        </p>
      )}
    </section>
  );
}
