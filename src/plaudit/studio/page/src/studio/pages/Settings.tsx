import { useState } from "preact/hooks";
import { request, type Page } from "../../api";
import { useAction, useGet } from "../../ui/data";
import { when } from "../../ui/format";
import { Fault, Field, Form, Heading, Input, Loading, Notice, Select, Table } from "../../ui/parts";
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
              Logged in with the token <strong>{session.name}</strong>. Role: {session.role}.
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

const ROLES = ["editor", "owner"].map((role) => [role, role] as const);

function Tokens() {
  const tokens = useGet<Page<TokenInfo>>("/tokens");
  const [name, setName] = useState("");
  const [role, setRole] = useState("editor");
  const [newToken, setNewToken] = useState<(TokenInfo & { token: string }) | null>(null);
  const create = useAction(async () => {
    setNewToken(await request<TokenInfo & { token: string }>("POST", "/tokens", { name, role }));
    setName("");
    tokens.reload();
  });
  const revoke = useAction(async (id: string) => {
    await request("DELETE", `/tokens/${id}`);
    tokens.reload();
  });
  return (
    <section class="stack">
      <div class="stack tight">
        <h2>Tokens</h2>
        <p class="muted prose">
          A token lets a colleague or a program use this studio. Owners can do everything; editors can do everything
          except manage tokens. Listeners need no token: the link of a test is enough.
        </p>
      </div>
      <Form class="card row end" onSubmit={() => void create.run()}>
        <div class="grow wide-field">
          <Field label="Name">
            <Input type="text" required maxLength={120} placeholder="who or what it is for" value={name} onChange={setName} />
          </Field>
        </div>
        <Field label="Role">
          <Select value={role} onChange={setRole} options={ROLES} />
        </Field>
        <button type="submit" class="primary" disabled={create.busy || !name.trim()}>
          Create token
        </button>
      </Form>
      <Fault error={create.error || revoke.error || tokens.error} />
      {newToken && (
        <Notice kind="good">
          The token for {newToken.name}. Copy it now, it is not shown again: <span class="mono selectable">{newToken.token}</span>
        </Notice>
      )}
      {tokens.loading && !tokens.data && <Loading what="tokens" />}
      {tokens.data && (
        <Table
          label="Tokens"
          head={
            <>
              <th>Name</th>
              <th>Role</th>
              <th>Created</th>
              <th>
                <span class="visually-hidden">Actions</span>
              </th>
            </>
          }
        >
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
                    aria-label={`Revoke the token ${token.name}`}
                    onClick={() => confirm(`Revoke the token ${token.name}? Whoever uses it is logged out.`) && void revoke.run(token.id)}
                  >
                    Revoke
                  </button>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}
