import { useState } from "preact/hooks";
import { request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { when } from "../../ui/format";
import { Fault, Field, Heading, Loading, Notice } from "../../ui/parts";
import { logOut, useSession } from "../session";

interface TokenInfo {
  id: string;
  name: string;
  role: string;
  created_at: string;
  revoked: boolean;
}

export function Settings() {
  const session = useSession();
  const leave = useAction(logOut);
  return (
    <>
      <Heading title="Settings" />
      <div class="stack loose">
        <section class="stack">
          <div class="row apart">
            <p>
              You are <strong>{session.name}</strong>, with the role {session.role}.
            </p>
            <button type="button" onClick={() => void leave.run()} disabled={leave.busy}>
              Log out
            </button>
          </div>
          <Fault error={leave.error} />
        </section>
        {session.role === "owner" ? (
          <Tokens />
        ) : (
          <Notice>Only an owner can see and create tokens.</Notice>
        )}
      </div>
    </>
  );
}

function Tokens() {
  const tokens = useGet<Page<TokenInfo>>("/tokens");
  const [name, setName] = useState("");
  const [role, setRole] = useState("editor");
  const [fresh, setFresh] = useState<(TokenInfo & { token: string }) | null>(null);
  const create = useAction(async () => {
    setFresh(await request<TokenInfo & { token: string }>("POST", "/tokens", { name, role }));
    setName("");
    tokens.reload();
  });
  const revoke = useAction(async (id: string) => {
    await request("DELETE", `/tokens/${id}`);
    tokens.reload();
  });
  return (
    <section class="stack" aria-labelledby="tokens">
      <div class="stack tight">
        <h2 id="tokens">Tokens</h2>
        <p class="muted prose">
          A token lets a colleague or a program use this studio. An owner can do everything; an editor everything but
          manage tokens. Listeners need none: a test's invitation is enough for them.
        </p>
      </div>
      <form
        class="card row end"
        onSubmit={(event) => {
          event.preventDefault();
          void create.run();
        }}
      >
        <div class="grow wide-field">
          <Field label="Name">
            <input type="text" required maxLength={120} placeholder="who or what it is for" value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </Field>
        </div>
        <Field label="Role">
          <select value={role} onChange={(event) => setRole(event.currentTarget.value)}>
            <option value="editor">editor</option>
            <option value="owner">owner</option>
          </select>
        </Field>
        <button type="submit" class="primary" disabled={create.busy || !name.trim()}>
          Create token
        </button>
      </form>
      <Fault error={create.error || revoke.error || tokens.error} />
      {fresh && (
        <Notice kind="good">
          The token of {fresh.name}, shown this once: <span class="mono selectable">{fresh.token}</span>
        </Notice>
      )}
      {tokens.loading && !tokens.data && <Loading what="tokens" />}
      {tokens.data && (
        <div class="table-box" tabIndex={0} role="region" aria-label="Tokens">
          <table>
            <thead>
              <tr>
                <th>Name</th>
                <th>Role</th>
                <th>Created</th>
                <th>
                  <span class="visually-hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {tokens.data.items.map((token) => (
                <tr key={token.id}>
                  <td>{token.name}</td>
                  <td>{token.role}</td>
                  <td class="numeric">{when(token.created_at)}</td>
                  <td class="right">
                    {token.revoked ? (
                      <span class="muted small">revoked</span>
                    ) : (
                      <button
                        type="button"
                        class="small quiet danger"
                        aria-label={`Revoke the token of ${token.name}`}
                        onClick={() => confirm(`Revoke the token of ${token.name}?`) && void revoke.run(token.id)}
                      >
                        Revoke
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
