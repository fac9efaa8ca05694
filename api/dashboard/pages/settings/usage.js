// What a project uses of what it may; operators set the limits.

import { useState } from "preact/hooks";
import { json } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { bytes as fileSize, number } from "../../format.js";
import { useAction, useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";

/** quota: the limit's name; used: what of it is. */
const LIMITS = [
  { quota: "max_live_jobs", used: "live_jobs", title: "Jobs that have not ended", text: number, whole: true },
  { quota: "max_running_jobs", used: "running_jobs", title: "Jobs on the cluster", text: number, whole: true },
  { quota: "max_gpus", used: "gpus", title: "GPUs held", text: number },
  { quota: "max_gpu_hours_month", used: "gpu_hours_month", title: "GPU-hours this month (UTC)", text: number },
  { quota: "max_storage_bytes", used: "storage_bytes", title: "Storage", text: fileSize, whole: true },
];

export function ProjectUsage({ project }) {
  const { may } = useWho();
  const path = `/v1/projects/${encodeURIComponent(project)}`;
  const { data, problem, loading, refresh } = useAnswer(path, { every: 15 });
  const [editing, setEditing] = useState(false);
  if (!data) return problem ? html`<${ProblemNote} problem=${problem} />` : loading && html`<${Loading} />`;
  return html`
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    <section class="card">
      <div class="head"><h2>Use and limits</h2>
        ${may("operator") && html`<div class="actions"><button onClick=${() => setEditing(true)}>Set limits</button></div>`}</div>
      <dl class="usage">
        ${LIMITS.map(({ quota, used, title, text }) => {
          const limit = data.quota[quota];
          return html`
            <div key=${quota}>
              <dt>${title}</dt>
              <dd class="number">${text(data.usage[used])} <small>${limit === null ? "no limit" : `of ${text(limit)}`}</small></dd>
              ${limit > 0 && html`<dd><progress max=${limit} value=${Math.min(limit, data.usage[used])} aria-label=${title}></progress></dd>`}
            </div>
          `;
        })}
      </dl>
    </section>
    ${editing && html`<${Limits} path=${path} quota=${data.quota} onClose=${() => setEditing(false)} onDone=${() => (setEditing(false), refresh())} />`}
  `;
}

function Limits({ path, quota, onClose, onDone }) {
  const [run, busy, problem] = useAction();
  const submit = async (form) => {
    const asked = LIMITS.map(({ quota: name }) => [name, form.get(name) === "" ? null : Number(form.get(name))]);
    const done = await run(() => json(path, { method: "PATCH", body: { quota: Object.fromEntries(asked) } }));
    if (done) onDone();
  };
  return html`
    <${Dialog} title="Limits of the project" action="Set the limits" busy=${busy} problem=${problem} onClose=${onClose} onSubmit=${submit}>
      <p class="muted">Empty is without a limit. A lower one ends nothing that runs.</p>
      ${LIMITS.map(
        ({ quota: name, title, whole }) => html`
          <label key=${name}>${title}${name === "max_storage_bytes" ? ", in bytes" : ""}
            <input type="number" name=${name} min="0" step=${whole ? "1" : "any"} defaultValue=${quota[name] ?? ""} /></label>
        `,
      )}
    <//>
  `;
}
