import { useEffect, useMemo, useReducer, useState } from "preact/hooks";
import { messageOf } from "../api";
import { Deck } from "./deck";

export interface DeckState {
  deck: Deck;
  ready: boolean;
  error: string;
  play(index?: number): void;
  toggle(index?: number): void;
}

/** A deck of these tracks; the component renders again as it plays. */
export function useDeck(urls: string[]): DeckState {
  const [, render] = useReducer((count: number) => count + 1, 0);
  const [ready, setReady] = useState(false);
  const [error, setError] = useState("");
  const deck = useMemo(() => new Deck(urls, () => render(undefined)), [urls.join("\n")]);
  useEffect(() => {
    let current = true;
    setReady(false);
    setError("");
    deck.load().then(
      () => current && setReady(true),
      (fault) => current && setError(messageOf(fault)),
    );
    return () => {
      current = false;
      deck.close();
    };
  }, [deck]);
  const play = (index = deck.active) => {
    setError("");
    deck.play(index).then(
      () => setReady(true),
      (fault) => setError(messageOf(fault)),
    );
  };
  const toggle = (index = deck.active) => {
    if (deck.playing && index === deck.active) deck.pause();
    else play(index);
  };
  return { deck, ready, error, play, toggle };
}
