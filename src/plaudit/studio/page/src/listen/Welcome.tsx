import { useState } from "preact/hooks";
import { request } from "../api";
import { useAction } from "../ui/data";
import { FocusedHeading } from "../ui/FocusedHeading";
import { Fault } from "../ui/parts";
import { useKeys } from "./keys";
import type { ListenerSession } from "./types";

interface Props {
  session: ListenerSession;
  onConsent(): void;
}

export function Welcome({ session, onConsent }: Props) {
  const [agreed, setAgreed] = useState(!session.consent);
  const begin = useAction(async () => {
    await request("POST", "/listen/consent");
    onConsent();
  });
  const start = () => {
    if (agreed && !begin.busy) void begin.run();
  };
  useKeys({ enter: start });
  return (
    <section class="stack loose">
      <div class="stack tight">
        <FocusedHeading>Listening test</FocusedHeading>
        <p class="muted">
          {session.screening !== "none" && "It starts with a check of your headphones. "}
          Your answers are saved as you go. You can close this page and continue later with the same link in this browser.
        </p>
      </div>
      {session.instructions && <p class="prose">{session.instructions}</p>}
      {session.consent && (
        <div class="card stack">
          <p class="prose">{session.consent}</p>
          <label class="choice">
            <input type="checkbox" checked={agreed} onChange={(event) => setAgreed(event.currentTarget.checked)} />
            I have read this and agree to take part.
          </label>
        </div>
      )}
      <Fault error={begin.error} />
      <button type="button" class="primary next" disabled={!agreed || begin.busy} onClick={start}>
        Start
      </button>
      <p class="small muted">
        You can do the whole test with the keyboard; the keys are listed under each question. On a phone, turn off silent
        mode.
      </p>
    </section>
  );
}
