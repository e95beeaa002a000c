import { useRef, useState } from "preact/hooks";
import { request } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { plural } from "../../ui/format";
import { Choice, Fault, Field, Heading, Icon, Notice } from "../../ui/parts";
import { useJobs } from "../jobs";
import { navigate } from "../router";
import { RULES, type ExclusionRules, type Screening, type Source, type TestInfo, type TestKind } from "../testTypes";
import type { Job } from "../types";
import { FolderField } from "../folders";
import { stagesOf } from "./Runs";

type SourceKind = "run" | "model" | "folder";

interface SystemForm {
  name: string;
  kind: SourceKind;
  run: string;
  stage: string;
  model: string;
  folder: string;
}

interface Form {
  name: string;
  kind: TestKind;
  systems: SystemForm[];
  prompts: string;
  pairs: string;
  repeats: string;
  obvious: string;
  practice: string;
  minimum: string;
  screening: Screening;
  ties: boolean;
  bothBad: boolean;
  strength: boolean;
  comment: boolean;
  showPrompt: boolean;
  question: string;
  instructions: string;
  consent: string;
  reference: string;
  rules: Record<string, string>;
  margin: string;
  power: string;
}

const SYSTEM: SystemForm = { name: "", kind: "model", run: "", stage: "", model: "", folder: "" };

const FIRST: Form = {
  name: "",
  kind: "preference",
  systems: [SYSTEM, SYSTEM],
  prompts: "",
  pairs: "20",
  repeats: "2",
  obvious: "2",
  practice: "1",
  minimum: "3",
  screening: "none",
  ties: true,
  bothBad: true,
  strength: false,
  comment: false,
  showPrompt: true,
  question: "",
  instructions: "",
  consent: "",
  reference: "",
  rules: { min_obvious: "75" },
  margin: "10",
  power: "80",
};

const STEPS = ["What is compared", "What listeners get", "Rules and size"];

interface RunInfo {
  name: string;
  folders: string[];
}

