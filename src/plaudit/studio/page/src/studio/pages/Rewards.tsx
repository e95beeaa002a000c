import { useEffect } from "preact/hooks";
import { useGet } from "../../ui/data";
import { percent, when } from "../../ui/format";
import { Empty, Fault, Heading, Icon, Loading } from "../../ui/parts";
import { JobRow, useJobs } from "../jobs";
import { Link } from "../router";
import type { RewardInfo } from "../tuningTypes";

const FROM = { shipped: "shipped", installed: "installed", studio: "votes in this studio" };

export function Rewards() {
  const rewards = useGet<{ items: RewardInfo[] }>("/rewards");
  const { jobs, listen } = useJobs();
  useEffect(() => listen((job) => job.kind === "train-reward" && job.status === "done" && rewards.reload()), [listen, rewards.reload]);
  const trainings = jobs.filter((job) => job.kind === "train-reward" && job.status !== "done").slice(0, 5);
  return (
    <>
      <Heading title="Rewards" intro="Models that predict which of two clips people prefer. Clips are scored and models are tuned with them.">
        <Link href="/tune" class="button primary">
          <Icon name="plus" /> Train on votes
        </Link>
      </Heading>
      <div class="stack loose">
        {trainings.length > 0 && (
          <div class="jobs">
            {trainings.map((job) => (
              <JobRow key={job.id} job={job} title="Training of a reward" />
            ))}
          </div>
        )}
        <Fault error={rewards.error} retry={rewards.reload} />
        {rewards.loading && !rewards.data && <Loading what="rewards" />}
        {rewards.data && !rewards.data.items.length && <Empty title="No rewards" />}
        {rewards.data && rewards.data.items.length > 0 && (
          <div class="table-box" tabIndex={0} role="region" aria-label="Rewards">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>From</th>
                  <th class="right">Accuracy on held-out votes</th>
                  <th class="right">Listeners agree</th>
                  <th>Trained</th>
                </tr>
              </thead>
              <tbody>
                {rewards.data.items.map((reward) => (
                  <tr key={reward.id ?? reward.name}>
                    <td class="title">{reward.name}</td>
                    <td class="small">{FROM[reward.source]}</td>
                    <td class="right numeric">{percent(reward.metrics?.accuracy)}</td>
                    <td class="right numeric">{percent(reward.metrics?.listeners_agree?.mean)}</td>
                    <td class="small numeric">{when(reward.created_at)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </div>
    </>
  );
}
