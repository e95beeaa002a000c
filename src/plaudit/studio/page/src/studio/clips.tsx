import { createContext } from "preact";
import type { ComponentChildren } from "preact";
import { useContext, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { address, messageOf, request } from "../api";
import { Waveform } from "../audio/Waveform";
import { useDeck } from "../audio/useDeck";
import { clock, fixed } from "../ui/format";
import { Fault, Icon } from "../ui/parts";
import type { Clip } from "./types";

const audioOf = (clip: Clip) => address(`/clips/${clip.id}/audio`);

interface Peaks {
  peaks: number[];
  duration: number;
}

const peaksCache = new Map<string, Promise<Peaks>>();

function peaksOf(id: string): Promise<Peaks> {
  let peaks = peaksCache.get(id);
  if (!peaks) {
    peaks = request<Peaks>("GET", `/clips/${id}/peaks`);
    peaks.catch(() => peaksCache.delete(id));
    peaksCache.set(id, peaks);
  }
  return peaks;
}

/** Whether an element has been near the visible part of the page. */
function useWasVisible(): [{ current: HTMLElement | null }, boolean] {
  const element = useRef<HTMLElement>(null);
  const [wasVisible, setWasVisible] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          setWasVisible(true);
          observer.disconnect();
        }
      },
      { rootMargin: "300px" },
    );
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, []);
  return [element, wasVisible];
}

/** The audio element that plays; another one that starts stops it. */
let playing: HTMLAudioElement | null = null;

function useAudio(url: string) {
  const audio = useMemo(() => {
    const element = new Audio();
    element.preload = "none";
    element.src = url;
    return element;
  }, [url]);
  const [state, setState] = useState({ playing: false, position: 0 });
  const [error, setError] = useState("");
  useEffect(() => {
    const update = () => setState({ playing: !audio.paused, position: audio.currentTime });
    const fail = () => {
      if (audio.error) setError("This clip cannot be played. Its file may be gone.");
      update();
    };
    const names = ["play", "pause", "timeupdate", "seeked", "ended"];
    for (const name of names) audio.addEventListener(name, update);
    audio.addEventListener("error", fail);
    return () => {
      for (const name of names) audio.removeEventListener(name, update);
      audio.removeEventListener("error", fail);
      audio.pause();
      audio.removeAttribute("src");
      audio.load();
    };
  }, [audio]);
  const play = () => {
    if (playing !== audio) playing?.pause();
    playing = audio;
    setError("");
    audio.play().catch((fault) => {
      if (fault?.name === "NotAllowedError") {
        setError("Your browser is blocking sound on this page. Allow sound for this site, then press play again.");
      }
    });
  };
  const toggle = () => (audio.paused ? play() : audio.pause());
  const seek = (seconds: number) => {
    audio.currentTime = seconds;
    setState({ playing: !audio.paused, position: seconds });
  };
  return { ...state, error, toggle, seek, pause: () => audio.pause() };
}

interface Comparison {
  sides: [Clip | null, Clip | null];
  place(side: 0 | 1, clip: Clip | null): void;
}

const Comparing = createContext<Comparison | null>(null);

/** Two clips that are compared: chosen on their cards, played in step in a bar at the foot of the page. */
export function ComparisonProvider({ children }: { children: ComponentChildren }) {
  const [sides, setSides] = useState<[Clip | null, Clip | null]>([null, null]);
  const place = (side: 0 | 1, clip: Clip | null) =>
    setSides((old) => {
      const next: [Clip | null, Clip | null] = [...old];
      const other = side === 0 ? 1 : 0;
      if (clip && next[other]?.id === clip.id) next[other] = null;
      next[side] = clip;
      return next;
    });
  return (
    <Comparing.Provider value={{ sides, place }}>
      {children}
      <ComparisonBar sides={sides} place={place} />
    </Comparing.Provider>
  );
}

function ComparisonBar({ sides, place }: Comparison) {
  const [a, b] = sides;
  if (!a && !b) return null;
  return (
    <section class="comparison" aria-label="Comparison of two clips">
      {a && b ? (
        <PlayedInStep key={`${a.id} ${b.id}`} a={a} b={b} />
      ) : (
        <p>
          Clip {a ? "A" : "B"} is chosen. Choose <strong>{a ? "B" : "A"}</strong> on another clip to switch between the two
          while they play.
        </p>
      )}
      <button
        type="button"
        class="quiet small"
        onClick={() => {
          place(0, null);
          place(1, null);
        }}
      >
        Close
      </button>
    </section>
  );
}

function PlayedInStep({ a, b }: { a: Clip; b: Clip }) {
  const state = useDeck([audioOf(a), audioOf(b)]);
  const { deck } = state;
  const length = deck.duration || Math.max(a.duration ?? 0, b.duration ?? 0);
  useEffect(() => {
    playing?.pause();
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key.toLowerCase() === "a") state.play(0);
      else if (event.key.toLowerCase() === "b") state.play(1);
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [deck]);
  const side = (clip: Clip, index: number, name: string) => {
    const audible = deck.active === index;
    return (
      <button
        type="button"
        class={`in-step side-${name.toLowerCase()}`}
        aria-pressed={audible && deck.playing}
        onClick={() => (deck.playing && audible ? deck.pause() : state.play(index))}
      >
        <span class="letter">{name}</span>
        <span class="text">
          <span class="title">{clip.prompt}</span>
          <span class="small muted numeric">
            {clip.model ?? "uploaded"}
            {clip.reward !== null && ` · reward ${fixed(clip.reward)}`}
          </span>
        </span>
        <Icon name={deck.playing && audible ? "pause" : "play"} />
      </button>
    );
  };
  return (
    <div class="grow stack tight">
      <div class="in-steps">
        {side(a, 0, "A")}
        {side(b, 1, "B")}
      </div>
      <div class="row nowrap">
        <input
          class="grow"
          type="range"
          min={0}
          max={length || 1}
          step={0.1}
          value={deck.position}
          aria-label="Position of both clips"
          aria-valuetext={`${clock(deck.position)} of ${clock(length)}`}
          onInput={(event) => deck.seek(Number(event.currentTarget.value))}
        />
        <span class="small muted numeric">
          {clock(deck.position)} / {clock(length)}
        </span>
        <span class="small muted wide-only">
          <kbd>A</kbd> <kbd>B</kbd> switch
        </span>
      </div>
      <Fault error={state.error} />
    </div>
  );
}

