import type { DeckState } from "../audio/useDeck";
import { clock } from "../ui/format";

/** Position of the deck, to see and to move. */
export function Transport({ state }: { state: DeckState }) {
  const { deck } = state;
  const length = deck.duration;
  return (
    <div class="transport">
      <label class="visually-hidden" htmlFor="position">
        Position
      </label>
      <input
        id="position"
        type="range"
        min={0}
        max={length || 1}
        step={0.1}
        value={deck.position}
        disabled={!length}
        aria-valuetext={`${clock(deck.position)} of ${clock(length)}`}
        onInput={(event) => deck.seek(Number(event.currentTarget.value))}
      />
      <span class="numeric small muted time">
        {clock(deck.position)} / {length ? clock(length) : "–:––"}
      </span>
    </div>
  );
}
