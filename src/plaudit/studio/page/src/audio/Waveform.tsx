import { useEffect, useRef } from "preact/hooks";
import WaveSurfer from "wavesurfer.js";
import { clock } from "../ui/format";

interface Props {
  peaks: number[];
  duration: number;
  position: number;
  label: string;
  height?: number;
  onSeek(seconds: number): void;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return {
    waveColor: style.getPropertyValue("--wave").trim(),
    progressColor: style.getPropertyValue("--wave-played").trim(),
    cursorColor: style.getPropertyValue("--text").trim(),
  };
}

/** Moves the style that the build keeps in a template (see vite.config.ts) to where the security policy allows it. */
function adoptStyle(surfer: WaveSurfer): void {
  const root = surfer.getWrapper().getRootNode() as ShadowRoot;
  const template = root.querySelector("template");
  if (!template) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(template.content.textContent ?? "");
  root.adoptedStyleSheets = [sheet];
  template.remove();
}

/** A waveform drawn from peaks that the server computed: the audio itself is not loaded for it. */
export function Waveform({ peaks, duration, position, label, height = 56, onSeek }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const surfer = useRef<WaveSurfer | null>(null);
  const seek = useRef(onSeek);
  seek.current = onSeek;

  useEffect(() => {
    const wave = WaveSurfer.create({
      container: box.current!,
      peaks: [peaks],
      duration,
      height,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
      cursorWidth: 1,
      hideScrollbar: true,
      ...colours(),
    });
    adoptStyle(wave);
    wave.on("interaction", (seconds) => seek.current(seconds));
    surfer.current = wave;
    const theme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => wave.setOptions(colours());
    theme.addEventListener("change", repaint);
    return () => {
      theme.removeEventListener("change", repaint);
      surfer.current = null;
      wave.destroy();
    };
  }, [peaks, duration, height]);

  useEffect(() => {
    surfer.current?.setTime(position);
  }, [position, peaks]);

  const keys = (event: KeyboardEvent) => {
    const step = event.shiftKey ? 5 : 1;
    const keySteps: Record<string, number> = {
      ArrowLeft: position - step,
      ArrowDown: position - step,
      ArrowRight: position + step,
      ArrowUp: position + step,
      Home: 0,
      End: duration,
    };
    const target = keySteps[event.key];
    if (target === undefined) return;
    event.preventDefault();
    onSeek(Math.max(0, Math.min(duration, target)));
  };

  return (
    <div
      ref={box}
      class="waveform"
      role="slider"
      tabIndex={0}
      aria-label={`Position in ${label}`}
      aria-valuemin={0}
      aria-valuemax={Math.round(duration * 10) / 10}
      aria-valuenow={Math.round(position * 10) / 10}
      aria-valuetext={`${clock(position)} of ${clock(duration)}`}
      onKeyDown={keys}
    />
  );
}
