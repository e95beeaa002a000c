import { percent, when } from "../../ui/format";
import { Empty, Fault, Heading, Icon, Loading, Table } from "../../ui/parts";
import { JobList, useJobs } from "../jobs";
import { keyOf, useRewards } from "../rewards";
import { Link } from "../router";

const SOURCES = { shipped: "shipped with Plaudit", installed: "installed", studio: "votes in this studio" };

export function Rewards() {
  const rewards = useRewards();
  const { jobs } = useJobs();
  return (
    <>
      <Heading title="Rewards" intro="A reward predicts which of two clips people prefer. Rewards score clips, and models are tuned with them.">
        <Link href="/tune" class="button primary">
          <Icon name="plus" /> Train on votes
        </Link>
      </Heading>
      <div class="stack loose">
        <JobList
          jobs={jobs.filter((job) => job.kind === "train-reward" && job.status !== "done").slice(0, 5)}
          title={(job) => `Training ${job.request.name}`}
        />
        <Fault error={rewards.error} retry={rewards.reload} />
        {rewards.loading && !rewards.data && <Loading what="rewards" />}
        {rewards.data && !rewards.items.length && <Empty title="No rewards" />}
        {rewards.items.length > 0 && (
          <Table
            label="Rewards"
            head={
              <>
                <th>Name</th>
                <th>Source</th>
                <th class="right">Accuracy on held-out votes</th>
                <th class="right">Agreement between listeners</th>
                <th>Trained</th>
              </>
            }
          >
            {rewards.items.map((reward) => (
              <tr key={keyOf(reward)}>
                <td class="title">{reward.name}</td>
                <td class="small">{SOURCES[reward.source]}</td>
                <td class="right numeric">{percent(reward.metrics?.accuracy)}</td>
                <td class="right numeric">{percent(reward.metrics?.listeners_agree?.mean)}</td>
                <td class="small numeric nowrap-text">{when(reward.created_at)}</td>
              </tr>
            ))}
          </Table>
        )}
      </div>
    </>
  );
}
