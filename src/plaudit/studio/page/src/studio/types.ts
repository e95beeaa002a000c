export type JobStatus = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Progress {
  done: number;
  total: number;
  step: number | null;
  steps: number | null;
  seconds_left: number | null;
  label?: string | null;
}

export interface Job {
  id: string;
  kind: string;
  status: JobStatus;
  request: Record<string, unknown>;
  result: Record<string, unknown> | null;
  error: string | null;
  progress: Progress | null;
  cancel_requested: boolean;
  parent_id: string | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
}

export interface Clip {
  id: string;
  job_id: string | null;
  test_id: string | null;
  prompt: string;
  model: string | null;
  seed: string | null;
  settings: GenerationSettings | null;
  duration: number | null;
  sample_rate: number | null;
  reward: number | null;
  clap: number | null;
  status: "new" | "kept" | "discarded";
  created_at: string;
}

export interface GenerationSettings {
  score?: number | null;
  guidance?: number | null;
  steps?: number | null;
  seconds?: number | null;
  negative_prompt?: string | null;
  reward?: string | null;
}

export interface Session {
  role: "owner" | "editor";
  name: string;
  csrf: string;
}
