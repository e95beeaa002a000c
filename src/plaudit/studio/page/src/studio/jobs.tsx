import { createContext } from "preact";
import type { ComponentChildren } from "preact";
import { useCallback, useContext, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { messageOf, request, type Page } from "../api";
import { useEvents } from "../ui/data";
import { duration, plural, sentence, timeLeft } from "../ui/format";
import { Icon, type IconName } from "../ui/parts";
import type { Job, JobStatus } from "./types";

interface Jobs {
  jobs: Job[];
  /** Puts a job that was just created or changed among the others. */
  put(job: Job): void;
  /** Runs when a job's events tell of new clips or of its end. */
  listen(handler: (job: Job) => void): () => void;
}

const Context = createContext<Jobs | null>(null);

export function useJobs(): Jobs {
  return useContext(Context)!;
}

/** A job as the events describe it; null where it is not known yet. */
export function useJob(id: string | null): Job | null {
  const { jobs, put } = useJobs();
  const loaded = jobs.find((job) => job.id === id) ?? null;
  useEffect(() => {
    if (id && !loaded) request<Job>("GET", `/jobs/${id}`).then(put, () => undefined);
  }, [id, loaded === null]);
  return loaded;
}

const LATEST = 100;

export function JobsProvider({ children }: { children: ComponentChildren }) {
  const [jobs, setJobs] = useState<Job[]>([]);
  const handlers = useRef(new Set<(job: Job) => void>());
  const put = useCallback((job: Job) => {
    setJobs((old) => {
      const index = old.findIndex((other) => other.id === job.id);
      if (index < 0) return [job, ...old];
      const copy = [...old];
      copy[index] = { ...old[index]!, ...job };
      return copy;
    });
  }, []);
  const load = useCallback(() => {
    request<Page<Job>>("GET", "/jobs", undefined, { query: { limit: LATEST } }).then(
      (page) => setJobs(page.items),
      () => undefined,
    );
  }, []);
  useEffect(load, []);
  useEvents(
    "/events",
    ["job"],
    (_, data) => {
      const job = data as Job;
      put(job);
      for (const handler of handlers.current) handler(job);
    },
    load,
  );
  const listen = useCallback((handler: (job: Job) => void) => {
    handlers.current.add(handler);
    return () => void handlers.current.delete(handler);
  }, []);
  const value = useMemo(() => ({ jobs, put, listen }), [jobs, put, listen]);
  return <Context.Provider value={value}>{children}</Context.Provider>;
}

const STATUS: Record<JobStatus, { label: string; icon: IconName }> = {
  queued: { label: "Queued", icon: "clock" },
  running: { label: "Running", icon: "play" },
  done: { label: "Done", icon: "check" },
  failed: { label: "Failed", icon: "warning" },
  cancelled: { label: "Cancelled", icon: "cross" },
};

function StatusBadge({ status }: { status: JobStatus }) {
  const { label, icon } = STATUS[status];
  return (
    <span class={`badge ${status}`}>
      <Icon name={icon} size={13} />
      {label}
    </span>
  );
}

/** What the progress of a job counts, where it is one thing from beginning to end. */
const UNITS: Record<string, string> = { generate: "clip", score: "clip", upload: "file" };

function progressText(job: Job): string {
  const { progress } = job;
  if (job.status !== "running") return "";
  if (job.cancel_requested) return "stopping after this step";
  if (!progress) return "starting";
  const unit = UNITS[job.kind];
  const parts = [];
  if (progress.label) parts.push(progress.label);
  if (progress.total) parts.push(`${progress.done} of ${unit ? plural(progress.total, unit) : progress.total}`);
  if (progress.steps) parts.push(`step ${progress.step ?? 0} of ${progress.steps}`);
  const left = timeLeft(progress.seconds_left);
  if (left) parts.push(left);
  return parts.join(", ");
}

/** The part that is done, from 0 to 1; null where it is not known. */
function fraction(job: Job): number | null {
  const { progress } = job;
  if (!progress?.total) return null;
  const within = progress.steps ? (progress.step ?? 0) / progress.steps : 0;
  return Math.min(1, (progress.done + (progress.done < progress.total ? within : 0)) / progress.total);
}

function elapsed(job: Job): string {
  if (!job.started_at || !job.finished_at) return "";
  return duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000);
}

interface JobRowProps {
  job: Job;
  title: string;
  children?: ComponentChildren;
}

/** One job: its status in words, progress, time left, cancel and retry. */
function JobRow({ job, title, children }: JobRowProps) {
  const { put } = useJobs();
  const [error, setError] = useState("");
  const act = (action: "cancel" | "retry") => () => {
    setError("");
    request<Job>("POST", `/jobs/${job.id}/${action}`).then(put, (fault) => setError(messageOf(fault)));
  };
  const open = job.status === "queued" || job.status === "running";
  const part = fraction(job);
  return (
    <div class="job" aria-label={title}>
      <div class="row apart">
        <span class="row grow nowrap">
          <StatusBadge status={job.status} />
          <span class="title grow">{title}</span>
        </span>
        <span class="row">
          {open && (
            <button type="button" class="small quiet" disabled={job.cancel_requested} onClick={act("cancel")}>
              {job.cancel_requested ? "Cancelling…" : "Cancel"}
            </button>
          )}
          {(job.status === "failed" || job.status === "cancelled") && (
            <button type="button" class="small" onClick={act("retry")}>
              <Icon name="retry" size={14} />
              Retry
            </button>
          )}
        </span>
      </div>
      {job.status === "running" && (
        <>
          <progress value={part ?? undefined} max={1} aria-label={`Progress of ${title}`} />
          <p class="small muted numeric">{progressText(job)}</p>
        </>
      )}
      {job.status === "done" && elapsed(job) && <p class="small muted">Took {elapsed(job)}.</p>}
      {job.error && job.status === "failed" && <p class="small fault">{sentence(job.error)}</p>}
      {error && (
        <p class="small fault" role="alert">
          {error}
        </p>
      )}
      {children}
    </div>
  );
}

interface JobListProps {
  jobs: Job[];
  title(job: Job): string;
  /** What follows a job that is done. */
  children?: (job: Job) => ComponentChildren;
}

/** Jobs in a box; nothing where there are none. */
export function JobList({ jobs, title, children }: JobListProps) {
  if (!jobs.length) return null;
  return (
    <div class="jobs">
      {jobs.map((job) => (
        <JobRow key={job.id} job={job} title={title(job)}>
          {job.status === "done" && children?.(job)}
        </JobRow>
      ))}
    </div>
  );
}

/** Says changes of status aloud for screen readers, without repeating every step. */
export function Announcer() {
  const { jobs } = useJobs();
  const old = useRef<Map<string, JobStatus> | null>(null);
  const [line, setLine] = useState("");
  useEffect(() => {
    const before = old.current;
    old.current = new Map(jobs.map((job) => [job.id, job.status]));
    if (!before || !before.size) return;
    const changed = jobs.filter((job) => before.get(job.id) !== job.status);
    if (changed.length) setLine(changed.map((job) => `${KINDS[job.kind] ?? job.kind}: ${STATUS[job.status].label}`).join(". "));
  }, [jobs]);
  return (
    <div class="visually-hidden" role="status" aria-live="polite">
      {line}
    </div>
  );
}

const KINDS: Record<string, string> = {
  generate: "Generation",
  score: "Scoring",
  compare: "Comparison",
  upload: "Upload",
  "prepare-test": "Preparing a test",
  "test-report": "Report of a test",
  "train-reward": "Training a reward",
  tune: "Tuning a model",
  simulate: "Simulated listeners",
};
