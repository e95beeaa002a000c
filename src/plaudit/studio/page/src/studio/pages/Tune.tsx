import { useEffect, useState } from "preact/hooks";
import { request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { percent, plural } from "../../ui/format";
import { Choice, Definitions, Fault, Field, Heading, Loading, Notice } from "../../ui/parts";
import { JobRow, useJobs } from "../jobs";
import { Link, navigate, useLocation } from "../router";
import type { TestInfo } from "../testTypes";
import type { RewardInfo } from "../tuningTypes";
import type { Job } from "../types";

/** From votes to a reward to a tuned model to a blind test of before against after. */
export function Tune() {
  const rewards = useGet<{ items: RewardInfo[] }>("/rewards");
  const { listen } = useJobs();
  useEffect(() => listen((job) => job.kind === "train-reward" && job.status === "done" && rewards.reload()), [listen, rewards.reload]);
  return (
    <>
      <Heading title="Tune" intro="From the votes of your listeners to a model that makes what they prefer." />
      <div class="stack loose">
        <TrainReward rewards={rewards.data?.items ?? []} />
        <TuneModel rewards={rewards.data?.items ?? []} />
        <Fault error={rewards.error} retry={rewards.reload} />
      </div>
    </>
  );
}

function TrainReward({ rewards }: { rewards: RewardInfo[] }) {
  const wanted = useLocation().searchParams.get("test");
  const tests = useGet<Page<TestInfo>>("/tests", { limit: 100 });
  const { jobs, put } = useJobs();
  const [chosen, setChosen] = useState<Set<string>>(() => new Set(wanted ? [wanted] : []));
  const [name, setName] = useState("");
  const [start, setStart] = useState("synthetic");
  const train = useAction(async () =>
    put(
      await request<Job>("POST", "/rewards", {
        name: name.trim() || "reward",
        tests: [...chosen],
        with_shipped: start === "synthetic",
        fine_tune: start && start !== "synthetic" ? start : undefined,
      }),
    ),
  );
  const usable = tests.data?.items.filter((test) => test.kind === "preference" && test.votes > 0) ?? [];
  const votes = usable.filter((test) => chosen.has(test.id)).reduce((sum, test) => sum + test.votes, 0);
  const trainings = jobs.filter((job) => job.kind === "train-reward").slice(0, 3);
  return (
    <section class="card stack" aria-labelledby="train">
      <h2 id="train">1. Train a reward on votes</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void train.run();
        }}
      >
        <div class="columns">
          <fieldset>
            <legend>Votes of</legend>
            {tests.loading && !tests.data && <Loading what="tests" />}
            {tests.data && !usable.length && (
              <p class="muted">
                No test has votes yet. <Link href="/tests/new">Create a test</Link>
              </p>
            )}
            <div class="stack tight">
              {usable.map((test) => (
                <Choice
                  key={test.id}
                  label={test.name}
                  hint={`${plural(test.votes, "vote")} by ${plural(test.listeners, "listener")}`}
                  checked={chosen.has(test.id)}
                  onChange={(checked) => {
                    const next = new Set(chosen);
                    if (checked) next.add(test.id);
                    else next.delete(test.id);
                    setChosen(next);
                  }}
                />
              ))}
            </div>
          </fieldset>
          <div class="stack">
            <Field label="Name">
              <input type="text" maxLength={120} placeholder="reward" value={name} onInput={(event) => setName(event.currentTarget.value)} />
            </Field>
            <Field label="Start from" hint="The shipped reward knows the shipped votes, which helps while your own are few.">
              <select value={start} onChange={(event) => setStart(event.currentTarget.value)}>
                <option value="synthetic">the shipped reward</option>
                <option value="">nothing</option>
                {rewards
                  .filter((item) => item.source === "studio" && item.id)
                  .map((item) => (
                    <option key={item.id} value={item.id!}>
                      {item.name}
                    </option>
                  ))}
              </select>
            </Field>
          </div>
        </div>
        <Fault error={train.error || tests.error} />
        <div class="row">
          <button type="submit" class="primary" disabled={train.busy || !chosen.size}>
            Train
          </button>
          {votes > 0 && <span class="small muted">on {plural(votes, "vote")}</span>}
        </div>
      </form>
      {trainings.map((job) => (
        <JobRow key={job.id} job={job} title={String(job.request.name ?? "reward")}>
          {job.status === "done" && <RewardQuality reward={rewards.find((reward) => reward.job_id === job.id)} />}
        </JobRow>
      ))}
    </section>
  );
}

