export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A number with so many digits after the point; a dash where there is none. */
export function fixed(value: number | null | undefined, digits = 2): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits).replace("-", "−");
}

export function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : `${fixed(value * 100, 0)}\u00a0%`;
}

/** A difference of shares in percentage points, with its sign. */
export function percentagePoints(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const points = fixed(value * 100, 0).replace("−0", "0");
  return value >= 0.005 ? `+${points}` : points;
}

export function timeLeft(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 1) return "almost done";
  if (seconds < 90) return `${Math.round(seconds)} s left`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min left`;
  return `${fixed(seconds / 3600, 1)} h left`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${fixed(seconds / 3600, 1)} h`;
}

const WHEN = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

export function when(text: string | null | undefined): string {
  return text ? WHEN.format(new Date(text)) : "";
}

const COUNT = new Intl.NumberFormat("en-GB");

export function plural(count: number, noun: string, several = `${noun}s`): string {
  return `${COUNT.format(count)} ${count === 1 ? noun : several}`;
}

/** An estimate, which has two digits that mean something. */
export function roughly(count: number): number {
  return Number(count.toPrecision(2));
}

/** A message as a sentence: the server's begin in lower case and have no full stop. */
export function sentence(text: string): string {
  const full = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(full) ? full : `${full}.`;
}

export interface Span {
  mean: number;
  low: number | null;
  high: number | null;
}

/** An estimate and its interval, such as 57 % [53 %, 62 %]. */
export function spanText(span: Span | null | undefined, text: (value: number | null) => string): string {
  if (!span) return "–";
  if (span.low === null || span.high === null) return text(span.mean);
  return `${text(span.mean)} [${text(span.low)},\u00a0${text(span.high)}]`;
}
