// What can be asked as a model: the names that models were promoted to, and the models that jobs made.

import { useState } from "preact/hooks";
import { json } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useWho } from "../components/who.js";
import { Moment } from "../format.js";
import { useAction, useAnswer, useTitle } from "../hooks.js";
import { html } from "../ui.js";
import { Gates } from "./models/gates.js";

const REFRESH_EVERY_S = 10;
const jobOf = (id) => id.match(/^(?:base:|job:)?(job-[0-9a-f]{21})/)?.[1];

export default function Models() {
  useTitle("Models");
  const { data, problem, loading, refresh } = useAnswer("/v1/models", { every: REFRESH_EVERY_S });
  const [shown, setShown] = useState(null); // the name whose history is open
  return html`
    <div class="head"><h1>Models</h1></div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!data && loading && html`<${Loading} rows=${5} label="Loading the models…" />`}
    ${data?.data.length === 0 &&
    html`<div class="card"><${Empty} title="No models yet."><p>A job that succeeds has one; its page promotes it to a name.</p><//></div>`}
    ${data?.data.length > 0 &&
    html`
      <div class="card flush table-box" tabindex="0" role="region" aria-label="Models">
        <table>
          <thead><tr><th>Model</th><th>Job</th><th>Started from</th><th class="number">Made</th><th><span class="visually-hidden">History</span></th></tr></thead>
          <tbody>
            ${data.data.map(({ id, name, base, created }) => {
              const job = jobOf(id);
              return html`
                <tr key=${id}>
                  <td><code>${id}</code></td>
                  <td>${job ? html`<a href="/jobs/${job}">${name ?? job}</a>` : name}</td>
                  <td><code>${base}</code></td>
                  <td class="number"><${Moment} at=${new Date(1000 * created).toISOString()} /></td>
                  <td class="number">${!job && html`<button aria-label="History of ${id}" onClick=${() => setShown(id)}>History</button>`}</td>
                </tr>
              `;
            })}
          </tbody>
        </table>
      </div>
    `}
    <${Gates} />
    ${shown && html`<${History} name=${shown} onClose=${() => setShown(null)} onDone=${refresh} />`}
  `;
}

/** What a name meant, newest first; members go back to what it meant before. */
function History({ name, onClose, onDone }) {
  const { may } = useWho();
  const path = `/v1/models/${encodeURIComponent(name)}`;
  const { data, problem, refresh } = useAnswer(`${path}/promotions`, { every: 3 });
  const [run, busy, failed] = useAction();
  const rollBack = async () => {
    const done = await run(() => json(`${path}/rollback`, { method: "POST" }));
    if (done) (refresh(), onDone());
  };
  const past = data?.data.some(({ state }) => state === "past");
  return html`
    <${Dialog} title="What ${name} means" wide action=${may("member") && past ? "Roll back" : undefined} busy=${busy} problem=${failed ?? problem}
        onClose=${onClose} onSubmit=${rollBack}>
      ${!data && !problem && html`<${Loading} />`}
      ${data &&
      html`<div class="table-box" tabindex="0" role="region" aria-label="Promotions"><table>
        <thead><tr><th>Model</th><th>State</th><th class="number">Promoted</th></tr></thead>
        <tbody>
          ${data.data.map(
            (one) => html`
              <tr key=${one.id}>
                <td><a href="/jobs/${one.job_id}"><code>${one.model}</code></a></td>
                <td>${one.state}${one.message && html` <small>${one.message}</small>`}</td>
                <td class="number"><${Moment} at=${one.created_at} /></td>
              </tr>
            `,
          )}
        </tbody>
      </table></div>`}
    <//>
  `;
}
