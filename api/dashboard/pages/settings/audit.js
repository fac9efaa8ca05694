// Who changed something in the project, or tried to; newest first.

import { useState } from "preact/hooks";
import { Empty, Loading, ProblemNote } from "../../components/notes.js";
import { Moment } from "../../format.js";
import { useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";

export function AuditLog({ project }) {
  const [cursor, setCursor] = useState(null);
  const asked = new URLSearchParams({ project, limit: 50, ...(cursor && { cursor }) });
  const { data, problem, loading } = useAnswer(`/v1/audit?${asked}`);
  return html`
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!data && loading && html`<${Loading} rows=${6} />`}
    ${data?.data.length === 0 && html`<div class="card"><${Empty} title="Nothing was changed yet." /></div>`}
    ${data?.data.length > 0 &&
    html`
      <div class="card flush table-box" tabindex="0" role="region" aria-label="Audit log"><table>
        <thead><tr><th>When</th><th>What</th><th>Of</th><th>Key</th><th>Outcome</th></tr></thead>
        <tbody>
          ${data.data.map(
            (entry) => html`
              <tr key=${entry.id}>
                <td class="nowrap"><${Moment} at=${entry.created_at} seconds /></td>
                <td><code>${entry.action}</code></td>
                <td><code>${entry.target ?? "–"}</code></td>
                <td><code>${entry.key_id ?? "at the database"}</code></td>
                <td>${entry.outcome}</td>
              </tr>
            `,
          )}
        </tbody>
      </table></div>
      <div class="bar">
        ${cursor && html`<button onClick=${() => setCursor(null)}>Newest</button>`}
        ${data.next_cursor && html`<button class="push" onClick=${() => setCursor(data.next_cursor)}>Older →</button>`}
      </div>
    `}
  `;
}
