import "../styles/base.css";
import "../styles/studio.css";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import { plural } from "../ui/format";
import { Empty, Heading, Icon } from "../ui/parts";
import { ComparisonProvider } from "./clips";
import { Announcer, JobsProvider, useJobs } from "./jobs";
import { Link, navigate, useLocation } from "./router";
import { SessionGate } from "./session";
import { Create } from "./pages/Create";
import { History } from "./pages/History";
import { NewTest } from "./pages/NewTest";
import { Rewards } from "./pages/Rewards";
import { Run, Runs } from "./pages/Runs";
import { Settings } from "./pages/Settings";
import { TestPage } from "./pages/Test";
import { Tests } from "./pages/Tests";
import { Tune } from "./pages/Tune";

const SECTIONS = [
  ["/create", "Create"],
  ["/history", "History"],
  ["/tests", "Tests"],
  ["/rewards", "Rewards"],
  ["/tune", "Tune"],
  ["/runs", "Runs"],
  ["/settings", "Settings"],
] as const;

function PageOf({ path }: { path: string }) {
  const [, section, id] = path.split("/");
  switch (section) {
    case "create":
      return <Create />;
    case "history":
      return <History />;
    case "tests":
      if (!id) return <Tests />;
      return id === "new" ? <NewTest /> : <TestPage key={id} id={decodeURIComponent(id)} />;
    case "rewards":
      return <Rewards />;
    case "tune":
      return <Tune />;
    case "runs":
      return id ? <Run key={id} name={decodeURIComponent(id)} /> : <Runs />;
    case "settings":
      return <Settings />;
    default:
      return (
        <>
          <Heading title="Page not found" />
          <Empty title="There is no page at this address">
            <p>
              Go to <Link href="/create">Create</Link>.
            </p>
          </Empty>
        </>
      );
  }
}

function Running() {
  const { jobs } = useJobs();
  const count = jobs.filter((job) => job.status === "running" || job.status === "queued").length;
  if (!count) return null;
  return (
    <p class="at-work small">
      <Icon name="clock" size={14} />
      {plural(count, "job")} in progress
    </p>
  );
}

function Shell() {
  const { pathname } = useLocation();
  useEffect(() => {
    if (pathname === "/") navigate("/create", true);
  }, [pathname]);
  useEffect(() => window.scrollTo({ top: 0 }), [pathname]);
  const section = `/${pathname.split("/")[1]}`;
  return (
    <div class="shell">
      <a class="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        document.getElementById("content")!.focus();
      }}>
        Skip to content
      </a>
      <nav aria-label="Sections">
        <p class="brand">
          <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
            <rect width="32" height="32" rx="8" class="brand-tile" />
            <g class="brand-bars">
              <rect x="6" y="13" width="3" height="6" rx="1.5" />
              <rect x="11.3" y="8" width="3" height="16" rx="1.5" />
              <rect x="16.6" y="11" width="3" height="10" rx="1.5" />
              <rect x="21.9" y="6" width="3" height="20" rx="1.5" />
            </g>
          </svg>
          Plaudit studio
        </p>
        <ul>
          {SECTIONS.map(([href, label]) => (
            <li key={href}>
              <Link href={href} current={section === href}>
                {label}
              </Link>
            </li>
          ))}
        </ul>
        <Running />
      </nav>
      <main id="content" tabIndex={-1}>
        {pathname !== "/" && <PageOf path={pathname} />}
      </main>
    </div>
  );
}

render(
  <SessionGate>
    <JobsProvider>
      <ComparisonProvider>
        <Shell />
        <Announcer />
      </ComparisonProvider>
    </JobsProvider>
  </SessionGate>,
  document.getElementById("app")!,
);
