export interface ListenerSession {
  state: "consent" | "screening" | "listening" | "completed" | "screened-out" | "closed";
  kind: "preference" | "rating";
  question: string;
  instructions: string;
  consent: string;
  screening: "none" | "huggins" | "antiphase";
  minimum_listening: number;
  ties: boolean;
  both_bad: boolean;
  strength: boolean;
  comment: boolean;
  answered: number;
  total: number;
  completion_code: string | null;
}

export interface Enrolment {
  listener: string;
  csrf: string;
  session: ListenerSession;
}

export interface ScreeningState {
  kind: "huggins" | "antiphase";
  question: string;
  sounds: number;
  /** One address a trial; the sounds of a trial follow each other in it. */
  audio: string[];
  attempts_left: number;
  passed: boolean | null;
}

export interface NextPair {
  kind: "pair";
  assignment: string;
  position: number;
  total: number;
  practice: boolean;
  prompt: string | null;
  left: string;
  right: string;
  seconds: number;
  minimum_listening: number;
}

export interface NextPage {
  kind: "page";
  assignment: string;
  position: number;
  total: number;
  prompt: string | null;
  reference: string | null;
  clips: { id: string; audio: string }[];
  seconds: number;
  minimum_listening: number;
}

export interface Completed {
  kind: "completed";
  completion_code: string;
}

export type NextItem = NextPair | NextPage | Completed;

export type Choice = "left" | "right" | "tie" | "both_bad";
