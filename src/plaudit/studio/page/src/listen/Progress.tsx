interface Props {
  position: number;
  total: number;
  practice?: boolean;
}

export function Progress({ position, total, practice }: Props) {
  return (
    <div class="stack tight">
      <p class="small muted numeric" aria-live="polite">
        {position} of {total}
        {practice && " · practice, does not count"}
      </p>
      <progress value={position - 1} max={total} aria-label={`Question ${position} of ${total}`} />
    </div>
  );
}
