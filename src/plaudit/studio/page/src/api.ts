/** The studio's HTTP API: requests, errors, event streams. The pages use nothing else of the server. */

import { sentence } from "./ui/format";

export const BASE = "/api/v1";

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

/** Sent with every request that changes something while a session cookie is in use. */
let csrf = "";

export function setCsrf(token: string | null | undefined): void {
  csrf = token ?? "";
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export function address(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return BASE + path + (text ? `?${text}` : "");
}

async function problem(response: Response): Promise<ApiError> {
  let detail = `The server answered with status ${response.status}.`;
  let code = "";
  try {
    const body = await response.json();
    if (typeof body.detail === "string") detail = body.detail;
    else if (Array.isArray(body.detail)) {
      detail = body.detail
        .map((fault: { loc?: (string | number)[]; msg: string }) =>
          [fault.loc?.filter((part) => part !== "body").join("."), fault.msg].filter(Boolean).join(": "),
        )
        .join("; ");
    }
    if (typeof body.code === "string") code = body.code;
  } catch {
    // The body is not JSON: the status says what is known.
  }
  return new ApiError(sentence(detail), response.status, code);
}

interface Options {
  query?: Query;
  signal?: AbortSignal;
  /** The same key for the same action: a repeated request is answered from the first. */
  key?: string;
  headers?: Record<string, string>;
}

export async function request<T>(method: string, path: string, body?: unknown, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  if (method !== "GET") {
    if (csrf) headers["X-CSRF-Token"] = csrf;
    if (method === "POST") headers["Idempotency-Key"] = options.key ?? newKey();
  }
  let response: Response;
  try {
    response = await fetch(address(path, options.query), {
      method,
      headers,
      credentials: "same-origin",
      signal: options.signal,
      body: body === undefined ? undefined : form ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The studio is not responding. Check that it is still running, then try again.", 0, "offline");
  }
  if (!response.ok) throw await problem(response);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Repeats a request with one idempotency key while the server is away, so that an answer that was given is stored
 * once however often the connection breaks.
 */
export async function persist<T>(path: string, body: unknown, onWait: (waiting: boolean) => void): Promise<T> {
  const key = newKey();
  for (let attempt = 0; ; attempt++) {
    try {
      const result = await request<T>("POST", path, body, { key });
      onWait(false);
      return result;
    } catch (error) {
      const isTemporary = error instanceof ApiError && (error.status === 0 || error.status >= 500 || error.status === 429);
      if (!isTemporary) {
        onWait(false);
        throw error;
      }
      onWait(true);
      await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** attempt, 5000)));
    }
  }
}

export interface Page<T> {
  items: T[];
  next: string | null;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
