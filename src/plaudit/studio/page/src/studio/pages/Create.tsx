import { useEffect, useMemo, useState } from "preact/hooks";
import { request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { plural } from "../../ui/format";
import { Choice, Empty, Fault, Field, Form as FormElement, Heading, Input, Loading, Select } from "../../ui/parts";
import { ClipCard } from "../clips";
import { JobList, useJobs } from "../jobs";
import { rewardOptions, useRewards } from "../rewards";
import { Link } from "../router";
import type { Clip, Job } from "../types";

interface ModelInfo {
  name: string;
  seconds: number;
  takes_score: boolean;
  steps: number | null;
  guidance: number | null;
  score: number | null;
  negative_prompt: string | null;
}

/** The model and the reward of a request that names none. */
const DEFAULT_MODEL = "synthetic";
const DEFAULT_REWARD = "synthetic";

interface Form {
  prompt: string;
  model: string;
  score: string;
  guidance: string;
  seconds: string;
  steps: string;
  seed: string;
  count: string;
  bestOf: boolean;
  negative: string;
  reward: string;
}

const DEFAULTS: Form = {
  prompt: "",
  model: DEFAULT_MODEL,
  score: "",
  guidance: "",
  seconds: "",
  steps: "",
  seed: "",
  count: "4",
  bestOf: false,
  negative: "",
  reward: "",
};

const STORED = "studio.create";
const SHOWN_JOBS = 5;

function stored(): Form {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(STORED) ?? "{}") };
  } catch {
    return DEFAULTS;
  }
}

function number(text: string): number | undefined {
  return text.trim() === "" ? undefined : Number(text);
}

/** The request of the API that a form stands for; what is left empty is the model's default. */
function requestOf(form: Form) {
  const count = number(form.count) ?? 1;
  return {
    prompts: form.prompt
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean),
    model: form.model || undefined,
    score: number(form.score),
    guidance: number(form.guidance),
    seconds: number(form.seconds),
    steps: number(form.steps),
    seed: number(form.seed),
    count: form.bestOf ? 1 : count,
    best_of: form.bestOf ? count : 1,
    negative_prompt: form.negative.trim() || undefined,
    reward: form.reward || undefined,
  };
}

function formOf(clip: Clip): Partial<Form> {
  const settings = clip.settings ?? {};
  const text = (value: unknown) => (value === undefined || value === null ? "" : String(value));
  return {
    prompt: clip.prompt,
    model: clip.model ?? DEFAULT_MODEL,
    seed: clip.seed ?? "",
    score: text(settings.score),
    guidance: text(settings.guidance),
    seconds: text(settings.seconds),
    steps: text(settings.steps),
    negative: text(settings.negative_prompt),
    reward: text(settings.reward),
    count: "1",
    bestOf: false,
  };
}

/** Makes a clip's settings those of the form, also of one that is opened later. */
export function storeSettingsOf(clip: Clip): void {
  localStorage.setItem(STORED, JSON.stringify({ ...DEFAULTS, ...formOf(clip) }));
}

function titleOf(job: Job): string {
  const prompts = job.request.prompts as string[] | undefined;
  if (!prompts?.length) return "Generation";
  return prompts.length === 1 ? prompts[0]! : `${prompts[0]} and ${plural(prompts.length - 1, "more prompt")}`;
}

