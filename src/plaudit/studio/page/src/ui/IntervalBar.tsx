interface Props {
  low: number | null;
  mean: number;
  high: number | null;
  /** Ends of the scale. */
  from: number;
  to: number;
  /** Where the line is that an interval has to clear. */
  zero?: number;
  label: string;
}

const WIDTH = 300;
const HEIGHT = 26;

/** An estimate and its interval on a scale. */
export function IntervalBar({ low, mean, high, from, to, zero, label }: Props) {
  const x = (value: number) => 6 + (WIDTH - 12) * Math.max(0, Math.min(1, (value - from) / (to - from || 1)));
  return (
    <svg class="interval" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <line class="base" x1={6} x2={WIDTH - 6} y1={HEIGHT / 2} y2={HEIGHT / 2} />
      {zero !== undefined && <line class="axis" x1={x(zero)} x2={x(zero)} y1={2} y2={HEIGHT - 2} />}
      <line class="range" x1={x(low ?? from)} x2={x(high ?? to)} y1={HEIGHT / 2} y2={HEIGHT / 2} />
      <line class="point" x1={x(mean)} x2={x(mean)} y1={5} y2={HEIGHT - 5} />
    </svg>
  );
}
