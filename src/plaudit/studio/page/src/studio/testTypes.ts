import type { Span } from "../ui/format";

export type TestStatus = "preparing" | "draft" | "open" | "closed";
export type TestKind = "preference" | "rating";
export type Pairing = "random" | "active";
export type Screening = "none" | "huggins" | "antiphase";

export interface Source {
  run?: string;
  stage?: string;
  model?: string;
  seed?: number;
  folder?: string;
}

export interface ExclusionRules {
  min_obvious?: number | null;
  min_repeats?: number | null;
  min_seconds?: number | null;
  min_listened?: number | null;
  max_one_side?: number | null;
  min_answers?: number | null;
}

interface TestSettings {
  takes: number;
  pairs_per_listener: number;
  pairing: Pairing;
  repeats: number;
  obvious: number;
  practice: number;
  minimum_listening: number;
  screening: Screening;
  ties: boolean;
  both_bad: boolean;
  strength: boolean;
  comment: boolean;
  show_prompt: boolean;
  loudness: number;
  reward: string | null;
  reference: string | null;
  exclusion_rules: ExclusionRules;
  margin: number;
  power: number;
}

export interface TestInfo {
  id: string;
  name: string;
  kind: TestKind;
  status: TestStatus;
  question: string;
  instructions: string;
  consent: string;
  settings: TestSettings;
  systems: { id: string; name: string; source: Source }[];
  prompts: number;
  pairs: number;
  listeners: number;
  completed: number;
  votes: number;
  prepared: boolean;
  job: string | null;
  problem: string | null;
  notes: string[];
  registered: { at: string; digest: string } | null;
  created_at: string;
}

export interface Invitation {
  id: string;
  label: string;
  max_listeners: number | null;
  listeners: number;
  revoked: boolean;
  url: string;
  created_at: string;
}

/** Exclusion rules in words, for the form and for where they are shown. */
export const RULES: { key: keyof ExclusionRules; label: string; unit?: string; step: number; percent?: boolean }[] = [
  { key: "min_obvious", label: "Attention checks passed, at least", unit: "%", step: 1, percent: true },
  { key: "min_repeats", label: "Repeats answered the same, at least", unit: "%", step: 1, percent: true },
  { key: "min_seconds", label: "Median response time, at least", unit: "s", step: 0.5 },
  { key: "min_listened", label: "Median listening time, both clips together, at least", unit: "s", step: 0.5 },
  { key: "max_one_side", label: "Answers for the same side, at most", unit: "%", step: 1, percent: true },
  { key: "min_answers", label: "Number of answers, at least", step: 1 },
];

/** The rule of rating tests (ITU-R BS.1534-3), which cannot be changed. */
export function ratingRule(reference: string | null): string {
  return reference
    ? "Listeners who rate the hidden reference below 90 on more than 15\u00a0% of their pages are excluded."
    : "Listeners who rate the hidden anchor above every other clip on more than 15\u00a0% of their pages are excluded.";
}

interface WinRate {
  first: string;
  second: string;
  wins: number;
  losses: number;
  ties: number;
  both_bad: number;
  rate: Span | null;
}

export interface ComparisonState {
  first: string;
  second: string;
  votes: number;
  listeners: number;
  rate: Span;
  verdict: "first" | "second" | "equivalent" | "open";
  needed: number | null;
  planned: number;
}

interface ListenerAttention {
  listener: string;
  answers: number;
  ties: number;
  both_bad: number;
  seconds: number | null;
  listened: number | null;
  obvious: [number, number];
  repeats: [number, number];
  left: number | null;
  p_side: number | null;
}

export interface PreferenceResults {
  answers: number;
  counted: number;
  board: {
    strengths: { system: string; strength: Span; arena_score: number; rank: number; ranks: [number, number]; votes: number }[];
    votes: number;
    ties: number;
    both_bad: number;
    resampled: "listeners" | "votes";
    groups: string[][];
  };
  win_rates: WinRate[];
  agreement: { alpha: number | null; agreeing: Span | null; pairs: number };
  repeats: Span | null;
  intransitivity: { triads: number; circular: number; rate: number | null; system_triads: number; cycles: string[][] };
  listeners: ListenerAttention[];
  excluded: Record<string, string[]>;
  decisions: ComparisonState[];
  reward: { accuracy: Span | null; votes: number } | null;
  without_exclusion: WinRate[];
}

export interface RatingResults {
  pages: number;
  counted: number;
  systems: { system: string; mean: Span; ratings: number; listeners: number }[];
  differences: { first: string; second: string; difference: Span; listeners: number }[];
  alpha: number | null;
  listeners: Record<string, number>;
  excluded: Record<string, string[]>;
}

export interface TestResults {
  test: string;
  kind: TestKind;
  /** How many votes, or rating pages, they were computed from. */
  at_votes: number;
  /** How many there are by now. */
  votes: number;
  computed_at: string;
  /** Seconds after which newer results can be had; null where these have every vote. */
  refresh_after: number | null;
  listeners: number;
  completed: number;
  registered: { at: string; digest: string } | null;
  rules: ExclusionRules;
  preference: PreferenceResults | null;
  rating: RatingResults | null;
  screened_out: Record<string, string[]>;
  /** Known where simulated listeners of the synthetic world took part. */
  true_utilities: { system: string; utility: Span }[] | null;
  looks: { at_votes: number; created_at: string; verdicts: Record<string, string> }[];
  number_of_looks: number;
}
