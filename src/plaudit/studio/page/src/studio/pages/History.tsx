import { useEffect, useState } from "preact/hooks";
import { messageOf, request, type Page } from "../../api";
import { Empty, Fault, Heading, Input, Loading } from "../../ui/parts";
import { ClipCard } from "../clips";
import { Link, navigate } from "../router";
import type { Clip } from "../types";
import { storeSettingsOf } from "./Create";

const FILTERS = [
  ["", "All"],
  ["new", "New"],
  ["kept", "Kept"],
  ["discarded", "Discarded"],
] as const;

const PART = 20;
const TYPING_MS = 250;

export function History() {
  const [status, setStatus] = useState<string>("");
  const [search, setSearch] = useState("");
  const [query, setQuery] = useState("");
  const [clips, setClips] = useState<Clip[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [loading, setLoading] = useState(true);
  const [error, setError] = useState("");
  const [version, setVersion] = useState(0);

  useEffect(() => {
    const timer = window.setTimeout(() => setQuery(search.trim()), TYPING_MS);
    return () => window.clearTimeout(timer);
  }, [search]);

  const load = async (cursor: string | null, signal?: AbortSignal) => {
    setLoading(true);
    setError("");
    try {
      const page = await request<Page<Clip>>("GET", "/clips", undefined, {
        query: { status, q: query, limit: PART, cursor },
        signal,
      });
      setClips((old) => (cursor ? [...old, ...page.items] : page.items));
      setNext(page.next);
    } catch (fault) {
      if (signal?.aborted) return;
      setError(messageOf(fault));
    }
    setLoading(false);
  };
  useEffect(() => {
    const stop = new AbortController();
    void load(null, stop.signal);
    return () => stop.abort();
  }, [status, query, version]);

  const change = (clip: Clip) => setClips((old) => old.map((other) => (other.id === clip.id ? clip : other)));
  
  return (
    <>
      <Heading title="History" intro="All clips that were generated or uploaded here, except those you discarded." />
      <div class="stack">
        <div class="row apart">
          <div class="row" role="group" aria-label="Which clips">
            {FILTERS.map(([value, label]) => (
              <button key={value} type="button" class="small" aria-pressed={status === value} onClick={() => setStatus(value)}>
                {label}
              </button>
            ))}
          </div>
          <Input
            class="search"
            type="search"
            aria-label="Search prompts"
            placeholder="Search prompts"
            value={search}
            onChange={setSearch}
          />
        </div>
        <Fault error={error} retry={() => setVersion((count) => count + 1)} />
        {clips.map((clip) => (
          <ClipCard
            key={clip.id}
            clip={clip}
            onChange={change}
            onUseSettings={(used) => {
              storeSettingsOf(used);
              navigate("/create");
            }}
          />
        ))}
        {loading && <Loading what="clips" />}
        {!loading && !error && !clips.length && (
          <Empty title={query || status ? "No clips match" : "No clips yet"}>
            {!query && !status && (
              <p class="muted">
                Generate some under <Link href="/create">Create</Link>.
              </p>
            )}
          </Empty>
        )}
        {next && !loading && (
          <button type="button" onClick={() => void load(next)}>
            Show more
          </button>
        )}
      </div>
    </>
  );
}
