// Preact's core with htm as its template language. Components are classes: hooks would need an import map, and an
// inline import map would need a hole in the content security policy.

import { Component, createRef, h, render } from "./vendor/preact-11.2.0/preact.mjs";
import htm from "./vendor/htm-3.1.1/htm.module.js";

export { Component, createRef, render };

export const html = htm.bind(h);

/** A problem as the API (or the network) gave it: title, what to do, and the stable code. */
export function ProblemNote({ problem }) {
  const rows = problem.errors ?? [];
  return html`
    <div class="note bad" role="alert">
      <p><strong>${problem.title}</strong> <code>${problem.code}</code></p>
      ${problem.detail && html`<p>${problem.detail}</p>`}
      ${rows.length > 0 && html`<ul>${rows.map((row) => html`<li><code>${row.field}</code> ${row.message}</li>`)}</ul>`}
    </div>
  `;
}

/** Runs `tick` now, then every `seconds`, but never while the page is hidden; stops with `signal`. */
export function everyWhileVisible(seconds, tick, signal) {
  const run = () => document.hidden || tick();
  const timer = setInterval(run, seconds * 1000);
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearInterval(timer));
  run();
}
