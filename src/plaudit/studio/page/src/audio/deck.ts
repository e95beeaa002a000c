/** Plays tracks in step: all run at the same position, one of them is audible. */

class SoundBlocked extends Error {
  constructor() {
    super(
      "Your browser is blocking sound on this page. Allow sound for this site (usually an icon beside the address), " +
        "then press play again.",
    );
  }
}

const RESUME_SECONDS = 1.5;
const FADE_SECONDS = 0.015;

/** Made on the first press of play: browsers let a page start sound only then. */
let shared: AudioContext | null = null;

async function audibleContext(): Promise<AudioContext> {
  shared ??= new AudioContext();
  const context = shared;
  if (context.state !== "running") {
    await Promise.race([
      context.resume().catch(() => undefined),
      new Promise((resolve) => setTimeout(resolve, RESUME_SECONDS * 1000)),
    ]);
  }
  if ((context.state as string) !== "running") throw new SoundBlocked();
  return context;
}

interface Track {
  data: ArrayBuffer | null;
  buffer: AudioBuffer | null;
}

interface Voice {
  source: AudioBufferSourceNode;
  gain: GainNode;
}

export class Deck {
  readonly listened: number[];
  active = 0;
  playing = false;
  duration = 0;
  private tracks: Track[];
  private voices: Voice[] = [];
  private context: AudioContext | null = null;
  private offset = 0;
  private startedAt = 0;
  private countedTo = 0;
  private timer = 0;
  private closed = false;
  private starting = 0;

  constructor(
    private readonly urls: string[],
    private readonly onChange: () => void,
  ) {
    this.tracks = urls.map(() => ({ data: null, buffer: null }));
    this.listened = urls.map(() => 0);
  }

  /** Fetches every track, so that play starts at once. */
  async load(): Promise<void> {
    await Promise.all(
      this.urls.map(async (url, index) => {
        const track = this.tracks[index]!;
        if (track.data || track.buffer) return;
        const response = await fetch(url, { credentials: "same-origin" }).catch(() => null);
        if (!response?.ok) throw new Error("A clip could not be loaded. Check the connection and try again.");
        track.data = await response.arrayBuffer();
      }),
    );
  }

  private async decode(context: AudioContext): Promise<void> {
    await Promise.all(
      this.tracks.map(async (track) => {
        if (track.buffer) return;
        try {
          track.buffer = await context.decodeAudioData(track.data!);
        } catch {
          throw new Error("Your browser cannot decode this audio. Please try another browser.");
        }
        track.data = null;
      }),
    );
    this.duration = Math.max(...this.tracks.map((track) => track.buffer!.duration));
  }

  get position(): number {
    if (!this.playing || !this.context) return this.offset;
    const elapsed = Math.max(0, this.context.currentTime - this.startedAt);
    return Math.min(this.offset + elapsed, this.duration);
  }

  /** Plays a track; while another plays, only switches, at the same position. */
  async play(index = this.active): Promise<void> {
    if (this.playing) {
      this.switchTo(index);
      return;
    }
    this.active = index;
    const attempt = ++this.starting;
    const context = await audibleContext();
    await this.load();
    await this.decode(context);
    if (this.closed || this.playing || attempt !== this.starting) return;
    this.context = context;
    if (this.offset >= this.duration - 0.02) this.offset = 0;
    this.start();
  }

  private start(): void {
    const context = this.context!;
    this.startedAt = context.currentTime + 0.02;
    this.countedTo = this.startedAt;
    this.voices = this.tracks.map((track, index) => {
      const source = context.createBufferSource();
      source.buffer = track.buffer;
      const gain = context.createGain();
      gain.gain.value = index === this.active ? 1 : 0;
      source.connect(gain).connect(context.destination);
      source.start(this.startedAt, Math.min(this.offset, track.buffer!.duration));
      return { source, gain };
    });
    this.playing = true;
    this.timer = window.setInterval(() => this.tick(), 50);
    this.onChange();
  }

  private count(): void {
    const now = Math.min(this.context!.currentTime, this.startedAt + this.duration - this.offset);
    const seconds = now - this.countedTo;
    if (seconds > 0) {
      this.listened[this.active]! += seconds;
      this.countedTo = now;
    }
  }

  private tick(): void {
    this.count();
    if (this.position >= this.duration) {
      this.stop();
      this.offset = 0;
    }
    this.onChange();
  }

  private stop(): void {
    window.clearInterval(this.timer);
    for (const voice of this.voices) {
      voice.source.stop();
      voice.source.disconnect();
      voice.gain.disconnect();
    }
    this.voices = [];
    this.playing = false;
  }

  pause(): void {
    this.starting++;
    if (this.playing) {
      this.count();
      this.offset = this.position;
      this.stop();
    }
    this.onChange();
  }

  switchTo(index: number): void {
    if (this.playing && index !== this.active) {
      this.count();
      const now = this.context!.currentTime;
      this.voices.forEach((voice, other) => {
        voice.gain.gain.setTargetAtTime(other === index ? 1 : 0, now, FADE_SECONDS / 3);
      });
    }
    this.active = index;
    this.onChange();
  }

  seek(seconds: number): void {
    const again = this.playing;
    if (again) {
      this.count();
      this.stop();
    }
    this.offset = Math.max(0, this.duration ? Math.min(seconds, this.duration) : seconds);
    if (again) this.start();
    this.onChange();
  }

  close(): void {
    this.closed = true;
    this.starting++;
    if (this.playing) this.stop();
  }
}
