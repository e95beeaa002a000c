import { useState } from "preact/hooks";
import { request } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { duration, fixed, sentence } from "../../ui/format";
import { Definitions, Empty, Fault, Field, Form, Heading, Input, Loading, Notice, Select, Table } from "../../ui/parts";
import { FolderField, folderLabel, type FolderInfo } from "../folders";
import { JobList, useJobs } from "../jobs";
import { rewardOptions, useRewards } from "../rewards";
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

function stepsText({ steps }: RunInfo): string {
  return `${steps.filter((step) => step.finished).length} of ${steps.length} finished`;
}

function modelsText(run: RunInfo): string {
  return run.models.map((model) => model.split("/")[1]).join(", ");
}

export function Runs() {
  const runs = useGet<{ items: RunInfo[] }>("/runs");
  return (
    <>
      <Heading title="Runs" intro="Runs of recipes. Here you can also compare two sets of clips, and score a folder." />
      <div class="stack loose">
        <Fault error={runs.error} retry={runs.reload} />
        {runs.loading && !runs.data && <Loading what="runs" />}
        {runs.data && !runs.data.items.length && (
          <Empty title="No runs yet">
            <p class="muted">
              Write one into the studio’s folder, with <span class="mono">plaudit run smoke -o FOLDER/runs/smoke</span>, or tune
              a model under <Link href="/tune">Tune</Link>.
            </p>
          </Empty>
        )}
        {runs.data && runs.data.items.length > 0 && (
          <Table
            label="Runs"
            head={
              <>
                <th>Name</th>
                <th>Recipe</th>
                <th>Steps</th>
                <th>Models</th>
                <th>Report</th>
              </>
            }
          >
            {runs.data.items.map((run) => (
              <tr key={run.name}>
                <td class="title">
                  <Link href={`/runs/${encodeURIComponent(run.name)}`}>{run.name}</Link>
                </td>
                <td class="small">{run.recipe}</td>
                <td class="small numeric nowrap-text">{stepsText(run)}</td>
                <td class="small">{modelsText(run)}</td>
                <td class="small nowrap-text">{run.report ? "ready" : <span class="muted">none</span>}</td>
              </tr>
            ))}
          </Table>
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
  const label = (place: unknown) => systems.find(([path]) => path === place)?.[1] ?? String(place);
  const placeholder = systems.length ? "choose…" : "no clips yet";
  return (
    <section class="card stack" aria-labelledby="compare">
      <h2 id="compare">Compare two sets of clips</h2>
      <Form class="stack" onSubmit={() => void compare.run()}>
        <div class="fields two">
          <Field label="First">
            <Select required value={a} onChange={setA} placeholder={placeholder} options={systems} />
          </Field>
          <Field label="Second">
            <Select required value={b} onChange={setB} placeholder={placeholder} options={systems} />
          </Field>
        </div>
        <Fault error={compare.error || folders.error} />
        <button type="submit" disabled={compare.busy || !a || !b || a === b}>
          Compare
        </button>
      </Form>
      <JobList
        jobs={jobs.filter((job) => job.kind === "compare").slice(0, 5)}
        title={({ request }) => `${label(request.a)} against ${label(request.b)}`}
      >
        {(job) => <ComparisonResult job={job} />}
      </JobList>
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
  /** Among the clips of its prompt. */
  rank: number | null;
  error: string | null;
}

function Score() {
  const { jobs, put } = useJobs();
  const folders = useGet<{ items: FolderInfo[] }>("/folders");
  const rewards = useRewards();
  const [folder, setFolder] = useState("");
  const [prompt, setPrompt] = useState("");
  const [reward, setReward] = useState("");
  const score = useAction(async () => {
    put(await request<Job>("POST", "/scores", { folder, prompt: prompt.trim() || undefined, reward: reward || undefined }));
    folders.reload();
  });
  const label = (path: unknown) => {
    const known = folders.data?.items.find((one) => one.path === path);
    return known ? folderLabel(known) : String(path ?? "clips");
  };
  return (
    <section class="card stack" aria-labelledby="score">
      <h2 id="score">Score a folder</h2>
      <Form class="stack" onSubmit={() => void score.run()}>
        <FolderField label="Folder" value={folder} onChange={setFolder} />
        <div class="fields two">
          <Field label="Prompt" hint="For every clip. Leave empty to use each clip’s own prompt.">
            <Input type="text" value={prompt} onChange={setPrompt} />
          </Field>
          <Field label="Reward">
            <Select value={reward} onChange={setReward} placeholder="default" options={rewardOptions(rewards.items)} />
          </Field>
        </div>
        <Fault error={score.error} />
        <button type="submit" disabled={score.busy || !folder}>
          Score
        </button>
      </Form>
      <JobList jobs={jobs.filter((job) => job.kind === "score").slice(0, 3)} title={(job) => label(job.request.folder)}>
        {(job) => <Ranking job={job} />}
      </JobList>
    </section>
  );
}

function Ranking({ job }: { job: Job }) {
  const result = job.result as { scores?: ScoredClip[] } | null;
  const scores = result?.scores ?? [];
  const prompts = [...new Set(scores.map((clip) => clip.prompt))];
  // Ranks are those among the clips of a prompt.
  const ranked = prompts.length < scores.length;
  const order = (clip: ScoredClip) => (ranked ? prompts.indexOf(clip.prompt) : 0);
  const clips = [...scores].sort((a, b) => order(a) - order(b) || (b.reward ?? -Infinity) - (a.reward ?? -Infinity));
  if (!clips.length) return null;
  return (
    <Table
      short
      label="Clips by reward"
      head={
        <>
          {ranked && <th class="right">Rank of its prompt</th>}
          <th>Clip</th>
          <th class="right">Reward</th>
        </>
      }
    >
      {clips.map((clip) => (
        <tr key={clip.file}>
          {ranked && <td class="right numeric">{clip.rank ?? "–"}</td>}
          <td class="small">
            <span class="title">{clip.file}</span>
            <span class="hint-line">{clip.error ? sentence(clip.error) : clip.prompt}</span>
          </td>
          <td class="right numeric">{fixed(clip.reward)}</td>
        </tr>
      ))}
    </Table>
  );
}

export function Run({ name }: { name: string }) {
  const run = useGet<RunInfo>(`/runs/${encodeURIComponent(name)}`);
  if (!run.data) return run.error ? <Fault error={run.error} retry={run.reload} /> : <Loading what="the run" />;
  const { steps, report, recipe } = run.data;
  const seconds = steps.reduce((sum, step) => sum + (step.seconds ?? 0), 0);
  return (
    <>
      <Heading title={run.data.name}>
        {report && (
          <a class="button" href={report} target="_blank" rel="noreferrer">
            Open the report in a new tab
          </a>
        )}
      </Heading>
      <div class="stack">
        <div class="card">
          <Definitions
            items={[
              ["Recipe", recipe ?? "–"],
              ["Steps", stepsText(run.data)],
              ["Models", modelsText(run.data) || "none yet"],
              ["Computing time", seconds ? duration(seconds) : "–"],
            ]}
          />
        </div>
        {report ? (
          <iframe class="report" src={report} title={`Report of ${run.data.name}`} />
        ) : (
          <Notice>This run has no report. A report is written when all steps of a recipe have finished.</Notice>
        )}
      </div>
    </>
  );
}
