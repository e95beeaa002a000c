import { useState } from "preact/hooks";
import { request } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { duration, fixed } from "../../ui/format";
import { Definitions, Empty, Fault, Field, Heading, Loading, Notice } from "../../ui/parts";
import { FolderField, folderLabel, type FolderInfo } from "../folders";
import { JobRow, useJobs } from "../jobs";
import { Link } from "../router";
import type { Job } from "../types";

interface RunInfo {
  name: string;
  recipe: string | null;
  steps: { name: string; finished: boolean; seconds: number | null }[];
  models: string[];
  folders: string[];
  report: string | null;
}

/** The stages of a run that have clips: its folders are called runs/NAME/clips-STAGE. */
export function stagesOf(run: { folders: string[] }): string[] {
  return run.folders.map((folder) => folder.split("/clips-")[1] ?? "").filter(Boolean);
}

export function Runs() {
  const runs = useGet<{ items: RunInfo[] }>("/runs");
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
                  <th>Steps</th>
                  <th>Models</th>
                  <th>Report</th>
                </tr>
              </thead>
              <tbody>
                {runs.data.items.map((run) => (
                  <tr key={run.name}>
                    <td class="title">
                      <Link href={`/runs/${encodeURIComponent(run.name)}`}>{run.name}</Link>
                    </td>
                    <td class="small">{run.recipe}</td>
                    <td class="small numeric">
                      {run.steps.filter((step) => step.finished).length} of {run.steps.length} finished
                    </td>
                    <td class="small">{run.models.map((model) => model.split("/")[1]).join(", ")}</td>
                    <td class="small">{run.report ? "yes" : <span class="muted">not yet</span>}</td>
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
  const folders = useGet<{ items: FolderInfo[] }>("/folders");
  const systems: [string, string][] = [
    ...runs.flatMap((run) => stagesOf(run).map((stage): [string, string] => [`runs/${run.name}:${stage}`, `${run.name}, ${stage}`])),
    ...(folders.data?.items ?? [])
      .filter((folder) => folder.kind !== "run")
      .map((folder): [string, string] => [folder.path, folderLabel(folder)]),
  ];
  const [a, setA] = useState("");
  const [b, setB] = useState("");
  const compare = useAction(async () => put(await request<Job>("POST", "/comparisons", { a, b })));
  const done = jobs.filter((job) => job.kind === "compare").slice(0, 5);
  const options = [
    <option key="" value="">
      {systems.length ? "choose…" : "there are no clips"}
    </option>,
    ...systems.map(([name, label]) => (
      <option key={name} value={name}>
        {label}
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

function ComparisonResult({ job }: { job: Job }) {
  const page = job.result?.page as string | null | undefined;
  if (!page) return null;
  return (
    <p>
      <a href={page} target="_blank" rel="noreferrer">
        Open the comparison
      </a>
    </p>
  );
}

interface ScoredClip {
  file: string;
  prompt: string;
  reward: number | null;
  rank: number | null;
  error: string | null;
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
  const result = job.result as { scores?: ScoredClip[] } | null;
  const clips = [...(result?.scores ?? [])].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity));
  if (!clips.length) return null;
  return (
    <div class="table-box short" tabIndex={0} role="region" aria-label="Clips by reward">
      <table>
        <thead>
          <tr>
            <th class="right">Rank</th>
            <th>Clip</th>
            <th class="right">Reward</th>
          </tr>
        </thead>
        <tbody>
          {clips.map((clip) => (
            <tr key={clip.file}>
              <td class="right numeric">{clip.rank ?? "–"}</td>
              <td class="small">
                <span class="title">{clip.file}</span>
                <span class="hint-line">{clip.error ?? clip.prompt}</span>
              </td>
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
  if (!run.data) return run.error ? <Fault error={run.error} retry={run.reload} /> : <Loading what="the run" />;
  const { steps, models, report, recipe } = run.data;
  const seconds = steps.reduce((sum, step) => sum + (step.seconds ?? 0), 0);
  return (
    <>
      <Heading title={run.data.name}>
        {report && (
          <a class="button" href={report} target="_blank" rel="noreferrer">
            Open the report alone
          </a>
        )}
      </Heading>
      <div class="stack">
        <div class="card">
          <Definitions
            items={[
              ["Recipe", recipe ?? "–"],
              ["Steps", `${steps.filter((step) => step.finished).length} of ${steps.length} finished`],
              ["Models", models.map((model) => model.split("/")[1]).join(", ") || "none yet"],
              ["Computing time", seconds ? duration(seconds) : "–"],
            ]}
          />
        </div>
        {report ? (
          <iframe class="report" src={report} title={`Report of ${run.data.name}`} />
        ) : (
          <Notice>This run has no report yet; it is written when the run has finished.</Notice>
        )}
      </div>
    </>
  );
}
