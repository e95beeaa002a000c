import { useLayoutEffect, useRef } from "preact/hooks";

/** Keys of the page, by `KeyboardEvent.key` in lower case; not while text is typed. */
export function useKeys(actions: Record<string, () => void>): void {
  const current = useRef(actions);
  current.current = actions;
  useLayoutEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const target = event.target as HTMLElement;
      const typing = target.matches("textarea, input[type='text']");
      if (typing) return;
      const key = event.key.toLowerCase();
      // Keys that the focused control needs stay its own.
      if ((key === " " || key === "enter") && target.matches("button, a, summary")) return;
      if (key.startsWith("arrow") && target.matches("input")) return;
      const action = current.current[key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
}

/** Keys and what they do. */
export type Key = [names: string[], action: string];

export function KeyList({ keys }: { keys: Key[] }) {
  return (
    <details class="keys">
      <summary>Keys</summary>
      <dl>
        {keys.map(([names, action]) => (
          <div key={action}>
            <dt>
              {names.map((name) => (
                <kbd key={name}>{name}</kbd>
              ))}
            </dt>
            <dd>{action}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