/** How well a reward predicts votes that it was not trained on, beside how well listeners agree. */
function RewardQuality({ reward }: { reward: RewardInfo | undefined }) {
  if (!reward) return null;
  const { metrics } = reward;
  if (!metrics) return null;
  const [low, high] = metrics.accuracy_interval;
  return (
    <>
      <Definitions
        items={[
          ["Accuracy on held-out votes", `${percent(metrics.accuracy)} [${percent(low)}, ${percent(high)}]`],
          ["Agreement of two listeners", percent(metrics.listeners_agree?.mean)],
          ["Before training on your votes", percent(metrics.start_accuracy)],
          ["Votes", `${metrics.votes.train} to train, ${metrics.votes.test} held out`],
        ]}
      />
      {!metrics.better_than_chance && <Notice kind="warning">It predicts these votes no better than chance: collect more.</Notice>}
    </>
  );
}

const SIZES = ["smoke", "small", "full"];
const RECIPES = { expert_iteration: "expert iteration", crpo: "pairs and CRPO" };

function TuneModel({ rewards }: { rewards: RewardInfo[] }) {
  const models = useGet<{ items: { name: string }[] }>("/models");
  const { jobs, put } = useJobs();
  const trained = rewards.filter((item) => item.source === "studio");
  const [reward, setReward] = useState("");
  const [model, setModel] = useState("synthetic-base");
  const [recipe, setRecipe] = useState("expert_iteration");
  const [size, setSize] = useState("small");
  useEffect(() => {
    if (!reward && trained.length) setReward(trained[0]!.id ?? trained[0]!.name);
  }, [trained.length]);
  const tune = useAction(async () =>
    put(await request<Job>("POST", "/tunings", { reward, model, recipe, size })),
  );
  const tunings = jobs.filter((job) => job.kind === "tune").slice(0, 5);
  return (
    <section class="card stack" aria-labelledby="tune">
      <h2 id="tune">2. Tune a model with it</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void tune.run();
        }}
      >
        <div class="fields">
          <Field label="Reward">
            <select required value={reward} onChange={(event) => setReward(event.currentTarget.value)}>
              <option value="">{trained.length ? "choose…" : "train one first"}</option>
              {rewards.map((item) => (
                <option key={item.id ?? item.name} value={item.id ?? item.name}>
                  {item.name}
                </option>
              ))}
            </select>
          </Field>
          <Field label="Model">
            <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              {[...new Set(["synthetic-base", ...(models.data?.items.map((item) => item.name) ?? [])])].map((item) => (
                <option key={item} value={item}>
                  {item}
                </option>
              ))}
            </select>
          </Field>
          <Field label="Recipe">
            <select value={recipe} onChange={(event) => setRecipe(event.currentTarget.value)}>
              {Object.entries(RECIPES).map(([value, label]) => (
                <option key={value} value={value}>
                  {label}
                </option>
              ))}
            </select>
          </Field>
          <Field label="Size">
            <select value={size} onChange={(event) => setSize(event.currentTarget.value)}>
              {SIZES.map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </Field>
        </div>
        <Fault error={tune.error || models.error} />
        <div>
          <button type="submit" class="primary" disabled={tune.busy || !reward}>
            Tune
          </button>
        </div>
      </form>
      {tunings.map((job) => (
        <JobRow key={job.id} job={job} title={`${job.request.model} with a reward, ${job.request.size}`}>
          {job.status === "done" && <BeforeAfter job={job} />}
        </JobRow>
      ))}
    </section>
  );
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
