import { useRef, useState } from "preact/hooks";
import { request } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { plural } from "../../ui/format";
import { Choice, Fault, Field, Form as FormElement, Heading, Icon, Input, Notice, Select } from "../../ui/parts";
import { useJobs } from "../jobs";
import { navigate } from "../router";
import { RULES, ratingRule, type ExclusionRules, type Pairing, type Screening, type Source, type TestInfo, type TestKind } from "../testTypes";
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
  pairing: Pairing;
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
  pairing: "random",
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

const SOURCES = [
  ["model", "a model"],
  ["run", "a stage of a run"],
  ["folder", "a folder"],
] as const;

const PAIRINGS = [
  ["random", "random, balanced"],
  ["active", "active, by the votes so far"],
] as const;

const SCREENINGS = [
  ["none", "none"],
  ["huggins", "Huggins pitch (strict)"],
  ["antiphase", "antiphase tones"],
] as const;

const STEPS = ["What to compare", "What listeners see", "Rules and size"];

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

/** With two systems there is nothing to choose, and a rating page has all. */
function choosesPairs(form: Form) {
  return form.kind === "preference" && form.systems.length > 2;
}

function requestOf(form: Form) {
  const rules: ExclusionRules = {};
  for (const rule of form.kind === "preference" ? RULES : []) {
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
    pairing: choosesPairs(form) ? form.pairing : "random",
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
      <FormElement class="stack loose" onSubmit={() => (step < STEPS.length - 1 ? go(step + 1) : void create.run())}>
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
      </FormElement>
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
  const minimumSystems = form.kind === "preference" ? 2 : 1;
  const promptsNeeded = form.systems.every((system) => system.kind === "model");
  return (
    <div class="stack loose">
      <div class="columns">
        <Field label="Name" hint="Listeners do not see it.">
          <Input
            type="text"
            required
            maxLength={120}
            placeholder="tuned against base"
            value={form.name}
            onChange={(name) => set({ name })}
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
              hint="Rate the clips of all systems from 0 to 100, as in MUSHRA."
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
                <Input
                  type="text"
                  maxLength={120}
                  placeholder={nameOf(system) || `system ${index + 1}`}
                  value={system.name}
                  onChange={(name) => change(index, { name })}
                />
              </Field>
              <Field label="Clips from">
                <Select value={system.kind} onChange={(kind) => change(index, { kind: kind as SourceKind })} options={SOURCES} />
              </Field>
              <SourceFields system={system} runs={runs.data?.items ?? []} models={models.data?.items ?? []} change={(part) => change(index, part)} />
              {form.systems.length > minimumSystems && (
                <button
                  type="button"
                  class="quiet"
                  aria-label={`Remove system ${index + 1}`}
                  onClick={() => set({ systems: form.systems.filter((_, other) => other !== index) })}
                >
                  <Icon name="cross" size={14} /> Remove
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
            ? "One per line. Each model generates a clip for each prompt."
            : "One per line. Leave empty to use every prompt that all systems have clips for."
        }
      >
        <textarea required={promptsNeeded} rows={5} value={form.prompts} onInput={(event) => set({ prompts: event.currentTarget.value })} />
      </Field>
      {form.kind === "rating" && (
        <Field label="Reference" hint="Its clips are shown as the reference, and are also hidden among the clips to rate.">
          <Select
            value={form.reference}
            onChange={(reference) => set({ reference })}
            placeholder="none"
            options={form.systems.filter(isComplete).map((system) => [nameOf(system), nameOf(system)])}
          />
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
        <Select
          required
          value={system.model}
          onChange={(model) => change({ model })}
          placeholder="choose…"
          options={models.map((model) => [model.name, model.name])}
        />
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
        <Select
          required
          value={system.run}
          onChange={(run) => change({ run, stage: "" })}
          placeholder={runs.length ? "choose…" : "there are no runs"}
          options={runs.map((run) => [run.name, run.name])}
        />
      </Field>
      <Field label="Stage">
        <Select
          required
          value={system.stage}
          disabled={!system.run}
          onChange={(stage) => change({ stage })}
          placeholder="choose…"
          options={stages.map((stage) => [stage, stage])}
        />
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
          <Field label={pairs ? "Pairs for each listener" : "Pages for each listener"} hint="A random, balanced subset.">
            <Input type="number" min="1" max="500" required value={form.pairs} onChange={(pairs) => set({ pairs })} />
          </Field>
          <Field label="Minimum listening (s)" hint="Of each clip before answering.">
            <Input type="number" min="0" max="600" step="0.5" required value={form.minimum} onChange={(minimum) => set({ minimum })} />
          </Field>
        </div>
        {choosesPairs(form) && (
          <Field label="Choice of pairs" hint="Active pairing spends most votes on close comparisons, so that a ranking needs fewer.">
            <Select value={form.pairing} onChange={(pairing) => set({ pairing: pairing as Pairing })} options={PAIRINGS} />
          </Field>
        )}
        <Field label="Headphone check" hint="Six short trials that are only easy with headphones.">
          <Select
            value={form.screening}
            onChange={(screening) => set({ screening: screening as Screening })}
            options={SCREENINGS}
          />
        </Field>
        <fieldset>
          <legend>Answers</legend>
          <div class="stack tight">
            <Choice label="Show the prompt" checked={form.showPrompt} onChange={(showPrompt) => set({ showPrompt })} />
            {pairs && (
              <>
                <Choice label="Allow “no difference”" checked={form.ties} onChange={(ties) => set({ ties })} />
                <Choice label="Allow “both are bad”" checked={form.bothBad} onChange={(bothBad) => set({ bothBad })} />
                <Choice label="Ask how strong the preference is" checked={form.strength} onChange={(strength) => set({ strength })} />
                <Choice label="Allow a comment" checked={form.comment} onChange={(comment) => set({ comment })} />
              </>
            )}
          </div>
        </fieldset>
      </section>
      <section class="stack">
        <Field label="Question">
          <Input
            type="text"
            maxLength={500}
            placeholder={pairs ? "Which of the two clips do you prefer?" : "How good is each clip?"}
            value={form.question}
            onChange={(question) => set({ question })}
          />
        </Field>
        <Field label="Instructions" hint="Leave empty for the default: use headphones in a quiet room; there are no right or wrong answers.">
          <textarea rows={4} value={form.instructions} onInput={(event) => set({ instructions: event.currentTarget.value })} />
        </Field>
        <Field label="Consent text" hint="Leave empty for the default: taking part is voluntary, and no name or address is stored.">
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
        {pairs && (
          <>
            <h3>Extra pairs</h3>
            <div class="fields">
              <Field label="Practice pairs" hint="Come first, not counted.">
                <Input type="number" min="0" max="10" required value={form.practice} onChange={(practice) => set({ practice })} />
              </Field>
              <Field label="Hidden repeats" hint="With the sides swapped.">
                <Input type="number" min="0" max="50" required value={form.repeats} onChange={(repeats) => set({ repeats })} />
              </Field>
              <Field label="Attention checks" hint="A clip against a degraded copy.">
                <Input type="number" min="0" max="50" required value={form.obvious} onChange={(obvious) => set({ obvious })} />
              </Field>
            </div>
          </>
        )}
        <h3>Exclusion rules</h3>
        {pairs ? (
          <>
            <p class="small muted">
              A listener who breaks a rule is excluded from the results. Rules are fixed when the test is opened, and are
              shown with its results. Leave a field empty for no rule.
            </p>
            <div class="rule-list">
              {RULES.map((rule) => (
                <Field key={rule.key} label={`${rule.label}${rule.unit ? ` (${rule.unit})` : ""}`}>
                  <Input
                    type="number"
                    min={rule.key === "max_one_side" ? "50" : "0"}
                    max={rule.percent ? "100" : undefined}
                    step={String(rule.step)}
                    placeholder="no rule"
                    value={form.rules[rule.key] ?? ""}
                    onChange={(value) => set({ rules: { ...form.rules, [rule.key]: value } })}
                  />
                </Field>
              ))}
            </div>
          </>
        ) : (
          <p>{ratingRule(form.reference || null)}</p>
        )}
      </section>
      <section class="stack">
        {pairs && (
          <>
            <h3>How many votes</h3>
            <p class="small muted">
              The results say how many more votes it takes to find a difference of this size. You can look at them as
              often as you like without making them less reliable.
            </p>
            <div class="fields two">
              <Field
                label="Margin (percentage points)"
                hint={`${50 + Number(form.margin)} % against ${50 - Number(form.margin)} %. Smaller differences do not matter.`}
              >
                <Input type="number" min="1" max="49" required value={form.margin} onChange={(margin) => set({ margin })} />
              </Field>
              <Field label="Power (%)" hint="Chance of finding such a difference.">
                <Input type="number" min="1" max="99" required value={form.power} onChange={(power) => set({ power })} />
              </Field>
            </div>
          </>
        )}
        <Notice>
          {form.systems.map(nameOf).filter(Boolean).join(" against ") || "No systems"}
          {lines(form.prompts).length > 0 && `, ${plural(new Set(lines(form.prompts)).size, "prompt")}`}. First the clips are
          collected or generated, and matched in loudness. Then you can open the test.
        </Notice>
      </section>
    </div>
  );
}
