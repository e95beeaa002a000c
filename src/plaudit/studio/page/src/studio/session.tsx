import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import { ApiError, messageOf, request, setCsrf } from "../api";
import { useAction } from "../ui/data";
import { Fault, Field, Form, Input, Loading } from "../ui/parts";
import type { ComponentChildren } from "preact";
import type { Session } from "./types";

const Context = createContext<Session | null>(null);

export function useSession(): Session {
  return useContext(Context)!;
}

/** The token that `plaudit studio` puts behind the # of the address that it opens; it is removed from the address. */
function tokenOfAddress(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

async function logIn(token: string): Promise<Session> {
  const session = await request<Session>("POST", "/session", { token });
  setCsrf(session.csrf);
  return session;
}

export async function logOut(): Promise<void> {
  await request("DELETE", "/session");
  setCsrf("");
  location.assign("/");
}

/** The pages of somebody with a session, or the way to one. */
export function SessionGate({ children }: { children: ComponentChildren }) {
  const [session, setSession] = useState<Session | null>(null);
  const [state, setState] = useState<"loading" | "absent" | "present">("loading");
  const [error, setError] = useState("");
  useEffect(() => {
    const token = tokenOfAddress();
    (token ? logIn(token) : request<Session>("GET", "/session")).then(
      (answer) => {
        setCsrf(answer.csrf);
        setSession(answer);
        setState("present");
      },
      (fault) => {
        if (!(fault instanceof ApiError && fault.status === 401) || token) setError(messageOf(fault));
        setState("absent");
      },
    );
  }, []);
  if (state === "loading") return <Loading what="the studio" />;
  if (state === "absent") {
    return (
      <LogIn
        error={error}
        onSession={(answer) => {
          setSession(answer);
          setState("present");
        }}
      />
    );
  }
  return <Context.Provider value={session}>{children}</Context.Provider>;
}

function LogIn({ error, onSession }: { error: string; onSession(session: Session): void }) {
  const [token, setToken] = useState("");
  const enter = useAction(async () => onSession(await logIn(token.trim())));
  return (
    <main class="log-in">
      <Form class="card stack" onSubmit={() => void enter.run()}>
        <h1>Plaudit studio</h1>
        <p class="muted">
          Open the link that <span class="mono">plaudit studio</span> printed, or paste a token.
        </p>
        <Field label="Token">
          <Input type="password" autocomplete="current-password" required value={token} onChange={setToken} />
        </Field>
        <Fault error={enter.error || error} />
        <button type="submit" class="primary" disabled={enter.busy || !token.trim()}>
          Open the studio
        </button>
      </Form>
    </main>
  );
}