export function Create() {
  const [form, setForm] = useState(stored);
  const models = useGet<{ items: ModelInfo[] }>("/models");
  const rewards = useRewards();
  const { jobs, put, listen } = useJobs();
  const generations = useMemo(() => jobs.filter((job) => job.kind === "generate"), [jobs]);
  const clips = useGet<Page<Clip>>("/clips", { limit: 24 });

  useEffect(() => {
    localStorage.setItem(STORED, JSON.stringify(form));
  }, [form]);
  const set = (change: Partial<Form>) => setForm((old) => ({ ...old, ...change }));

  // Clips appear as they are done: a job's events say how many there are.
  useEffect(() => {
    const done = new Map<string, string>();
    return listen((job) => {
      if (job.kind !== "generate") return;
      const state = `${job.progress?.done ?? 0} ${job.status}`;
      if (done.get(job.id) !== state) {
        done.set(job.id, state);
        clips.reload();
      }
    });
  }, [listen, clips.reload]);

  const generate = useAction(async () => put(await request<Job>("POST", "/generations", requestOf(form))));
  const change = (clip: Clip) =>
    clips.set((page) => ({ ...page, items: page.items.map((other) => (other.id === clip.id ? clip : other)) }));

  const model = models.data?.items.find((item) => item.name === form.model);
  const standard = (value: number | null | undefined) => (value === null || value === undefined ? "none" : String(value));
  const names = models.data?.items.map((model) => model.name) ?? [];
  const shown = clips.data?.items.filter((clip) => clip.status !== "discarded" && clip.model !== null) ?? [];
  const best = bestOfJobs(shown);
  const open = generations.filter((job) => job.status === "queued" || job.status === "running");
  const shownJobs = [...open, ...generations.filter((job) => !open.includes(job)).slice(0, Math.max(0, SHOWN_JOBS - open.length))];

  return (
    <>
      <Heading title="Create" />
      <div class="create">
        <FormElement class="card stack create-form" onSubmit={() => void generate.run()}>
          <Field label="Prompt" hint="One prompt per line. Ctrl+Enter generates.">
            <textarea
              required
              placeholder="slow sad piano in a minor key"
              value={form.prompt}
              onInput={(event) => set({ prompt: event.currentTarget.value })}
              onKeyDown={(event) => {
                if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                  event.preventDefault();
                  event.currentTarget.form?.requestSubmit();
                }
              }}
            />
          </Field>
          <Field label="Model">
            <Select
              value={form.model}
              onChange={(model) => set({ model })}
              options={[...new Set([...names, form.model])].filter(Boolean).map((name) => [name, name])}
            />
          </Field>
          <div class="fields two">
            <Field
              label="Score"
              hint={model && !model.takes_score ? "This model does not use one." : "Higher aims for clips people prefer."}
            >
              <Input type="number" step="any" placeholder={standard(model?.score)} disabled={model && !model.takes_score} value={form.score} onChange={(score) => set({ score })} />
            </Field>
            <Field label="Guidance" hint="How closely to follow the prompt.">
              <Input type="number" step="any" min="0" placeholder={standard(model?.guidance)} value={form.guidance} onChange={(guidance) => set({ guidance })} />
            </Field>
            <Field label="Candidates" hint="Clips of each prompt.">
              <Input type="number" min="1" max="64" required value={form.count} onChange={(count) => set({ count })} />
            </Field>
            <Field label="Seed" hint="The next clip has the next seed.">
              <Input type="number" min="0" step="1" placeholder="random" value={form.seed} onChange={(seed) => set({ seed })} />
            </Field>
          </div>
          <Choice
            label="Keep only the best candidate"
            hint="For each prompt, the one with the highest reward."
            checked={form.bestOf}
            onChange={(bestOf) => set({ bestOf })}
          />
          <details class="more" open={Boolean(form.seconds || form.steps || form.negative || form.reward)}>
            <summary>More settings</summary>
            <div class="stack">
              <div class="fields two">
                <Field label="Length (s)">
                  <Input type="number" min="0.5" step="any" placeholder={standard(model?.seconds)} value={form.seconds} onChange={(seconds) => set({ seconds })} />
                </Field>
                <Field label="Solver steps">
                  <Input type="number" min="1" step="1" placeholder={standard(model?.steps)} value={form.steps} onChange={(steps) => set({ steps })} />
                </Field>
              </div>
              <Field label="Negative prompt" hint="What the clip should not sound like.">
                <Input type="text" placeholder={model?.negative_prompt || "none"} value={form.negative} onChange={(negative) => set({ negative })} />
              </Field>
              <Field label="Reward" hint="Scores every clip and picks the best.">
                <Select
                  value={form.reward}
                  onChange={(reward) => set({ reward })}
                  placeholder={DEFAULT_REWARD}
                  options={rewardOptions(rewards.items.filter((item) => item.name !== DEFAULT_REWARD))}
                />
              </Field>
            </div>
          </details>
          <Fault error={generate.error || models.error} />
          <button type="submit" class="primary large" disabled={generate.busy || !form.prompt.trim()}>
            Generate
          </button>
        </FormElement>

        <div class="stack loose grow">
          <section class="stack" aria-labelledby="queue">
            <h2 id="queue">Queue</h2>
            {shownJobs.length ? (
              <JobList jobs={shownJobs} title={titleOf} />
            ) : (
              <p class="muted">The queue is empty. Write a prompt and press Generate.</p>
            )}
          </section>
          <section class="stack" aria-labelledby="clips">
            <div class="row apart">
              <h2 id="clips">Clips</h2>
              <Link href="/history">All clips</Link>
            </div>
            {shown.length > 0 && (
              <p class="small muted">
                Reward: how well listeners are expected to like the clip, higher is better. CLAP: how well it matches its
                prompt, at most 1.{best.size > 0 && " The highest reward of each prompt is framed."}
              </p>
            )}
            <Fault error={clips.error} retry={clips.reload} />
            {!clips.data && clips.loading && <Loading what="clips" />}
            {clips.data && !shown.length && (
              <Empty title="No clips yet">
                <p class="muted">Clips appear here one by one as they are finished.</p>
              </Empty>
            )}
            {shown.map((clip) => (
              <ClipCard
                key={clip.id}
                clip={clip}
                best={best.has(clip.id)}
                onChange={change}
                onUseSettings={(used) => {
                  setForm({ ...DEFAULTS, ...formOf(used) });
                  window.scrollTo({ top: 0 });
                }}
              />
            ))}
          </section>
        </div>
      </div>
    </>
  );
}

/** The clip with the highest reward of each job and prompt with several clips. */
function bestOfJobs(clips: Clip[]): Set<string> {
  const groups = new Map<string, Clip[]>();
  for (const clip of clips) {
    const key = `${clip.job_id} ${clip.prompt}`;
    groups.set(key, [...(groups.get(key) ?? []), clip]);
  }
  const best = [...groups.values()]
    .map((group) => group.filter((clip) => clip.reward !== null))
    .filter((group) => group.length > 1)
    .map((group) => group.reduce((a, b) => (b.reward! > a.reward! ? b : a)));
  return new Set(best.map((clip) => clip.id));
}
