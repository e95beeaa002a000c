import type { Span } from "../ui/format";

export interface RewardMetrics {
  votes: number;
  /** Votes that prefer one side; each is predicted once, by a reward that was not trained on its prompt. */
  decided: number;
  prompts: number;
  folds: number;
  accuracy: number;
  accuracy_interval: [number, number];
  better_than_chance: boolean;
  listeners_agree: Span | null;
  repeats_agree: Span | null;
  /** Of the reward that training started from, or the shipped one, on the same votes. */
  baseline: string;
  baseline_accuracy: Span | null;
  difference: Span | null;
  votes_seen_before: boolean;
  note: string;
}

export interface RewardInfo {
  name: string;
  source: "shipped" | "installed" | "studio";
  id: string | null;
  job_id: string | null;
  metrics: RewardMetrics | null;
  created_at: string | null;
}
