// The checkpoints of a job: what was measured at their steps, and the models that are made of them.

import { useEffect, useState } from "preact/hooks";
import { json } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { bytes as fileSize, Moment, number } from "../../format.js";
import { useAction, useAnswer, useChange } from "../../hooks.js";
import { html } from "../../ui.js";

const SHOWN = ["loss", "rewards/margins", "rewards/accuracies"];
const LOOK_AGAIN_S = 3;
const UNDER_WAY = new Set(["requested", "running"]);

export function Checkpoints({ job, events }) {
  const { may } = useWho();
  const path = `/v1/jobs/${job.id}/checkpoints`;
  const [every, setEvery] = useState(0);
  const { data, problem, refresh } = useAnswer(path, { every });
  const [run, busy, failed, forget] = useAction();
  const [promoting, setPromoting] = useState(null); // {step}; null for what the job published
  const saved = events.filter(({ type }) => type === "checkpoint.saved").length;
  const exporting = data?.data.some(({ export: made }) => made && UNDER_WAY.has(made.state)) ?? false;
  useEffect(() => setEvery(exporting ? LOOK_AGAIN_S : 0), [exporting]);
  useChange(refresh, [saved, job.state]);

  const act = (step, method, what) => run(() => json(`${path}/${step}/${what}`, { method })).then(refresh);
  const promote = async (form) => {
    const name = form.get("name").trim();
    const body = { job: job.id, ...(promoting.step && { step: promoting.step }) };
    const made = await run(() => json(`/v1/models/${encodeURIComponent(name)}/promote`, { method: "POST", body }));
    if (made) (setPromoting(null), refresh());
  };
  const checkpoints = data?.data ?? [];
  if (!problem && checkpoints.length === 0 && job.state !== "succeeded") return null;
  return html`
    <section class="card">
      <div class="head">
        <h2>Models and checkpoints</h2>
        ${may("member") && job.state === "succeeded" &&
        html`<div class="actions"><button onClick=${() => setPromoting({})}>Promote the model</button></div>`}
      </div>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      ${failed && !promoting && html`<${ProblemNote} problem=${failed} />`}
      ${checkpoints.length === 0 && !problem && html`<p class="muted">No checkpoint is left; the model is there.</p>`}
      ${checkpoints.length > 0 &&
      html`
        <div class="table-box" tabindex="0" role="region" aria-label="Checkpoints">
          <table>
            <thead>
              <tr>
                <th class="number">Step</th><th>Saved</th><th class="number">Size</th>
                ${SHOWN.map((name) => html`<th key=${name} class="number">${name}</th>`)}
                <th>Model</th>
              </tr>
            </thead>
            <tbody>
              ${checkpoints.map(
                (one) => html`
                  <tr key=${one.step}>
                    <td class="number">${number(one.step)}</td>
                    <td class="nowrap"><${Moment} at=${one.saved_at} /></td>
                    <td class="number">${fileSize(one.bytes)}</td>
                    ${SHOWN.map((name) => html`<td key=${name} class="number">${number((one.metrics.held_out ?? one.metrics.train)?.[name])}</td>`)}
                    <td>
                      <${Model} made=${one.export} />
                      ${may("member") &&
                      html`<div class="actions">
                        ${(!one.export || one.export.state === "failed") &&
                        html`<button disabled=${busy} aria-label="Make a model of step ${one.step}" onClick=${() => act(one.step, "POST", "export")}>Make a model</button>`}
                        ${one.export?.state === "ready" &&
                        html`
                          <button disabled=${busy} aria-label="Serve step ${one.step}" onClick=${() => act(one.step, "POST", "deployment")}>Serve</button>
                          <button aria-label="Promote step ${one.step}" onClick=${() => setPromoting({ step: one.step })}>Promote</button>
                        `}
                      </div>`}
                    </td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>
      `}
      ${promoting &&
      html`<${Dialog} title="Promote ${promoting.step ? `step ${promoting.step}` : "the model"}" action="Promote it" busy=${busy} problem=${failed}
          onClose=${() => (forget(), setPromoting(null))} onSubmit=${promote}>
        <p>A stable name means this model as soon as it answers; until then it means what it meant before.</p>
        <label>Name <input name="name" required pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="63" autocomplete="off"
            title="Lower-case letters, digits, '.', '_' and '-'" placeholder="support" /></label>
      <//>`}
    </section>
  `;
}

function Model({ made }) {
  if (!made) return null;
  return html`
    <span class="state ${made.state}">${made.state}</span>
    ${made.state === "ready" ? html` <code>${made.model}</code>` : made.message && html` <small>${made.message}</small>`}
  `;
}
