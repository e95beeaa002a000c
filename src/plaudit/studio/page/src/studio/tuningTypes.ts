import type { Span } from "../ui/format";

export interface RewardMetrics {
  votes: { train: number; validation: number; test: number };
  accuracy: number;
  accuracy_interval: [number, number];
  better_than_chance: boolean;
  listeners_agree: Span | null;
  repeats_agree: Span | null;
  start_accuracy: number | null;
}

export interface RewardInfo {
  name: string;
  source: "shipped" | "installed" | "studio";
  id: string | null;
  job_id: string | null;
  metrics: RewardMetrics | null;
  created_at: string | null;
}