interface ModelInfo {
  name: string;
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

function nameOf(system: SystemForm): string {
  if (system.name.trim()) return system.name.trim();
  if (system.kind === "run") return [system.run, system.stage].filter(Boolean).join(":");
  const path = system.kind === "model" ? system.model : system.folder;
  return path.split("/").filter(Boolean).pop() ?? "";
}

function sourceOf(system: SystemForm): Source {
  if (system.kind === "run") return { run: system.run, stage: system.stage };
  if (system.kind === "model") return { model: system.model };
  return { folder: system.folder };
}

function isComplete(system: SystemForm): boolean {
  if (system.kind === "run") return Boolean(system.run && system.stage);
  return Boolean(system.kind === "model" ? system.model : system.folder);
}

function requestOf(form: Form) {
  const rules: ExclusionRules = {};
  for (const rule of RULES) {
    const text = form.rules[rule.key];
    if (text) rules[rule.key] = rule.percent ? Number(text) / 100 : Number(text);
  }
  const prompts = lines(form.prompts);
  return {
    name: form.name.trim(),
    kind: form.kind,
    systems: form.systems.map((system) => ({ name: nameOf(system), source: sourceOf(system) })),
    prompts: prompts.length ? [...new Set(prompts)] : undefined,
    pairs_per_listener: Number(form.pairs),
    repeats: Number(form.repeats),
    obvious: Number(form.obvious),
    practice: Number(form.practice),
    minimum_listening: Number(form.minimum),
    screening: form.screening,
    ties: form.ties,
    both_bad: form.bothBad,
    strength: form.strength,
    comment: form.comment,
    show_prompt: form.showPrompt,
    question: form.question.trim() || undefined,
    instructions: form.instructions.trim() || undefined,
    consent: form.consent.trim() || undefined,
    reference: form.kind === "rating" && form.reference ? form.reference : undefined,
    exclusion_rules: rules,
    margin: Number(form.margin) / 100,
    power: Number(form.power) / 100,
  };
}

export function NewTest() {
  const [form, setForm] = useState(FIRST);
  const [step, setStep] = useState(0);
  const { put } = useJobs();
  const head = useRef<HTMLHeadingElement>(null);
  const set = (change: Partial<Form>) => setForm((old) => ({ ...old, ...change }));

  const create = useAction(async () => {
    const { test, job } = await request<{ test: TestInfo; job: string }>("POST", "/tests", requestOf(form));
    request<Job>("GET", `/jobs/${job}`).then(put, () => undefined);
    navigate(`/tests/${test.id}`);
  });
  const go = (target: number) => {
    setStep(target);
    requestAnimationFrame(() => head.current?.focus());
  };
  return (
    <>
      <Heading title="New listening test" />
      <form
        class="stack loose"
        onSubmit={(event) => {
          event.preventDefault();
          if (step < STEPS.length - 1) go(step + 1);
          else void create.run();
        }}
      >
        <ol class="steps" aria-label="Steps">
          {STEPS.map((label, index) => (
            <li key={label} aria-current={index === step ? "step" : undefined}>
              {label}
            </li>
          ))}
        </ol>
        <h2 ref={head} tabIndex={-1} class="visually-hidden">
          Step {step + 1}: {STEPS[step]}
        </h2>
        {step === 0 && <What form={form} set={set} />}
        {step === 1 && <Listeners form={form} set={set} />}
        {step === 2 && <Rules form={form} set={set} />}
        <Fault error={create.error} />
        <div class="row apart">
          {step > 0 ? (
            <button type="button" onClick={() => go(step - 1)}>
              Back
            </button>
          ) : (
            <button type="button" class="quiet" onClick={() => navigate("/tests")}>
              Cancel
            </button>
          )}
          <button type="submit" class="primary" disabled={create.busy}>
            {step < STEPS.length - 1 ? "Next" : "Create test"}
          </button>
        </div>
      </form>
    </>
  );
}

interface PartProps {
  form: Form;
  set(change: Partial<Form>): void;
}

function What({ form, set }: PartProps) {
  const runs = useGet<{ items: RunInfo[] }>("/runs");
  const models = useGet<{ items: ModelInfo[] }>("/models");
  const change = (index: number, part: Partial<SystemForm>) =>
    set({ systems: form.systems.map((system, other) => (other === index ? { ...system, ...part } : system)) });
  const promptsNeeded = form.systems.every((system) => system.kind === "model");
  return (
    <div class="stack loose">
      <div class="columns">
        <Field label="Name" hint="For you; listeners do not see it.">
          <input
            type="text"
            required
            maxLength={120}
            placeholder="tuned against base"
            value={form.name}
            onInput={(event) => set({ name: event.currentTarget.value })}
          />
        </Field>
        <fieldset>
          <legend>Kind</legend>
          <div class="stack tight">
            <Choice
              type="radio"
              name="kind"
              label="Pairs"
              hint="Which of two clips is better?"
              checked={form.kind === "preference"}
              onChange={() => set({ kind: "preference" })}
            />
            <Choice
              type="radio"
              name="kind"
              label="Ratings"
              hint="Sliders from 0 to 100 for all systems of a prompt, as in MUSHRA."
              checked={form.kind === "rating"}
              onChange={() => set({ kind: "rating" })}
            />
          </div>
        </fieldset>
      </div>
      <section class="stack" aria-labelledby="systems">
        <h3 id="systems">Systems</h3>
        {form.systems.map((system, index) => (
          <fieldset class="card" key={index}>
            <legend class="visually-hidden">System {index + 1}</legend>
            <div class="source">
              <Field label="Name">
                <input
                  type="text"
                  maxLength={120}
                  placeholder={nameOf(system) || `system ${index + 1}`}
                  value={system.name}
                  onInput={(event) => change(index, { name: event.currentTarget.value })}
                />
              </Field>
              <Field label="Clips from">
                <select value={system.kind} onChange={(event) => change(index, { kind: event.currentTarget.value as SourceKind })}>
                  <option value="model">a model</option>
                  <option value="run">a stage of a run</option>
                  <option value="folder">a folder</option>
                </select>
              </Field>
              <SourceFields system={system} runs={runs.data?.items ?? []} models={models.data?.items ?? []} change={(part) => change(index, part)} />
              {form.systems.length > 1 && (
                <button
                  type="button"
                  class="quiet"
                  aria-label={`Remove system ${index + 1}`}
                  onClick={() => set({ systems: form.systems.filter((_, other) => other !== index) })}
                >
                  <Icon name="cross" />
                </button>
              )}
            </div>
          </fieldset>
        ))}
        <div>
          <button type="button" class="small" onClick={() => set({ systems: [...form.systems, SYSTEM] })}>
            <Icon name="plus" size={14} /> Add a system
          </button>
        </div>
        <Fault error={runs.error || models.error} />
      </section>
      <Field
        label="Prompts"
        hint={
          promptsNeeded
            ? "One a line. Each model generates a clip of each."
            : "One a line. Leave empty to take all prompts that every system has clips of."
        }
      >
        <textarea required={promptsNeeded} rows={5} value={form.prompts} onInput={(event) => set({ prompts: event.currentTarget.value })} />
      </Field>
      {form.kind === "rating" && (
        <Field label="Reference" hint="Its clips are given openly and, hidden, among the others.">
          <select value={form.reference} onChange={(event) => set({ reference: event.currentTarget.value })}>
            <option value="">none</option>
            {form.systems.filter(isComplete).map((system) => (
              <option key={nameOf(system)} value={nameOf(system)}>
                {nameOf(system)}
              </option>
            ))}
          </select>
        </Field>
      )}
    </div>
  );
}

interface SourceFieldsProps {
  system: SystemForm;
  runs: RunInfo[];
  models: ModelInfo[];
  change(part: Partial<SystemForm>): void;
}

function SourceFields({ system, runs, models, change }: SourceFieldsProps) {
  if (system.kind === "model") {
    return (
      <Field label="Model">
        <select required value={system.model} onChange={(event) => change({ model: event.currentTarget.value })}>
          <option value="">choose…</option>
          {models.map((model) => (
            <option key={model.name} value={model.name}>
              {model.name}
            </option>
          ))}
        </select>
      </Field>
    );
  }
  if (system.kind === "folder") {
    return <FolderField label="Folder of clips" value={system.folder} uploadName={system.name.trim()} onChange={(folder) => change({ folder })} />;
  }
  const run = runs.find((one) => one.name === system.run);
  const stages = run ? stagesOf(run) : [];
  return (
    <div class="fields two">
      <Field label="Run">
        <select required value={system.run} onChange={(event) => change({ run: event.currentTarget.value, stage: "" })}>
          <option value="">{runs.length ? "choose…" : "there are no runs"}</option>
          {runs.map((run) => (
            <option key={run.name} value={run.name}>
              {run.name}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Stage">
        <select required value={system.stage} disabled={!system.run} onChange={(event) => change({ stage: event.currentTarget.value })}>
          <option value="">choose…</option>
          {stages.map((stage) => (
            <option key={stage} value={stage}>
              {stage}
            </option>
          ))}
        </select>
      </Field>
    </div>
  );
}

function Listeners({ form, set }: PartProps) {
  const pairs = form.kind === "preference";
  return (
    <div class="columns">
      <section class="stack">
        <div class="fields two">
          <Field label={pairs ? "Pairs for each listener" : "Pages for each listener"} hint="A random, balanced part of all.">
            <input type="number" min="1" max="500" required value={form.pairs} onInput={(event) => set({ pairs: event.currentTarget.value })} />
          </Field>
          <Field label="Minimum listening (s)" hint="Of each clip, before an answer counts.">
            <input type="number" min="0" max="600" step="0.5" required value={form.minimum} onInput={(event) => set({ minimum: event.currentTarget.value })} />
          </Field>
        </div>
        <Field label="Headphone check" hint="Six trials that only headphones can answer.">
          <select value={form.screening} onChange={(event) => set({ screening: event.currentTarget.value as Screening })}>
            <option value="none">none</option>
            <option value="huggins">Huggins pitch (strict)</option>
            <option value="antiphase">Antiphase tones</option>
          </select>
        </Field>
        <fieldset>
          <legend>On the page</legend>
          <div class="stack tight">
            <Choice label="Show the prompt" checked={form.showPrompt} onChange={(showPrompt) => set({ showPrompt })} />
            {pairs && (
              <>
                <Choice label="Allow “no difference”" checked={form.ties} onChange={(ties) => set({ ties })} />
                <Choice label="Allow “both are bad”" checked={form.bothBad} onChange={(bothBad) => set({ bothBad })} />
                <Choice label="Ask how strong the preference is" checked={form.strength} onChange={(strength) => set({ strength })} />
                <Choice label="Offer a comment" checked={form.comment} onChange={(comment) => set({ comment })} />
              </>
            )}
          </div>
        </fieldset>
      </section>
      <section class="stack">
        <Field label="Question" hint="Left empty: a usual question.">
          <input
            type="text"
            maxLength={500}
            placeholder={pairs ? "Which of the two clips do you prefer?" : "How good is each clip?"}
            value={form.question}
            onInput={(event) => set({ question: event.currentTarget.value })}
          />
        </Field>
        <Field label="Instructions" hint="Left empty: usual instructions (headphones, a quiet room, no right or wrong answers).">
          <textarea rows={4} value={form.instructions} onInput={(event) => set({ instructions: event.currentTarget.value })} />
        </Field>
        <Field label="Consent text" hint="Left empty: participation is voluntary, and no name or address is stored.">
          <textarea rows={4} value={form.consent} onInput={(event) => set({ consent: event.currentTarget.value })} />
        </Field>
      </section>
    </div>
  );
}

function Rules({ form, set }: PartProps) {
  const pairs = form.kind === "preference";
  return (
    <div class="columns">
      <section class="stack">
        <h3>Attention</h3>
        {pairs && (
          <div class="fields">
            <Field label="Practice pairs" hint="First; not counted.">
              <input type="number" min="0" max="10" required value={form.practice} onInput={(event) => set({ practice: event.currentTarget.value })} />
            </Field>
            <Field label="Hidden repeats" hint="On exchanged sides.">
              <input type="number" min="0" max="50" required value={form.repeats} onInput={(event) => set({ repeats: event.currentTarget.value })} />
            </Field>
            <Field label="Obvious pairs" hint="A clip against its degraded self.">
              <input type="number" min="0" max="50" required value={form.obvious} onInput={(event) => set({ obvious: event.currentTarget.value })} />
            </Field>
          </div>
        )}
        <h3>Who is left out of the results</h3>
        <p class="small muted">Set before the test begins, and shown with its results. Empty: no such rule.</p>
        <div class="rule-list">
          {RULES.map((rule) => (
            <Field key={rule.key} label={`${rule.label}${rule.unit ? ` (${rule.unit})` : ""}`}>
              <input
                type="number"
                min={rule.key === "max_one_side" ? 50 : 0}
                max={rule.percent ? 100 : undefined}
                step={rule.step}
                placeholder="no rule"
                value={form.rules[rule.key] ?? ""}
                onInput={(event) => set({ rules: { ...form.rules, [rule.key]: event.currentTarget.value } })}
              />
            </Field>
          ))}
        </div>
      </section>
      <section class="stack">
        <h3>When it is decided</h3>
        <p class="small muted">
          The results say how many more votes it takes to find a difference of this size, and stay valid however often
          you look.
        </p>
        <div class="fields two">
          <Field label="Least difference (points)" hint={`${50 + Number(form.margin)} % against ${50 - Number(form.margin)} %`}>
            <input type="number" min="1" max="49" required value={form.margin} onInput={(event) => set({ margin: event.currentTarget.value })} />
          </Field>
          <Field label="Power (%)" hint="Chance of finding such a difference.">
            <input type="number" min="1" max="99" required value={form.power} onInput={(event) => set({ power: event.currentTarget.value })} />
          </Field>
        </div>
        <Notice>
          {form.systems.map(nameOf).filter(Boolean).join(" against ") || "No systems"}
          {lines(form.prompts).length > 0 && `, ${plural(new Set(lines(form.prompts)).size, "prompt")}`}. Clips are generated or
          collected and brought to one loudness first; you open the test when that is done.
        </Notice>
      </section>
    </div>
  );
}
