import { useEffect, useState } from "preact/hooks";
import { address, request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { fixed, when } from "../../ui/format";
import { Definitions, Empty, Fault, Field, Heading, Loading, Notice } from "../../ui/parts";
import { FolderField } from "../folders";
import { JobRow, useJobs } from "../jobs";
import { Link } from "../router";
import type { Job } from "../types";

interface RunInfo {
  name: string;
  recipe: string | null;
  stages: string[];
  status?: string | null;
  has_report: boolean;
  changed_at?: string | null;
}

export function Runs() {
  const runs = useGet<Page<RunInfo>>("/runs", { limit: 100 });
  return (
    <>
      <Heading title="Runs" intro="Experiments of plaudit run, and what was compared and scored here." />
      <div class="stack loose">
        <Fault error={runs.error} retry={runs.reload} />
        {runs.loading && !runs.data && <Loading what="runs" />}
        {runs.data && !runs.data.items.length && (
          <Empty title="No runs yet">
            <p class="muted">
              Start one with <span class="mono">plaudit run smoke</span>, or tune a model under <Link href="/tune">Tune</Link>.
            </p>
          </Empty>
        )}
        {runs.data && runs.data.items.length > 0 && (
          <div class="table-box" tabIndex={0} role="region" aria-label="Runs">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>Recipe</th>
                  <th>Stages</th>
                  <th>Report</th>
                  <th>Changed</th>
                </tr>
              </thead>
              <tbody>
                {runs.data.items.map((run) => (
                  <tr key={run.name}>
                    <td class="title">
                      <Link href={`/runs/${encodeURIComponent(run.name)}`}>{run.name}</Link>
                    </td>
                    <td class="small">{run.recipe}</td>
                    <td class="small">{run.stages.join(", ")}</td>
                    <td class="small">{run.has_report ? "yes" : <span class="muted">not yet</span>}</td>
                    <td class="small numeric">{when(run.changed_at)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        <div class="columns">
          <Compare runs={runs.data?.items ?? []} />
          <Score />
        </div>
      </div>
    </>
  );
}

function Compare({ runs }: { runs: RunInfo[] }) {
  const { jobs, put } = useJobs();
  const systems = runs.flatMap((run) => run.stages.map((stage) => `${run.name}:${stage}`));
  const [a, setA] = useState("");
  const [b, setB] = useState("");
  const compare = useAction(async () => put(await request<Job>("POST", "/comparisons", { a, b })));
  const done = jobs.filter((job) => job.kind === "compare").slice(0, 5);
  const options = [
    <option key="" value="">
      {systems.length ? "choose…" : "there are no runs"}
    </option>,
    ...systems.map((name) => (
      <option key={name} value={name}>
        {name}
      </option>
    )),
  ];
  return (
    <section class="card stack" aria-labelledby="compare">
      <h2 id="compare">Compare two</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void compare.run();
        }}
      >
        <div class="fields two">
          <Field label="First">
            <select required value={a} onChange={(event) => setA(event.currentTarget.value)}>
              {options}
            </select>
          </Field>
          <Field label="Second">
            <select required value={b} onChange={(event) => setB(event.currentTarget.value)}>
              {options}
            </select>
          </Field>
        </div>
        <Fault error={compare.error} />
        <button type="submit" disabled={compare.busy || !a || !b || a === b}>
          Compare
        </button>
      </form>
      {done.map((job) => (
        <JobRow key={job.id} job={job} title={`${job.request.a} against ${job.request.b}`}>
          {job.status === "done" && <ComparisonResult job={job} />}
        </JobRow>
      ))}
    </section>
  );
}

interface MetricDifference {
  metric: string;
  difference: number;
  low: number;
  high: number;
  p?: number | null;
}

function ComparisonResult({ job }: { job: Job }) {
  const result = job.result as { page?: string; metrics?: MetricDifference[] } | null;
  return (
    <>
      {result?.metrics && (
        <table>
          <tbody>
            {result.metrics.map((row) => (
              <tr key={row.metric}>
                <td>{row.metric}</td>
                <td class="right numeric">
                  {fixed(row.difference, 3)} [{fixed(row.low, 3)}, {fixed(row.high, 3)}]
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {result?.page && (
        <p>
          <a href={result.page} target="_blank" rel="noreferrer">
            Open the comparison
          </a>
        </p>
      )}
    </>
  );
}

interface ScoredClip {
  file: string;
  reward: number | null;
  clap?: number | null;
}

function Score() {
  const { jobs, put } = useJobs();
  const [folder, setFolder] = useState("");
  const [prompt, setPrompt] = useState("");
  const [reward, setReward] = useState("");
  const rewards = useGet<{ items: { name: string; id: string | null }[] }>("/rewards");
  const score = useAction(async () =>
    put(await request<Job>("POST", "/scores", { folder, prompt: prompt.trim() || undefined, reward: reward || undefined })),
  );
  const done = jobs.filter((job) => job.kind === "score").slice(0, 3);
  return (
    <section class="card stack" aria-labelledby="score">
      <h2 id="score">Score a folder</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void score.run();
        }}
      >
        <FolderField label="Folder" value={folder} onChange={setFolder} />
        <div class="fields two">
          <Field label="Prompt" hint="Of all clips; left empty, their own.">
            <input type="text" value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
          </Field>
          <Field label="Reward">
            <select value={reward} onChange={(event) => setReward(event.currentTarget.value)}>
              <option value="">Default</option>
              {rewards.data?.items.map((item) => (
                <option key={item.id ?? item.name} value={item.id ?? item.name}>
                  {item.name}
                </option>
              ))}
            </select>
          </Field>
        </div>
        <Fault error={score.error} />
        <button type="submit" disabled={score.busy || !folder}>
          Score
        </button>
      </form>
      {done.map((job) => (
        <JobRow key={job.id} job={job} title={String(job.request.folder ?? "clips")}>
          {job.status === "done" && <Ranking job={job} />}
        </JobRow>
      ))}
    </section>
  );
}

function Ranking({ job }: { job: Job }) {
  const result = job.result as { clips?: ScoredClip[] } | null;
  const clips = [...(result?.clips ?? [])].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity));
  if (!clips.length) return null;
  return (
    <div class="table-box short" tabIndex={0} role="region" aria-label="Clips by reward">
      <table>
        <thead>
          <tr>
            <th class="right">Place</th>
            <th>File</th>
            <th class="right">Reward</th>
          </tr>
        </thead>
        <tbody>
          {clips.map((clip, index) => (
            <tr key={clip.file}>
              <td class="right numeric">{index + 1}</td>
              <td class="title small">{clip.file}</td>
              <td class="right numeric">{fixed(clip.reward)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Run({ name }: { name: string }) {
  const run = useGet<RunInfo>(`/runs/${encodeURIComponent(name)}`);
  const [shown, setShown] = useState(false);
  useEffect(() => setShown(Boolean(run.data?.has_report)), [run.data?.has_report]);
  if (!run.data) return run.error ? <Fault error={run.error} retry={run.reload} /> : <Loading what="the run" />;
  const report = address(`/runs/${encodeURIComponent(name)}/report/index.html`);
  return (
    <>
      <Heading title={run.data.name}>
        {run.data.has_report && (
          <a class="button" href={report} target="_blank" rel="noreferrer">
            Open the report alone
          </a>
        )}
      </Heading>
      <div class="stack">
        <div class="card">
          <Definitions
            items={[
              ["Recipe", run.data.recipe ?? "–"],
              ["Stages", run.data.stages.join(", ") || "none yet"],
              ["Changed", when(run.data.changed_at) || "–"],
            ]}
          />
        </div>
        {shown ? (
          <iframe class="report" src={report} title={`Report of ${run.data.name}`} sandbox="allow-scripts allow-popups" />
        ) : (
          <Notice>This run has no report yet; it is written when the run has finished.</Notice>
        )}
      </div>
    </>
  );
}