interface ClipCardProps {
  clip: Clip;
  onChange(clip: Clip): void;
  onUseSettings?: (clip: Clip) => void;
  best?: boolean;
}

export function ClipCard({ clip, onChange, onUseSettings, best }: ClipCardProps) {
  const [box, wasVisible] = useWasVisible();
  const [peaks, setPeaks] = useState<Peaks | null>(null);
  const [error, setError] = useState("");
  const audio = useAudio(audioOf(clip));
  const comparison = useContext(Comparing);
  useEffect(() => {
    if (wasVisible) peaksOf(clip.id).then(setPeaks, (fault) => setError(messageOf(fault)));
  }, [wasVisible, clip.id]);

  const mark = (status: Clip["status"]) => {
    setError("");
    if (status === "discarded") audio.pause();
    request<Clip>("PATCH", `/clips/${clip.id}`, { status }).then(onChange, (fault) => setError(messageOf(fault)));
  };
  const settings = clip.settings ?? {};
  const facts = [
    clip.model ?? "uploaded",
    clip.seed !== null && `seed ${clip.seed}`,
    settings.score !== undefined && settings.score !== null && `score ${settings.score}`,
    settings.guidance !== undefined && settings.guidance !== null && `guidance ${settings.guidance}`,
    clip.duration !== null && clock(clip.duration),
  ].filter(Boolean);
  const name = `${clip.prompt}${clip.seed !== null ? `, seed ${clip.seed}` : ""}`;
  return (
    <article ref={box as never} class={`clip ${clip.status}`} aria-label={name}>
      <div class="clip-head">
        <button
          type="button"
          class="round primary"
          aria-label={`${audio.playing ? "Pause" : "Play"} ${name}`}
          onClick={audio.toggle}
        >
          <Icon name={audio.playing ? "pause" : "play"} size={18} />
        </button>
        <div class="grow">
          <p class="title">{clip.prompt}</p>
          <p class="small muted numeric">{facts.join(" · ")}</p>
        </div>
        {(clip.reward !== null || clip.clap !== null) && (
          <dl class="scores">
            <div class={best ? "best" : ""}>
              <dt>Reward</dt>
              <dd class="numeric">{fixed(clip.reward)}</dd>
            </div>
            <div>
              <dt>CLAP</dt>
              <dd class="numeric">{fixed(clip.clap)}</dd>
            </div>
          </dl>
        )}
      </div>
      <div class="pictures">
        {peaks ? (
          <Waveform peaks={peaks.peaks} duration={peaks.duration} position={audio.position} label={name} onSeek={audio.seek} />
        ) : (
          <div class="waveform-space" />
        )}
        {wasVisible && (
          <img
            class="spectrogram"
            src={address(`/clips/${clip.id}/spectrogram.png`)}
            alt={`Spectrogram of ${name}`}
            loading="lazy"
            width="640"
            height="64"
          />
        )}
      </div>
      <Fault error={error || audio.error} />
      <div class="row clip-actions">
        {clip.status === "discarded" ? (
          <button type="button" class="small" onClick={() => mark("new")}>
            Restore
          </button>
        ) : (
          <>
            <button
              type="button"
              class="small"
              aria-pressed={clip.status === "kept"}
              onClick={() => mark(clip.status === "kept" ? "new" : "kept")}
            >
              {clip.status === "kept" ? (
                <>
                  <Icon name="check" size={14} /> Kept
                </>
              ) : (
                "Keep"
              )}
            </button>
            <button type="button" class="small quiet" onClick={() => mark("discarded")}>
              Discard
            </button>
          </>
        )}
        {onUseSettings && clip.model !== null && (
          <button type="button" class="small quiet" onClick={() => onUseSettings(clip)}>
            Use these settings
          </button>
        )}
        <a class="button small quiet" href={address(`/clips/${clip.id}/download`)} download>
          <Icon name="download" size={14} />
          Download
        </a>
        {comparison && (
          <span class="row compare-choice" role="group" aria-label="Compare as">
            <span class="small muted">Compare</span>
            {([0, 1] as const).map((side) => (
              <button
                key={side}
                type="button"
                class={`small letter side-${side ? "b" : "a"}`}
                aria-pressed={comparison.sides[side]?.id === clip.id}
                aria-label={`Compare as ${side ? "B" : "A"}`}
                onClick={() => comparison.place(side, comparison.sides[side]?.id === clip.id ? null : clip)}
              >
                {side ? "B" : "A"}
              </button>
            ))}
          </span>
        )}
      </div>
    </article>
  );
}
