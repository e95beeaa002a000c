import { useEffect } from "preact/hooks";
import type { Page } from "../../api";
import { useEvents, useGet } from "../../ui/data";
import { plural, when } from "../../ui/format";
import { Empty, Fault, Heading, Icon, Loading } from "../../ui/parts";
import { useJobs } from "../jobs";
import { Link } from "../router";
import type { TestInfo, TestStatus } from "../testTypes";

const LABELS: Record<TestStatus, string> = { preparing: "Preparing", draft: "Draft", open: "Open", closed: "Closed" };

export function TestBadge({ status }: { status: TestStatus }) {
  return <span class={`badge ${status}`}>{LABELS[status]}</span>;
}

export function Tests() {
  const tests = useGet<Page<TestInfo>>("/tests", { limit: 100 });
  const { listen } = useJobs();
  useEffect(() => listen((job) => job.status !== "running" && tests.reload()), [listen, tests.reload]);
  useEvents("/events", ["test", "listener"], () => tests.reload());
  return (
    <>
      <Heading title="Listening tests" intro="Ask people which of two systems they prefer, without their knowing which is which.">
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
          <div class="table-box" tabIndex={0} role="region" aria-label="Listening tests">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>Status</th>
                  <th>Systems</th>
                  <th class="right">Listeners</th>
                  <th class="right">Answers</th>
                  <th>Created</th>
                </tr>
              </thead>
              <tbody>
                {tests.data.items.map((test) => (
                  <tr key={test.id}>
                    <td class="title">
                      <Link href={`/tests/${test.id}`}>{test.name}</Link>
                      {test.problem && <p class="small fault">{test.problem}</p>}
                    </td>
                    <td>
                      <TestBadge status={test.status} />
                    </td>
                    <td class="small">{test.systems.map((system) => system.name).join(", ")}</td>
                    <td class="right numeric">
                      {test.listeners}
                      <span class="visually-hidden"> {plural(test.completed, "of them done", "of them done")}</span>
                    </td>
                    <td class="right numeric">{test.votes}</td>
                    <td class="small numeric">{when(test.created_at)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </div>
    </>
  );
}
