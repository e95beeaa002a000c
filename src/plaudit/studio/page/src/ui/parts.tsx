import type { ComponentChildren, VNode } from "preact";
import { cloneElement } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

const ICONS = {
  play: "M5 3.5v11l9-5.5z",
  pause: "M4.5 3.5h3v11h-3zM10.5 3.5h3v11h-3z",
  download: "M8.2 2h1.6v7l2.6-2.6 1.1 1.1L9 12 4.5 7.5l1.1-1.1L8.2 9zM3 14h12v1.6H3z",
  plus: "M8.2 3h1.6v5.2H15v1.6H9.8V15H8.2V9.8H3V8.2h5.2z",
  check: "M7 12.2 3.8 9l-1.2 1.1L7 14.5l8.4-8.4-1.2-1.1z",
  cross: "m4.6 3.5 4.4 4.4 4.4-4.4 1.1 1.1L10.1 9l4.4 4.4-1.1 1.1L9 10.1l-4.4 4.4-1.1-1.1L7.9 9 3.5 4.6z",
  clock: "M9 2a7 7 0 1 1 0 14A7 7 0 0 1 9 2zm0 1.6a5.4 5.4 0 1 0 0 10.8A5.4 5.4 0 0 0 9 3.6zm.8 1.9v3.2l2.2 2.2-1.1 1.1-2.7-2.7V5.5z",
  retry: "M9 3a6 6 0 0 1 4.4 2V2.8H15v5H10V6.2h2.4A4.4 4.4 0 1 0 13.4 9H15a6 6 0 1 1-6-6z",
  warning: "M9 2 17 16H1zm0 3.4L3.8 14.4h10.4zM8.2 8h1.6v3H8.2zm0 4h1.6v1.5H8.2z",
} as const;

export type IconName = keyof typeof ICONS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg viewBox="0 0 18 18" width={size} height={size} fill="currentColor" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

export function Notice({ kind = "", children }: { kind?: "" | "error" | "warning" | "good"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"}>
      {children}
    </div>
  );
}

export function Fault({ error, retry }: { error: string; retry?: () => void }) {
  if (!error) return null;
  return (
    <div class="notice error row apart" role="alert">
      <span class="grow">{error}</span>
      {retry && (
        <button type="button" class="small" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="muted" role="status">
      Loading {what}…
    </p>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  error?: string;
  children: VNode;
}

/** A labelled control with a hint; label and hint are bound to it for screen readers. */
export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  const described = hint || error ? `${id}-hint` : undefined;
  return (
    <div class="field">
      <label htmlFor={id}>{label}</label>
      {cloneElement(children, { id, "aria-describedby": described, "aria-invalid": error ? "true" : undefined })}
      {(error || hint) && (
        <span class="hint" id={described}>
          {error || hint}
        </span>
      )}
    </div>
  );
}

interface ControlProps {
  id?: string;
  value: string;
  required?: boolean;
  disabled?: boolean;
  class?: string;
  "aria-label"?: string;
  onChange(value: string): void;
}

interface InputProps extends ControlProps {
  type: "text" | "number" | "search" | "password";
  placeholder?: string;
  maxLength?: number;
  min?: string;
  max?: string;
  step?: string;
  autocomplete?: "current-password";
}

export function Input({ type, onChange, ...rest }: InputProps) {
  // The types of Preact want one literal.
  return <input type={type as "text"} {...rest} onInput={(event) => onChange(event.currentTarget.value)} />;
}

interface SelectProps extends ControlProps {
  /** Values and labels. */
  options: readonly (readonly [string, string])[];
  /** What it says while nothing is chosen; absent where something always is. */
  placeholder?: string;
}

export function Select({ options, placeholder, onChange, ...rest }: SelectProps) {
  return (
    <select {...rest} onChange={(event) => onChange(event.currentTarget.value)}>
      {placeholder !== undefined && <option value="">{placeholder}</option>}
      {options.map(([value, label]) => (
        <option key={value} value={value}>
          {label}
        </option>
      ))}
    </select>
  );
}

export function Form({ onSubmit, class: style, children }: { onSubmit(): void; class: string; children: ComponentChildren }) {
  return (
    <form
      class={style}
      onSubmit={(event) => {
        event.preventDefault();
        onSubmit();
      }}
    >
      {children}
    </form>
  );
}

interface TableProps {
  label: string;
  head: ComponentChildren;
  children: ComponentChildren;
  short?: boolean;
}

/** A table that scrolls sideways, by keyboard too, where the window is narrow. */
export function Table({ label, head, children, short }: TableProps) {
  return (
    <div class={`table-box ${short ? "short" : ""}`} tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>{head}</tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

interface ChoiceProps {
  label: ComponentChildren;
  hint?: ComponentChildren;
  checked: boolean;
  onChange(checked: boolean): void;
  type?: "checkbox" | "radio";
  name?: string;
  disabled?: boolean;
}

export function Choice({ label, hint, checked, onChange, type = "checkbox", name, disabled }: ChoiceProps) {
  return (
    <label class="choice">
      <input
        type={type}
        name={name}
        checked={checked}
        disabled={disabled}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      <span>
        {label}
        {hint && <span class="hint-line">{hint}</span>}
      </span>
    </label>
  );
}

/** The head of a page. It takes the focus when the page is opened, so that keyboards and screen readers start there. */
export function Heading({ title, children, intro }: { title: string; intro?: ComponentChildren; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Plaudit studio`;
  }, [title]);
  useEffect(() => {
    if (document.activeElement === document.body || document.activeElement?.closest("nav")) {
      heading.current?.focus({ preventScroll: true });
    }
  }, []);
  return (
    <header class="page-head">
      <div class="row apart">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children && <div class="row">{children}</div>}
      </div>
      {intro && <p class="muted prose">{intro}</p>}
    </header>
  );
}

export function Definitions({ items }: { items: [string, ComponentChildren][] }) {
  return (
    <dl class="definitions">
      {items.map(([term, value]) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd class="numeric">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
