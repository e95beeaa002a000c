import { useEffect, useState } from "preact/hooks";
import { request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { percent, percentagePoints, plural, sentence, spanText } from "../../ui/format";
import { Choice, Definitions, Fault, Field, Form, Heading, Input, Loading, Notice, Select } from "../../ui/parts";
import { JobList, useJobs } from "../jobs";
import { keyOf, rewardOptions, useRewards } from "../rewards";
import { Link, navigate, useLocation } from "../router";
import type { TestInfo } from "../testTypes";
import type { RewardInfo } from "../tuningTypes";
import type { Job } from "../types";

/** From votes to a reward to a tuned model to a blind test of before against after. */
export function Tune() {
  const rewards = useRewards();
  return (
    <>
      <Heading title="Tune" intro="Train a reward on your listeners’ votes, then tune a model toward what they prefer." />
      <div class="stack loose">
        <TrainReward rewards={rewards.items} />
        <TuneModel rewards={rewards.items} />
        <Fault error={rewards.error} retry={rewards.reload} />
      </div>
    </>
  );
}

const SHIPPED = "synthetic";

function TrainReward({ rewards }: { rewards: RewardInfo[] }) {
  const preselected = useLocation().searchParams.get("test");
  const tests = useGet<Page<TestInfo>>("/tests", { limit: 100 });
  const { jobs, put } = useJobs();
  const [chosen, setChosen] = useState<string[]>(preselected ? [preselected] : []);
  const [name, setName] = useState("");
  const [start, setStart] = useState(SHIPPED);
  const train = useAction(async () =>
    put(
      await request<Job>("POST", "/rewards", {
        name: name.trim() || "reward",
        tests: chosen,
        with_shipped: start === SHIPPED,
        fine_tune: start && start !== SHIPPED ? start : undefined,
      }),
    ),
  );
  const usable = tests.data?.items.filter((test) => test.kind === "preference" && test.votes > 0) ?? [];
  const votes = usable.filter((test) => chosen.includes(test.id)).reduce((sum, test) => sum + test.votes, 0);
  const trainedHere = rewards.filter((reward) => reward.source === "studio");
  return (
    <section class="card stack" aria-labelledby="train">
      <h2 id="train">1. Train a reward on votes</h2>
      <Form class="stack" onSubmit={() => void train.run()}>
        <div class="columns">
          <fieldset>
            <legend>Votes from</legend>
            {tests.loading && !tests.data && <Loading what="tests" />}
            {tests.data && !usable.length && (
              <p class="muted">
                No test has votes yet. <Link href="/tests/new">Create a test</Link>, open it and send its link to listeners.
              </p>
            )}
            <div class="stack tight">
              {usable.map((test) => (
                <Choice
                  key={test.id}
                  label={test.name}
                  hint={`${plural(test.votes, "vote")} by ${plural(test.listeners, "listener")}`}
                  checked={chosen.includes(test.id)}
                  onChange={(checked) => setChosen(checked ? [...chosen, test.id] : chosen.filter((id) => id !== test.id))}
                />
              ))}
            </div>
          </fieldset>
          <div class="stack">
            <Field label="Name">
              <Input type="text" maxLength={120} placeholder="reward" value={name} onChange={setName} />
            </Field>
            <Field label="Start from" hint="The shipped reward has learned from other votes, which helps while yours are few.">
              <Select
                value={start}
                onChange={setStart}
                options={[[SHIPPED, "the shipped reward"], ["", "scratch"], ...rewardOptions(trainedHere)]}
              />
            </Field>
          </div>
        </div>
        <Fault error={train.error || tests.error} />
        <div class="row">
          <button type="submit" class="primary" disabled={train.busy || !chosen.length}>
            Train
          </button>
          {votes > 0 && <span class="small muted">on {plural(votes, "vote")}</span>}
        </div>
      </Form>
      <JobList jobs={jobs.filter((job) => job.kind === "train-reward").slice(0, 3)} title={(job) => String(job.request.name)}>
        {(job) => <RewardQuality reward={rewards.find((reward) => reward.job_id === job.id)} />}
      </JobList>
    </section>
  );
}

/** How well a reward predicts votes on prompts that it was not trained on, beside how well listeners agree. */
function RewardQuality({ reward }: { reward: RewardInfo | undefined }) {
  const metrics = reward?.metrics;
  if (!metrics) return null;
  const [low, high] = metrics.accuracy_interval;
  return (
    <>
      <Definitions
        items={[
          ["Accuracy on held-out votes", spanText({ mean: metrics.accuracy, low, high }, percent)],
          [
            `${metrics.baseline === SHIPPED ? "The shipped reward" : "Before this training"}, on the same votes`,
            spanText(metrics.baseline_accuracy, percent),
          ],
          ["Difference in percentage points", spanText(metrics.difference, percentagePoints)],
          ["Agreement between listeners", percent(metrics.listeners_agree?.mean)],
          ["Trained on", `${plural(metrics.votes, "vote")} on ${plural(metrics.prompts, "prompt")}`],
        ]}
      />
      <p class="small muted">
        Each vote is held out once: it is predicted by a reward that was not trained on its prompt. This reward is trained on all votes.
      </p>
      {metrics.votes_seen_before && (
        <Notice kind="warning">The reward that this one started from was trained on votes of the same test, so these accuracies are too high.</Notice>
      )}
      {metrics.note && <Notice kind="warning">{sentence(metrics.note)}</Notice>}
      {!metrics.better_than_chance && (
        <Notice kind="warning">This reward predicts the held-out votes no better than chance. Collect more votes before you tune with it.</Notice>
      )}
    </>
  );
}

const SIZES = [
  ["smoke", "smoke (a quick check)"],
  ["small", "small"],
  ["full", "full"],
] as const;

const RECIPES = [
  ["expert_iteration", "expert iteration"],
  ["crpo", "preference pairs and CRPO"],
  ["nft", "good and bad clips (NFT)"],
] as const;

const BASE = "synthetic-base";

function TuneModel({ rewards }: { rewards: RewardInfo[] }) {
  const models = useGet<{ items: { name: string }[] }>("/models");
  const { jobs, put } = useJobs();
  const trained = rewards.filter((item) => item.source === "studio");
  const [name, setName] = useState("");
  const [reward, setReward] = useState("");
  const [model, setModel] = useState(BASE);
  const [recipe, setRecipe] = useState<string>(RECIPES[0][0]);
  const [size, setSize] = useState("small");
  useEffect(() => {
    if (!reward && trained.length) setReward(keyOf(trained[0]!));
  }, [trained.length]);
  const tune = useAction(async () =>
    put(await request<Job>("POST", "/tunings", { name: name.trim() || undefined, reward, model, recipe, size })),
  );
  const names = [...new Set([BASE, ...(models.data?.items.map((item) => item.name) ?? [])])];
  return (
    <section class="card stack" aria-labelledby="tune">
      <h2 id="tune">2. Tune a model with it</h2>
      <Form class="stack" onSubmit={() => void tune.run()}>
        <div class="fields roomy">
          <Field label="Name">
            <Input type="text" maxLength={60} placeholder="tuned" value={name} onChange={setName} />
          </Field>
          <Field label="Reward">
            <Select
              required
              value={reward}
              onChange={setReward}
              placeholder={trained.length ? "choose…" : "train one first"}
              options={rewardOptions(rewards)}
            />
          </Field>
          <Field label="Model">
            <Select value={model} onChange={setModel} options={names.map((item) => [item, item])} />
          </Field>
          <Field label="Recipe">
            <Select value={recipe} onChange={setRecipe} options={RECIPES} />
          </Field>
          <Field label="Size" hint="How many clips are sampled, and how long it trains.">
            <Select value={size} onChange={setSize} options={SIZES} />
          </Field>
        </div>
        <Fault error={tune.error || models.error} />
        <div>
          <button type="submit" class="primary" disabled={tune.busy || !reward}>
            Tune
          </button>
        </div>
      </Form>
      <JobList jobs={jobs.filter((job) => job.kind === "tune").slice(0, 5)} title={(job) => tuningTitle(job, rewards)}>
        {(job) => <BeforeAfter job={job} />}
      </JobList>
    </section>
  );
}

function tuningTitle({ request }: Job, rewards: RewardInfo[]): string {
  const reward = rewards.find((item) => keyOf(item) === request.reward)?.name ?? request.reward;
  return `${request.name}: ${request.model} with ${reward}, ${request.size}`;
}

function BeforeAfter({ job }: { job: Job }) {
  const { put } = useJobs();
  const create = useAction(async () => {
    const answer = await request<{ test: TestInfo; job: string }>("POST", `/tunings/${job.id}/test`, {});
    request<Job>("GET", `/jobs/${answer.job}`).then(put, () => undefined);
    navigate(`/tests/${answer.test.id}`);
  });
  return (
    <div class="row">
      <span>3. Let listeners compare before and after, blind:</span>
      <button type="button" class="small" disabled={create.busy} onClick={() => void create.run()}>
        Create the test
      </button>
      <Fault error={create.error} />
    </div>
  );
}
