// What a page says when there is nothing to show: loading, empty, failed.

import { html } from "../ui.js";

/** A problem as the API (or the network) gave it: title, what to do, and the stable code. */
export function ProblemNote({ problem }) {
  const rows = problem.errors ?? [];
  return html`
    <div class="note bad" role="alert">
      <p><strong>${problem.title}</strong> ${problem.code && html`<code>${problem.code}</code>`}</p>
      ${problem.detail && html`<p>${problem.detail}</p>`}
      ${rows.length > 0 &&
      html`<ul>${rows.map((row) => html`<li key=${row.field}><code>${row.field}</code> ${row.message}</li>`)}</ul>`}
    </div>
  `;
}

/** Rows of the size of what is to come, so that the page does not jump. */
export const Loading = ({ rows = 3, label = "Loading…" }) => html`
  <div class="loading" role="status">
    <span class="visually-hidden">${label}</span>
    ${Array.from({ length: rows }, (_, index) => html`<div key=${index} class="bone"></div>`)}
  </div>
`;

/** Nothing there yet: what it is, and how to get the first one. */
export const Empty = ({ title, children }) => html`
  <div class="empty"><p class="empty-title">${title}</p>${children}</div>
`;
