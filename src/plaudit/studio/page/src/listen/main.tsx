import "../styles/base.css";
import "../styles/listen.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError, messageOf, request, setCsrf } from "../api";
import { CopyButton } from "../ui/CopyButton";
import { FocusedHeading } from "../ui/FocusedHeading";
import { Loading, Notice } from "../ui/parts";
import { Headphones } from "./Headphones";
import { Pair } from "./Pair";
import { Rating } from "./Rating";
import { Welcome } from "./Welcome";
import type { Enrolment, ListenerSession, NextItem } from "./types";

function invitation(): string {
  return decodeURIComponent(location.pathname.split("/")[2] ?? "");
}

function App() {
  const [session, setSession] = useState<ListenerSession | null>(null);
  const [item, setItem] = useState<NextItem | null>(null);
  const [error, setError] = useState<unknown>(null);

  const follow = async (current: ListenerSession) => {
    if (current.state === "listening" || current.state === "completed") {
      setItem(await request<NextItem>("GET", "/listen/next"));
    }
    setSession(current);
  };
  const guarded = (action: () => Promise<void>) => () => {
    setError(null);
    action().catch(setError);
  };
  const open = guarded(async () => {
    const enrolment = await request<Enrolment>("POST", `/listen/${encodeURIComponent(invitation())}`);
    setCsrf(enrolment.csrf);
    await follow(enrolment.session);
  });
  const refresh = guarded(async () => follow(await request<ListenerSession>("GET", "/listen/session")));
  const advance = guarded(async () => setItem(await request<NextItem>("GET", "/listen/next")));
  useEffect(open, []);

  if (error) return <Refused error={error} retry={open} />;
  if (!session) return <Loading what="the test" />;
  if (session.state === "closed") return <End title="This test is closed" text="All your answers so far are stored. Thank you." />;
  if (session.state === "screened-out") {
    return <End title="This test needs headphones" text="The check did not detect any, so the test ends here. Thank you for your time." />;
  }
  if (session.state === "consent") return <Welcome session={session} onConsent={refresh} />;
  if (session.state === "screening") return <Headphones onOver={refresh} />;
  if (!item) return <Loading what="the next question" />;
  if (item.kind === "completed") return <Done code={item.completion_code} />;
  return item.kind === "page" ? (
    <Rating key={item.assignment} task={item} test={session} onAnswered={advance} />
  ) : (
    <Pair key={item.assignment} task={item} test={session} onAnswered={advance} />
  );
}

function End({ title, text }: { title: string; text: string }) {
  return (
    <div class="stack">
      <FocusedHeading>{title}</FocusedHeading>
      <p>{text}</p>
    </div>
  );
}

function Refused({ error, retry }: { error: unknown; retry?: () => void }) {
  const isTemporary = error instanceof ApiError && (error.status === 0 || error.status >= 500);
  return (
    <div class="stack">
      <FocusedHeading>{isTemporary ? "The test is not responding" : "This test cannot be opened"}</FocusedHeading>
      <Notice kind="error">{messageOf(error)}</Notice>
      {isTemporary && <p class="muted">Your answers so far are stored.</p>}
      {retry && (
        <button type="button" class="primary next" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

function Done({ code }: { code: string }) {
  return (
    <div class="stack">
      <FocusedHeading>Thank you</FocusedHeading>
      <p>All your answers are stored. You can close this page.</p>
      {code && (
        <div class="card stack tight">
          <span class="muted small">Your completion code</span>
          <span class="code mono" id="code">
            {code}
          </span>
          <div class="row">
            <CopyButton text={code} shownIn="code" label="Copy the completion code" />
          </div>
        </div>
      )}
    </div>
  );
}

render(
  <main>
    <App />
  </main>,
  document.getElementById("app")!,
);
