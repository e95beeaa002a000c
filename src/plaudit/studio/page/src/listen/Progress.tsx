interface Props {
  position: number;
  total: number;
  /** What the numbers count. */
  of?: string;
  note?: string;
}

export function Progress({ position, total, of = "Question", note }: Props) {
  return (
    <div class="stack tight">
      <p class="small muted numeric" aria-live="polite">
        {of} {position} of {total}
        {note && ` · ${note}`}
      </p>
      <progress value={position - 1} max={total} aria-label={`${of} ${position} of ${total}`} />
    </div>
  );
}
