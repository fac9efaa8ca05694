// For operators: every project, and new ones.

import { json } from "../../api.js";
import { More, useList } from "../../components/more.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { Moment } from "../../format.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

export function Projects() {
  const { rows, problem, loading, refresh, rest } = useList("/v1/projects");
  const [run, busy, failed] = useAction();
  const add = async (event) => {
    event.preventDefault();
    const form = event.target;
    const done = await run(() => json("/v1/projects", { method: "POST", body: { id: new FormData(form).get("id").trim() } }));
    if (done) (form.reset(), refresh());
  };
  return html`
    ${(problem ?? failed) && html`<${ProblemNote} problem=${problem ?? failed} />`}
    <form class="bar card" onSubmit=${add}>
      <label>ID of a new project <input name="id" required maxlength="200" autocomplete="off" /></label>
      <button class="primary" disabled=${busy}>Make the project</button>
    </form>
    ${!rows && loading && html`<${Loading} />`}
    ${rows &&
    html`<div class="card flush table-box" tabindex="0" role="region" aria-label="Projects"><table>
      <thead><tr><th>Project</th><th>Limits</th><th class="number">Made</th></tr></thead>
      <tbody>
        ${rows.map(
          ({ id, quota, created_at }) => html`
            <tr key=${id}>
              <td><a href="/settings?project=${encodeURIComponent(id)}">${id}</a></td>
              <td><small>${limits(quota) || "none"}</small></td>
              <td class="number"><${Moment} at=${created_at} /></td>
            </tr>
          `,
        )}
      </tbody>
    </table></div>`}
    <${More} rest=${rest} />
  `;
}

const limits = (quota) =>
  Object.entries(quota)
    .filter(([, limit]) => limit !== null)
    .map(([name, limit]) => `${name} ${limit.toLocaleString("en")}`)
    .join(", ");
