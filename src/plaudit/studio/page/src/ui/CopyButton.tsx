import { useState } from "preact/hooks";

interface Props {
  text: string;
  /** The element that shows the text; it is selected where the page may not use the clipboard (without https). */
  shownIn: string;
  label: string;
  class?: string;
}

export function CopyButton({ text, shownIn, label, class: style }: Props) {
  const [line, setLine] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setLine("Copied");
    } catch {
      getSelection()?.selectAllChildren(document.getElementById(shownIn)!);
      setLine("Selected; copy it with the keyboard");
    }
  };
  return (
    <>
      <button type="button" class={style} aria-label={label} onClick={() => void copy()}>
        Copy
      </button>
      <span role="status" class="small muted">
        {line}
      </span>
    </>
  );
}
