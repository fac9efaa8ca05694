// Numbers, times and states as people read them.

import { html } from "./ui.js";

export const TERMINAL = new Set(["succeeded", "failed", "cancelled"]);

/** Seconds as "42 s", "3 min 10 s", "2 h 5 min". */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}\u00a0s`; // no line ends between a number and its unit
  if (s < 600) return `${Math.floor(s / 60)}\u00a0min ${s % 60}\u00a0s`;
  const minutes = Math.round(s / 60);
  if (minutes < 60) return `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}\u00a0h ${minutes % 60}\u00a0min` : `${Math.floor(hours / 24)}\u00a0d ${hours % 24}\u00a0h`;
}

/** Seconds between two ISO times; each defaults to now. */
export const secondsBetween = (from, to) => (at(to) - at(from)) / 1000;
const at = (time) => (time ? Date.parse(time) : Date.now());

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0) return `−${number(-value)}`;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (value !== 0 && (value < 1e-3 || value >= 1e6)) return value.toExponential(2);
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** "1.20 GB" */
export function bytes(n) {
  const power = n < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(n) / 3));
  return `${power === 0 ? n : (n / 1000 ** power).toPrecision(3)} ${UNITS[power]}`;
}

/** Whether the total is not known yet: rows are counted while they are read. */
export const isOpen = ({ done, total }) => total === 0 && done > 0;

/** "1,204 of 2,312 pairs"; without a total, what is done so far. A stage that found its work done has none to do. */
export function doneOf({ done, total, unit }) {
  if (isOpen({ done, total })) return count(done, unit);
  if (total === 0) return `no ${unit} left to do`;
  if (unit === "bytes") return `${bytes(done)} of ${bytes(total)}`;
  return `${done.toLocaleString("en")} of ${count(total, unit)}`;
}

export const count = (n, unit) => `${n.toLocaleString("en")} ${n === 1 ? unit.replace(/s$/, "") : unit}`;

/** A moment: today as the time, else with the day. The tooltip has it whole, in UTC. */
export function Moment({ at, seconds = false }) {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const time = { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }), hourCycle: "h23" };
  const text = date.toLocaleString("en-GB", today ? time : { day: "numeric", month: "short", ...time });
  return html`<time datetime=${at} title=${at}>${text}</time>`;
}

export const State = ({ state }) => html`<span class="state ${state}">${state}</span>`;

export const jobTitle = (job) => job.name ?? job.spec.name ?? job.id;

const NEUTRAL = new Set([0, false, null, "none", "reverse_kl"]); // options that change nothing

/** "sigmoid (beta 0.1) + 0.5 × sft" */
export const lossText = (losses) =>
  losses
    .map(({ type, weight = 1, ...rest }) => {
      const set = Object.entries(rest).filter(([, value]) => !NEUTRAL.has(value));
      const factor = weight === 1 ? "" : `${weight} × `;
      return factor + type + (set.length ? ` (${set.map(([name, value]) => `${name} ${value}`).join(", ")})` : "");
    })
    .join(" + ");
