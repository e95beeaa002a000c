import { useRef, useState } from "preact/hooks";
import { useDeck } from "../audio/useDeck";
import { isAudible, Listened, listenedTo, missing, PlayIcon, Task, useAnswer } from "./Task";
import { useKeys, type Key } from "./keys";
import type { Choice, ListenerSession, NextPair } from "./types";

const SIDES = ["A", "B"] as const;

const CHOICES: { choice: Choice; label: string; key: string; action: string }[] = [
  { choice: "left", label: "A is better", key: "A", action: "A is better" },
  { choice: "right", label: "B is better", key: "B", action: "B is better" },
  { choice: "tie", label: "No difference", key: "T", action: "no difference" },
  { choice: "both_bad", label: "Both are bad", key: "X", action: "both are bad" },
];

const STRENGTHS = ["Slightly", "Clearly", "Very much"];

const SEEK_SECONDS = 2;

interface Props {
  task: NextPair;
  test: ListenerSession;
  onAnswered(): void;
}

export function Pair({ task, test, onAnswered }: Props) {
  const state = useDeck([task.left, task.right]);
  const { deck } = state;
  const answer = useAnswer(deck, onAnswered);
  const [choice, setChoice] = useState<Choice | null>(null);
  const [strength, setStrength] = useState(0);
  const [comment, setComment] = useState("");
  const shownAt = useRef(performance.now());

  const listenedEnough = SIDES.every((_, side) => !missing(deck, side, task.minimum_listening));
  const decided = choice === "left" || choice === "right";
  const complete = listenedEnough && choice !== null && (!test.strength || !decided || strength > 0);

  const choices = CHOICES.filter(
    (item) => (item.choice !== "tie" || test.ties) && (item.choice !== "both_bad" || test.both_bad),
  );
  const choose = (option: Choice) => {
    if (listenedEnough && !answer.sending) setChoice(option);
  };
  const submit = () => {
    if (!complete) return;
    void answer.send("/listen/votes", {
      assignment: task.assignment,
      choice,
      strength: test.strength && decided ? strength : null,
      comment: comment.trim() || null,
      listened_left: listenedTo(deck, 0),
      listened_right: listenedTo(deck, 1),
      response_ms: Math.round(performance.now() - shownAt.current),
    });
  };

  useKeys({
    "1": () => state.toggle(0),
    "2": () => state.toggle(1),
    " ": () => state.toggle(),
    arrowleft: () => deck.seek(deck.position - SEEK_SECONDS),
    arrowright: () => deck.seek(deck.position + SEEK_SECONDS),
    ...Object.fromEntries(choices.map((item) => [item.key.toLowerCase(), () => choose(item.choice)])),
    enter: submit,
  });

  const clips = (
    <div class="sides">
      {SIDES.map((side, index) => {
        const audible = isAudible(deck, index);
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
              <PlayIcon deck={deck} track={index} size={20} />
              {audible ? "Pause" : "Play"}
            </span>
            <Listened missing={missing(deck, index, task.minimum_listening)} />
          </button>
        );
      })}
    </div>
  );
  return (
    <Task
      {...task}
      question={test.question}
      state={state}
      clips={clips}
      answer={answer}
      complete={complete}
      onSubmit={submit}
      keys={[
        [["1"], "play or pause A"],
        [["2"], "play or pause B"],
        [["Space"], "play or pause"],
        [["←", "→"], `${SEEK_SECONDS} seconds back or forward`],
        ...choices.map(({ key, action }): Key => [[key], action]),
      ]}
    >
      <div class="stack tight">
        <p class="small muted" aria-live="polite">
          {listenedEnough
            ? "Choose an answer. You can keep listening."
            : `Listen to at least ${Math.ceil(task.minimum_listening)} s of each clip before you answer.`}
        </p>
        <div class="choices" role="group" aria-label="Your answer">
          {choices.map((item) => (
            <button
              key={item.choice}
              type="button"
              disabled={!listenedEnough || answer.sending}
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
    </Task>
  );
}
