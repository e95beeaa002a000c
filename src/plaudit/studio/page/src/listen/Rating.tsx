import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, messageOf, persist } from "../api";
import { useDeck } from "../audio/useDeck";
import { Icon, Notice } from "../ui/parts";
import { Progress } from "./Progress";
import { Transport } from "./Transport";
import { KeyList, useKeys } from "./keys";
import type { ListenerSession, NextPage } from "./types";

const SCALE = ["Bad", "Poor", "Fair", "Good", "Excellent"];

interface Props {
  task: NextPage;
  test: ListenerSession;
  onAnswered(): void;
}

export function Rating({ task, test, onAnswered }: Props) {
  const state = useDeck([...(task.reference ? [task.reference] : []), ...task.clips.map((stimulus) => stimulus.audio)]);
  const { deck } = state;
  const first = task.reference ? 1 : 0;
  const [values, setValues] = useState<Record<string, number>>({});
  const [sending, setSending] = useState(false);
  const [waiting, setWaiting] = useState(false);
  const [error, setError] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);

  useEffect(() => heading.current?.focus({ preventScroll: true }), []);

  const needed = Math.min(task.minimum_listening, deck.duration || Infinity);
  const missing = task.clips.map((_, index) => Math.max(0, needed - deck.listened[index + first]!));
  const unheard = missing.filter((seconds) => seconds > 0).length;
  const unrated = task.clips.filter((stimulus) => values[stimulus.id] === undefined).length;
  const complete = unheard === 0 && unrated === 0;

  const submit = async () => {
    if (!complete || sending) return;
    setSending(true);
    setError("");
    deck.pause();
    try {
      await persist(
        "/listen/ratings",
        {
          assignment: task.assignment,
          values,
          listened: Object.fromEntries(
            task.clips.map((stimulus, index) => [stimulus.id, Math.round(deck.listened[index + first]! * 1000) / 1000]),
          ),
        },
        setWaiting,
      );
      onAnswered();
    } catch (fault) {
      if (fault instanceof ApiError && fault.status === 409) onAnswered();
      else {
        setError(messageOf(fault));
        setSending(false);
      }
    }
  };

  const play = (index: number) => () => {
    if (index < deck.listened.length) state.toggle(index);
  };
  useKeys({
    ...(first ? { r: play(0) } : {}),
    ...Object.fromEntries(task.clips.map((_, index) => [String(index + 1), play(index + first)])),
    " ": () => state.toggle(),
    enter: () => void submit(),
  });

  return (
    <section class="stack" aria-labelledby="question">
      <Progress position={task.position} total={task.total} />
      <div class="stack tight">
        <h1 id="question" ref={heading} tabIndex={-1}>
          {test.question}
        </h1>
        {task.prompt && (
          <p class="prompt">
            <span class="muted">Description: </span>
            {task.prompt}
          </p>
        )}
      </div>
      {first === 1 && (
        <button type="button" class="reference" aria-pressed={deck.playing && deck.active === 0} onClick={play(0)}>
          <Icon name={deck.playing && deck.active === 0 ? "pause" : "play"} />
          Reference
        </button>
      )}
      <ol class="stimuli">
        {task.clips.map((stimulus, index) => {
          const audible = deck.playing && deck.active === index + first;
          const value = values[stimulus.id];
          return (
            <li key={stimulus.id} class={audible ? "audible" : ""}>
              <button
                type="button"
                aria-label={`${audible ? "Pause" : "Play"} clip ${index + 1}`}
                aria-pressed={audible}
                onClick={play(index + first)}
              >
                <Icon name={audible ? "pause" : "play"} />
                {index + 1}
              </button>
              <div class="grow">
                <input
                  type="range"
                  min={0}
                  max={100}
                  step={1}
                  value={value ?? 50}
                  class={value === undefined ? "unrated" : ""}
                  aria-label={`Rating of clip ${index + 1}`}
                  aria-valuetext={value === undefined ? "not rated yet" : `${value}, ${word(value)}`}
                  onInput={(event) => setValues({ ...values, [stimulus.id]: Number(event.currentTarget.value) })}
                  onClick={(event) => setValues({ ...values, [stimulus.id]: Number(event.currentTarget.value) })}
                />
                <div class="scale small muted" aria-hidden="true">
                  {SCALE.map((label) => (
                    <span key={label}>{label}</span>
                  ))}
                </div>
              </div>
              <output class="numeric">{value ?? "–"}</output>
              <span class="small muted listened">{missing[index] ? `${Math.ceil(missing[index]!)} s more` : "listened"}</span>
            </li>
          );
        })}
      </ol>
      <Transport state={state} />
      {state.error && <Notice kind="error">{state.error}</Notice>}
      <p class="small muted" aria-live="polite">
        {unheard
          ? `Listen to at least ${Math.ceil(task.minimum_listening)} s of every clip (${unheard} to go).`
          : unrated
            ? `Rate every clip (${unrated} to go).`
            : "Every clip is rated. You can go on listening and change ratings."}
      </p>
      {waiting && <Notice kind="warning">The connection is lost. Your answer is kept and sent when it is back.</Notice>}
      {error && <Notice kind="error">{error}</Notice>}
      <button type="button" class="primary next" disabled={!complete || sending} onClick={() => void submit()}>
        {sending ? "Saving…" : "Save and go on"}
      </button>
      <KeyList
        keys={[
          ...(first ? ([[["R"], "play or pause the reference"]] as [string[], string][]) : []),
          [["1", "2", "…"], "play or pause that clip"],
          [["Space"], "pause or go on"],
          [["Tab"], "to the next slider"],
          [["←", "→"], "lower or higher on a slider"],
          [["Enter"], "save and go on"],
        ]}
      />
    </section>
  );
}

function word(value: number): string {
  return SCALE[Math.min(4, Math.floor(value / 20))]!;
}
