import { useEffect } from "preact/hooks";
import { useGet } from "../ui/data";
import { useJobs } from "./jobs";
import type { RewardInfo } from "./tuningTypes";

/** Every reward; read again when one was trained. */
export function useRewards() {
  const rewards = useGet<{ items: RewardInfo[] }>("/rewards");
  const { listen } = useJobs();
  useEffect(
    () => listen((job) => job.kind === "train-reward" && job.status === "done" && rewards.reload()),
    [listen, rewards.reload],
  );
  return { ...rewards, items: rewards.data?.items ?? [] };
}

/** What the API calls a reward. */
export const keyOf = (reward: RewardInfo) => reward.id ?? reward.name;

export function rewardOptions(rewards: RewardInfo[]): [string, string][] {
  return rewards.map((reward) => [keyOf(reward), reward.name]);
}
