// What an attempt's processes write, followed while it runs; asked for only while it is open.

import { useEffect, useRef, useState } from "preact/hooks";
import { ProblemNote } from "../../components/notes.js";
import { count } from "../../format.js";
import { useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";

const REFRESH_EVERY_S = 2;
const FIRST_LINES = 500;
const MOST_LINES = 5000;

export function Log({ job }) {
  const [open, setOpen] = useState(false);
  if (job.attempts === 0) return html`<p class="muted">The log begins when the job is started on the cluster.</p>`;
  return html`
    <details class="log" onToggle=${({ target }) => setOpen(target.open)}>
      <summary>What its processes wrote</summary>
      ${open && html`<${Lines} job=${job} />`}
    </details>
  `;
}

function Lines({ job: { id, attempts } }) {
  const [chosen, setChosen] = useState(null); // null: the newest
  const [tail, setTail] = useState(FIRST_LINES);
  const [live, setLive] = useState(true);
  const path = `/v1/jobs/${id}/logs?tail=${tail}${chosen ? `&attempt=${chosen}` : ""}`;
  const { data: log, problem, loading } = useAnswer(path, { every: live ? REFRESH_EVERY_S : 0 });
  useEffect(() => setLive(log?.live ?? true), [log?.live, attempts, chosen]);
  return html`
    <div class="bar">
      ${attempts > 1 &&
      html`<label class="inline">Attempt <select value=${chosen ?? attempts} onChange=${({ target }) => setChosen(Number(target.value))}>
        ${Array.from({ length: attempts }, (_, at) => html`<option key=${at} value=${at + 1}>${at + 1}</option>`)}
      </select></label>`}
      ${log?.more && tail < MOST_LINES && html`<button onClick=${() => setTail(MOST_LINES)}>Earlier lines</button>`}
      <small class="push" role="status">${log && (log.live ? "goes on" : "complete")}${log && `, ${count(log.lines.length, "lines")}${log.more ? " of more" : ""}`}</small>
    </div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!log && loading && html`<p class="muted">Asking the cluster…</p>`}
    ${log && log.lines.length === 0 && html`<p class="muted">${log.live ? "Nothing yet." : "The cluster does not keep this log any more."}</p>`}
    ${log?.lines.length > 0 && html`<${Followed} text=${log.lines.join("\n")} />`}
  `;
}

/** Stays at the end while lines come, unless somebody has scrolled up to read. */
function Followed({ text }) {
  const box = useRef(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  const onScroll = ({ target }) => (atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 30);
  return html`<pre ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-label="Log" aria-live="off">${text}</pre>`;
}
