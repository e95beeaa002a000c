import { useEffect } from "preact/hooks";
import type { Page } from "../../api";
import { useEvents, useGet } from "../../ui/data";
import { sentence, when } from "../../ui/format";
import { Empty, Fault, Heading, Icon, Loading, Table } from "../../ui/parts";
import { useJobs } from "../jobs";
import { Link } from "../router";
import type { TestInfo } from "../testTypes";

const LABELS = { preparing: "Preparing", draft: "Draft", open: "Open", closed: "Closed", failed: "Not ready" };

export function TestBadge({ test }: { test: TestInfo }) {
  const status = test.status === "draft" && !test.prepared && test.problem ? "failed" : test.status;
  return <span class={`badge ${status}`}>{LABELS[status]}</span>;
}

export function listenersText(test: TestInfo): string {
  return test.listeners ? `${test.listeners} (${test.completed} finished)` : "none yet";
}

export function Tests() {
  const tests = useGet<Page<TestInfo>>("/tests", { limit: 100 });
  const { listen } = useJobs();
  useEffect(() => listen((job) => job.status !== "running" && tests.reload()), [listen, tests.reload]);
  useEvents("/events", ["test", "listener"], () => tests.reload());
  return (
    <>
      <Heading title="Listening tests" intro="Ask people which of two systems they prefer, without telling them which is which.">
        <Link href="/tests/new" class="button primary">
          <Icon name="plus" /> New test
        </Link>
      </Heading>
      <div class="stack">
        <Fault error={tests.error} retry={tests.reload} />
        {tests.loading && !tests.data && <Loading what="tests" />}
        {tests.data && !tests.data.items.length && (
          <Empty title="No tests yet">
            <p class="muted">
              Compare two stages of a run, two models, or two folders of clips. <Link href="/tests/new">Create a test</Link>
            </p>
          </Empty>
        )}
        {tests.data && tests.data.items.length > 0 && (
          <Table
            label="Listening tests"
            head={
              <>
                <th>Name</th>
                <th>Status</th>
                <th>Systems</th>
                <th>Listeners</th>
                <th class="right">Answers</th>
                <th>Created</th>
              </>
            }
          >
            {tests.data.items.map((test) => (
              <tr key={test.id}>
                <td>
                  <Link href={`/tests/${test.id}`} class="title">
                    {test.name}
                  </Link>
                  {test.problem && <p class="small fault">{sentence(test.problem)}</p>}
                </td>
                <td>
                  <TestBadge test={test} />
                </td>
                <td class="small">{test.systems.map((system) => system.name).join(", ")}</td>
                <td class="small numeric nowrap-text">{listenersText(test)}</td>
                <td class="right numeric">{test.votes}</td>
                <td class="small numeric nowrap-text">{when(test.created_at)}</td>
              </tr>
            ))}
          </Table>
        )}
      </div>
    </>
  );
}
