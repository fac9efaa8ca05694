// Who works in the project, and as what.

import { json } from "../../api.js";
import { More, useList } from "../../components/more.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { Moment } from "../../format.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

const ROLES = ["viewer", "member", "admin"];

export function Members({ project }) {
  const of = `?project=${encodeURIComponent(project)}`;
  const { rows, problem, loading, refresh, rest } = useList(`/v1/members${of}`);
  const [run, busy, failed] = useAction();
  const set = async (user, role) => {
    const done = await run(() => json(`/v1/members${of}`, { method: "POST", body: { user, role } }));
    refresh();
    return done;
  };
  const remove = (id) => run(() => json(`/v1/members/${id}${of}`, { method: "DELETE" })).then(refresh);
  const add = async (event) => {
    event.preventDefault();
    const form = event.target;
    const asked = new FormData(form);
    const added = await set(asked.get("user").trim(), asked.get("role"));
    if (added) form.reset();
  };
  return html`
    ${(problem ?? failed) && html`<${ProblemNote} problem=${problem ?? failed} />`}
    <form class="bar card" onSubmit=${add}>
      <label>User, a short name or an e-mail address <input name="user" required maxlength="200" autocomplete="off" /></label>
      <label>Role <${RoleSelect} name="role" defaultValue="member" /></label>
      <button class="primary" disabled=${busy}>Add member</button>
    </form>
    ${!rows && loading && html`<${Loading} />`}
    ${rows &&
    html`<div class="card flush table-box" tabindex="0" role="region" aria-label="Members"><table>
      <thead><tr><th>User</th><th>Role</th><th>Since</th><th><span class="visually-hidden">Remove</span></th></tr></thead>
      <tbody>
        ${rows.length === 0 && html`<tr><td colspan="4" class="muted">Nobody yet: keys without a user are in Keys.</td></tr>`}
        ${rows.map(
          ({ id, user, role, created_at }) => html`
            <tr key=${id}>
              <td>${user}</td>
              <td><${RoleSelect} aria-label="Role of ${user}" value=${role} disabled=${busy} onChange=${(event) => set(user, event.target.value)} /></td>
              <td><${Moment} at=${created_at} /></td>
              <td class="number"><button class="danger quiet" disabled=${busy} onClick=${() => remove(id)} aria-label="Remove ${user}">Remove</button></td>
            </tr>
          `,
        )}
      </tbody>
    </table></div>`}
    <${More} rest=${rest} />
  `;
}

const RoleSelect = (props) => html`
  <select ...${props}>${ROLES.map((role) => html`<option key=${role} value=${role} selected=${role === (props.value ?? props.defaultValue)}>${role}</option>`)}</select>
`;
