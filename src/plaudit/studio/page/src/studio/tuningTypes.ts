export interface RewardInfo {
  name: string;
  source: "shipped" | "installed" | "studio";
  id: string | null;
  job_id: string | null;
  metrics: { accuracy?: number | null; agreement?: number | null; [name: string]: unknown } | null;
  created_at: string | null;
}
