import { useEffect, useState } from "preact/hooks";
import { messageOf, persist, request } from "../api";
import { useDeck } from "../audio/useDeck";
import { FocusedHeading } from "../ui/FocusedHeading";
import { Icon, Loading, Notice } from "../ui/parts";
import { Progress } from "./Progress";
import { Transport } from "./Transport";
import { KeyList, useKeys } from "./keys";
import type { ScreeningState } from "./types";

interface Props {
  onOver(): void;
}

/** Trials that only headphones can answer. */
export function Headphones({ onOver }: Props) {
  const [screening, setScreening] = useState<ScreeningState | null>(null);
  const [answers, setAnswers] = useState<number[]>([]);
  const [again, setAgain] = useState(false);
  const [waiting, setWaiting] = useState(false);
  const [error, setError] = useState("");

  const load = () => {
    setAnswers([]);
    setAgain(false);
    setError("");
    request<ScreeningState>("GET", "/listen/screening").then(setScreening, (fault) => setError(messageOf(fault)));
  };
  useEffect(load, []);

  const answer = async (sound: number) => {
    const allAnswers = [...answers, sound];
    setAnswers(allAnswers);
    if (allAnswers.length < screening!.audio.length) return;
    try {
      const state = await persist<ScreeningState>("/listen/screening", { answers: allAnswers }, setWaiting);
      if (state.passed === null) {
        setScreening(state);
        setAgain(true);
      } else onOver();
    } catch (fault) {
      setError(messageOf(fault));
    }
  };

  if (error) {
    return (
      <div class="stack">
        <Notice kind="error">{error}</Notice>
        <button type="button" class="next" onClick={load}>
          Try again
        </button>
      </div>
    );
  }
  if (waiting) return <Notice kind="warning">The connection is lost. Your answers are kept, and sent when the connection is back.</Notice>;
  if (!screening) return <Loading what="the headphone check" />;
  if (again) {
    return (
      <div class="stack">
        <FocusedHeading>No headphones were detected</FocusedHeading>
        <p class="prose">
          Put on headphones, check that both sides work, turn off effects such as spatial audio or mono sound, and try
          once more.
        </p>
        <button type="button" class="primary next" onClick={load}>
          Try again
        </button>
      </div>
    );
  }
  if (!screening.audio[answers.length]) return <Loading what="the result" />;
  return <Trial key={`${screening.audio[0]} ${answers.length}`} screening={screening} index={answers.length} onAnswer={answer} />;
}

interface TrialProps {
  screening: ScreeningState;
  index: number;
  onAnswer(sound: number): void;
}

const ORDINALS = ["First", "Second", "Third", "Fourth"];

function Trial({ screening, index, onAnswer }: TrialProps) {
  const state = useDeck([screening.audio[index]!]);
  const { deck } = state;
  const [choice, setChoice] = useState<number | null>(null);
  const names = ORDINALS.slice(0, screening.sounds);

  const playedToTheEnd = deck.listened[0]! > 0 && deck.listened[0]! >= deck.duration - 0.1;
  const choose = (sound: number) => {
    if (playedToTheEnd) setChoice(sound);
  };
  const next = () => {
    if (choice !== null) onAnswer(choice);
  };
  useKeys({
    ...Object.fromEntries(names.map((_, sound) => [String(sound + 1), () => choose(sound)])),
    p: () => state.toggle(),
    " ": () => state.toggle(),
    enter: next,
  });

  return (
    <section class="stack">
      <Progress of="Headphone check" position={index + 1} total={screening.audio.length} />
      <FocusedHeading>{screening.question}</FocusedHeading>
      <p class="muted">Put on headphones and set a comfortable volume. You will hear {names.length} sounds in a row.</p>
      <button type="button" class="play-all" aria-pressed={deck.playing} onClick={() => state.toggle()}>
        <Icon name={deck.playing ? "pause" : "play"} size={20} />
        {deck.playing ? "Pause" : playedToTheEnd ? "Play again" : `Play the ${names.length} sounds`}
      </button>
      <Transport state={state} />
      {state.error && <Notice kind="error">{state.error}</Notice>}
      <div class="sounds" role="group" aria-label={screening.question}>
        {names.map((name, sound) => (
          <button
            key={name}
            type="button"
            disabled={!playedToTheEnd}
            aria-pressed={choice === sound}
            aria-keyshortcuts={String(sound + 1)}
            onClick={() => choose(sound)}
          >
            {name}
          </button>
        ))}
      </div>
      <button type="button" class="primary next" disabled={choice === null} onClick={next}>
        Continue
      </button>
      <KeyList
        keys={[
          [["Space"], "play or pause"],
          [names.map((_, sound) => String(sound + 1)), "choose that sound"],
          [["Enter"], "continue"],
        ]}
      />
    </section>
  );
}
