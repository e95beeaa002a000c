export interface RewardInfo {
  name: string;
  id?: string | null;
  path?: string | null;
  shipped?: boolean;
  created_at?: string | null;
  metrics?: { accuracy?: number | null; agreement?: number | null; votes?: number | null; [name: string]: unknown } | null;
}
