import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { address, messageOf, request, type Query } from "../api";

export interface Loaded<T> {
  data: T | null;
  error: string;
  loading: boolean;
  reload(): void;
  set(change: (data: T) => T): void;
}

/** What a GET of the API answers; asked for again on `reload` and when path or query change. */
export function useGet<T>(path: string | null, query: Query = {}): Loaded<T> {
  const [data, setData] = useState<T | null>(null);
  const [error, setError] = useState("");
  const [loading, setLoading] = useState(path !== null);
  const [version, setVersion] = useState(0);
  const url = path === null ? null : address(path, query);
  const lastUrl = useRef<string | null>(null);
  useEffect(() => {
    if (path === null) {
      setData(null);
      return;
    }
    const stop = new AbortController();
    if (lastUrl.current !== url) setData(null);
    lastUrl.current = url;
    setLoading(true);
    request<T>("GET", path, undefined, { query, signal: stop.signal }).then(
      (answer) => {
        setData(answer);
        setError("");
        setLoading(false);
      },
      (fault) => {
        if (stop.signal.aborted) return;
        setError(messageOf(fault));
        setLoading(false);
      },
    );
    return () => stop.abort();
  }, [url, version]);
  const reload = useCallback(() => setVersion((count) => count + 1), []);
  const set = useCallback((change: (data: T) => T) => setData((old) => (old === null ? old : change(old))), []);
  return { data, error, loading, reload, set };
}

/** Server-sent events of a path, by name; `onOpen` also runs when a broken connection is back. */
export function useEvents(
  path: string | null,
  names: string[],
  onEvent: (name: string, data: unknown) => void,
  onOpen?: () => void,
): void {
  const handler = useRef(onEvent);
  handler.current = onEvent;
  const openHandler = useRef(onOpen);
  openHandler.current = onOpen;
  useEffect(() => {
    if (path === null) return;
    let source: EventSource | null = null;
    let retry = 0;
    const connect = () => {
      source = new EventSource(address(path));
      source.onopen = () => openHandler.current?.();
      source.onerror = () => {
        // A server that refuses ends the stream for good; one that restarts may do so too.
        if (source?.readyState === EventSource.CLOSED) retry = window.setTimeout(connect, 3000);
      };
      for (const name of names) {
        source.addEventListener(name, (event) => {
          const text = (event as MessageEvent<string>).data;
          let data: unknown = null;
          try {
            data = text ? JSON.parse(text) : null;
          } catch {
            return;
          }
          handler.current(name, data);
        });
      }
    };
    connect();
    return () => {
      window.clearTimeout(retry);
      source?.close();
    };
  }, [path]);
}

/** An action of a button: busy while it runs, its fault as a line. */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<unknown>) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const run = async (...args: A) => {
    setBusy(true);
    setError("");
    try {
      await action(...args);
    } catch (fault) {
      setError(messageOf(fault));
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, error, setError };
}
