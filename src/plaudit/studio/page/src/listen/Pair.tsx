import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, messageOf, persist } from "../api";
import { useDeck } from "../audio/useDeck";
import { Icon, Notice } from "../ui/parts";
import { Progress } from "./Progress";
import { Transport } from "./Transport";
import { KeyList, useKeys } from "./keys";
import type { Choice, ListenerSession, NextPair } from "./types";

const SIDES = ["A", "B"] as const;

const CHOICES: { choice: Choice; label: string; key: string }[] = [
  { choice: "left", label: "A is better", key: "A" },
  { choice: "right", label: "B is better", key: "B" },
  { choice: "tie", label: "No difference", key: "T" },
  { choice: "both_bad", label: "Both are bad", key: "X" },
];

const STRENGTHS = ["Slightly", "Clearly", "Very much"];

interface Props {
  task: NextPair;
  test: ListenerSession;
  onAnswered(): void;
}

export function Pair({ task, test, onAnswered }: Props) {
  const state = useDeck([task.left, task.right]);
  const { deck } = state;
  const [choice, setChoice] = useState<Choice | null>(null);
  const [strength, setStrength] = useState(0);
  const [comment, setComment] = useState("");
  const [sending, setSending] = useState(false);
  const [waiting, setWaiting] = useState(false);
  const [error, setError] = useState("");
  const shownAt = useRef(performance.now());
  const heading = useRef<HTMLHeadingElement>(null);

  useEffect(() => heading.current?.focus({ preventScroll: true }), []);

  const needed = Math.min(task.minimum_listening, deck.duration || Infinity);
  const missing = deck.listened.map((seconds) => Math.max(0, needed - round(seconds)));
  const heard = missing.every((seconds) => seconds === 0);
  const decided = choice === "left" || choice === "right";
  const complete = heard && choice !== null && (!test.strength || !decided || strength > 0);

  const choices = CHOICES.filter(
    (item) => (item.choice !== "tie" || test.ties) && (item.choice !== "both_bad" || test.both_bad),
  );
  const choose = (wanted: Choice) => {
    if (heard && !sending && choices.some((item) => item.choice === wanted)) setChoice(wanted);
  };

  const submit = async () => {
    if (!complete || sending) return;
    setSending(true);
    setError("");
    deck.pause();
    try {
      await persist(
        "/listen/votes",
        {
          assignment: task.assignment,
          choice,
          strength: test.strength && decided ? strength : null,
          comment: comment.trim() || null,
          listened_left: round(deck.listened[0]!),
          listened_right: round(deck.listened[1]!),
          response_ms: Math.round(performance.now() - shownAt.current),
        },
        setWaiting,
      );
      onAnswered();
    } catch (fault) {
      // Answered already, in another window of the same listener: go on with what is next.
      if (fault instanceof ApiError && fault.status === 409) onAnswered();
      else {
        setError(messageOf(fault));
        setSending(false);
      }
    }
  };

  useKeys({
    "1": () => state.toggle(0),
    "2": () => state.toggle(1),
    " ": () => state.toggle(),
    arrowleft: () => deck.seek(deck.position - 2),
    arrowright: () => deck.seek(deck.position + 2),
    a: () => choose("left"),
    b: () => choose("right"),
    t: () => choose("tie"),
    x: () => choose("both_bad"),
    enter: () => void submit(),
  });

  return (
    <section class="stack" aria-labelledby="question">
      <Progress position={task.position} total={task.total} practice={task.practice} />
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

      <div class="sides">
        {SIDES.map((side, index) => {
          const audible = deck.playing && deck.active === index;
          return (
            <button
              key={side}
              type="button"
              class={`side ${audible ? "audible" : ""}`}
              aria-pressed={audible}
              onClick={() => state.toggle(index)}
            >
              <span class="letter">{side}</span>
              <span class="row">
                <Icon name={audible ? "pause" : "play"} size={20} />
                {audible ? "Pause" : "Play"}
              </span>
              <span class={`listened small ${missing[index] ? "" : "enough"}`}>
                {missing[index] ? `${Math.ceil(missing[index]!)} s more` : "listened"}
              </span>
            </button>
          );
        })}
      </div>
      <Transport state={state} />
      {state.error && <Notice kind="error">{state.error}</Notice>}

      <div class="stack tight">
        <p class="small muted" aria-live="polite">
          {heard
            ? "Choose an answer. You can go on listening."
            : `Listen to at least ${Math.ceil(task.minimum_listening)} s of each side before you answer.`}
        </p>
        <div class="choices" role="group" aria-label="Your answer">
          {choices.map((item) => (
            <button
              key={item.choice}
              type="button"
              disabled={!heard || sending}
              aria-pressed={choice === item.choice}
              aria-keyshortcuts={item.key}
              onClick={() => choose(item.choice)}
            >
              {item.label}
            </button>
          ))}
        </div>
      </div>

      {test.strength && decided && (
        <fieldset>
          <legend>How much better?</legend>
          <div class="row strengths">
            {STRENGTHS.map((label, index) => (
              <label class="choice" key={label}>
                <input
                  type="radio"
                  name="strength"
                  checked={strength === index + 1}
                  onChange={() => setStrength(index + 1)}
                />
                {label}
              </label>
            ))}
          </div>
        </fieldset>
      )}
      {test.comment && (
        <div class="field">
          <label htmlFor="comment">
            Comment <span class="muted">(optional)</span>
          </label>
          <textarea
            id="comment"
            rows={2}
            maxLength={2000}
            value={comment}
            onInput={(event) => setComment(event.currentTarget.value)}
          />
        </div>
      )}
      {waiting && <Notice kind="warning">The connection is lost. Your answer is kept and sent when it is back.</Notice>}
      {error && <Notice kind="error">{error}</Notice>}
      <button type="button" class="primary next" disabled={!complete || sending} onClick={() => void submit()}>
        {sending ? "Saving…" : "Save and go on"}
      </button>
      <KeyList
        keys={[
          [["1"], "play or pause A"],
          [["2"], "play or pause B"],
          [["Space"], "pause or go on"],
          [["←", "→"], "two seconds back or forward"],
          [["A"], "A is better"],
          [["B"], "B is better"],
          ...(test.ties ? ([[["T"], "no difference"]] as [string[], string][]) : []),
          ...(test.both_bad ? ([[["X"], "both are bad"]] as [string[], string][]) : []),
          [["Enter"], "save and go on"],
        ]}
      />
    </section>
  );
}

export function round(seconds: number): number {
  return Math.round(seconds * 1000) / 1000;
}
