import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { ApiError, messageOf, persist } from "../api";
import type { Deck } from "../audio/deck";
import type { DeckState } from "../audio/useDeck";
import { FocusedHeading } from "../ui/FocusedHeading";
import { Icon, Notice } from "../ui/parts";
import { Progress } from "./Progress";
import { Transport } from "./Transport";
import { KeyList, type Key } from "./keys";

export interface Answer {
  send(path: string, body: unknown): Promise<void>;
  sending: boolean;
  waiting: boolean;
  error: string;
}

/** Sends an answer. While the connection is broken it is kept, and sent again. */
export function useAnswer(deck: Deck, onAnswered: () => void): Answer {
  const [sending, setSending] = useState(false);
  const [waiting, setWaiting] = useState(false);
  const [error, setError] = useState("");
  const send = async (path: string, body: unknown) => {
    if (sending) return;
    setSending(true);
    setError("");
    deck.pause();
    try {
      await persist(path, body, setWaiting);
      onAnswered();
    } catch (fault) {
      // Answered already, in another window of the same listener: continue with what is next.
      if (fault instanceof ApiError && fault.status === 409) onAnswered();
      else {
        setError(messageOf(fault));
        setSending(false);
      }
    }
  };
  return { send, sending, waiting, error };
}

/** Seconds that were listened to, as they are sent. */
export function listenedTo(deck: Deck, track: number): number {
  return Math.round(deck.listened[track]! * 1000) / 1000;
}

/** Seconds of a track that are still to be listened to, where `minimum` of them, or all of a shorter clip, are needed. */
export function missing(deck: Deck, track: number, minimum: number): number {
  return Math.max(0, Math.min(minimum, deck.duration || Infinity) - listenedTo(deck, track));
}

export function Listened({ missing }: { missing: number }) {
  return (
    <span class={`listened small ${missing ? "" : "enough"}`}>{missing ? `${Math.ceil(missing)} s more` : "listened"}</span>
  );
}

export function isAudible(deck: Deck, track: number): boolean {
  return deck.playing && deck.active === track;
}

export function PlayIcon({ deck, track, size }: { deck: Deck; track: number; size?: number }) {
  return <Icon name={isAudible(deck, track) ? "pause" : "play"} size={size} />;
}

interface Props {
  position: number;
  total: number;
  practice?: boolean;
  question: string;
  prompt: string | null;
  state: DeckState;
  /** What can be played, above the position. */
  clips: ComponentChildren;
  /** The rest of the answer, below it. */
  children: ComponentChildren;
  answer: Answer;
  complete: boolean;
  keys: Key[];
  onSubmit(): void;
}

/** A question of a listening test: progress, the question, its clips, the answer and its keys. */
export function Task(props: Props) {
  const { answer, state } = props;
  return (
    <section class="stack" aria-labelledby="question">
      <Progress position={props.position} total={props.total} note={props.practice ? "practice, not counted" : undefined} />
      <div class="stack tight">
        <FocusedHeading id="question">{props.question}</FocusedHeading>
        {props.prompt && (
          <p class="prompt">
            <span class="muted">Description: </span>
            {props.prompt}
          </p>
        )}
      </div>
      {props.clips}
      <Transport state={state} />
      {state.error && <Notice kind="error">{state.error}</Notice>}
      {props.children}
      {answer.waiting && (
        <Notice kind="warning">The connection is lost. Your answer is kept, and sent when the connection is back.</Notice>
      )}
      {answer.error && <Notice kind="error">{answer.error}</Notice>}
      <button type="button" class="primary next" disabled={!props.complete || answer.sending} onClick={props.onSubmit}>
        {answer.sending ? "Saving…" : "Save and continue"}
      </button>
      <KeyList keys={[...props.keys, [["Enter"], "save and continue"]]} />
    </section>
  );
}
