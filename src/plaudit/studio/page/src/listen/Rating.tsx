import { useState } from "preact/hooks";
import { useDeck } from "../audio/useDeck";
import { isAudible, Listened, listenedTo, missing, PlayIcon, Task, useAnswer } from "./Task";
import { useKeys, type Key } from "./keys";
import type { ListenerSession, NextPage } from "./types";

const SCALE = ["Bad", "Poor", "Fair", "Good", "Excellent"];

interface Props {
  task: NextPage;
  test: ListenerSession;
  onAnswered(): void;
}

export function Rating({ task, test, onAnswered }: Props) {
  const first = task.reference ? 1 : 0;
  const state = useDeck([...(task.reference ? [task.reference] : []), ...task.clips.map((clip) => clip.audio)]);
  const { deck } = state;
  const answer = useAnswer(deck, onAnswered);
  const [values, setValues] = useState<Record<string, number>>({});

  const clipsToListenTo = task.clips.filter((_, index) => missing(deck, index + first, task.minimum_listening)).length;
  const clipsToRate = task.clips.filter((clip) => values[clip.id] === undefined).length;
  const complete = clipsToListenTo === 0 && clipsToRate === 0;

  const submit = () => {
    if (!complete) return;
    void answer.send("/listen/ratings", {
      assignment: task.assignment,
      values,
      listened: Object.fromEntries(task.clips.map((clip, index) => [clip.id, listenedTo(deck, index + first)])),
    });
  };

  const play = (track: number) => () => state.toggle(track);
  useKeys({
    ...(first ? { r: play(0) } : {}),
    ...Object.fromEntries(task.clips.map((_, index) => [String(index + 1), play(index + first)])),
    " ": () => state.toggle(),
    enter: submit,
  });

  const clips = (
    <>
      {first === 1 && (
        <button type="button" class="reference" aria-pressed={isAudible(deck, 0)} onClick={play(0)}>
          <PlayIcon deck={deck} track={0} />
          Reference
        </button>
      )}
      <ol class="stimuli">
        {task.clips.map((clip, index) => {
          const track = index + first;
          const audible = isAudible(deck, track);
          const value = values[clip.id];
          const rate = (event: { currentTarget: HTMLInputElement }) =>
            setValues({ ...values, [clip.id]: Number(event.currentTarget.value) });
          return (
            <li key={clip.id} class={audible ? "audible" : ""}>
              <button
                type="button"
                aria-label={`${audible ? "Pause" : "Play"} clip ${index + 1}`}
                aria-pressed={audible}
                onClick={play(track)}
              >
                <PlayIcon deck={deck} track={track} />
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
                  onInput={rate}
                  onClick={rate}
                />
                <div class="scale small muted" aria-hidden="true">
                  {SCALE.map((label) => (
                    <span key={label}>{label}</span>
                  ))}
                </div>
              </div>
              <output class="numeric">{value ?? "–"}</output>
              <Listened missing={missing(deck, track, task.minimum_listening)} />
            </li>
          );
        })}
      </ol>
    </>
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
        ...(first ? ([[["R"], "play or pause the reference"]] as Key[]) : []),
        [["1", "2", "…"], "play or pause that clip"],
        [["Space"], "play or pause"],
        [["Tab"], "to the next slider"],
        [["←", "→"], "lower or higher on a slider"],
      ]}
    >
      <p class="small muted" aria-live="polite">
        {clipsToListenTo
          ? `Listen to at least ${Math.ceil(task.minimum_listening)} s of every clip (${clipsToListenTo} to go).`
          : clipsToRate
            ? `Rate every clip (${clipsToRate} to go).`
            : "Every clip is rated. You can keep listening and change ratings."}
      </p>
    </Task>
  );
}

function word(value: number): string {
  return SCALE[Math.min(4, Math.floor(value / 20))]!;
}
