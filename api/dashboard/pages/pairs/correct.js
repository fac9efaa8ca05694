// The corrected training file, and the job that differs in it alone.

import { useLocation } from "preact-iso/router";
import { useEffect, useState } from "preact/hooks";
import { json } from "../../api.js";
import { ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { number } from "../../format.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

export function Correct({ id, flags }) {
  const { route } = useLocation();
  const [file, setFile] = useState(null);
  const [run, busy, problem, forget] = useAction();
  const { may } = useWho();
  const count = flags.swap + flags.drop;
  useEffect(() => (setFile(null), forget()), [flags.swap, flags.drop]); // the file is that of other flags
  const make = () => run(async () => setFile(await json(`/v1/jobs/${id}/pairs/export`, { method: "POST" })));
  const start = () =>
    run(async () => {
      const body = { data: { train: file.id } };
      const headers = { "Idempotency-Key": `pairs-${id}-${file.id}` }; // a second click is the same job
      const job = await json(`/v1/jobs/${id}/clone`, { method: "POST", body, headers });
      route(`/jobs/${job.id}`);
    });
  if (!may("member")) return html`<p class="muted">Your role shows the pairs; members flag them and export the set.</p>`;
  return html`
    <section class="card correct" aria-label="Corrected set">
      <p>
        ${count === 0
          ? html`No pair is flagged yet: press <kbd>s</kbd> on a pair whose answers are swapped, <kbd>d</kbd> to drop it.`
          : `Flagged: ${number(flags.swap)} to be swapped, ${number(flags.drop)} to be dropped.`}
      </p>
      <span class="actions">
        <button disabled=${busy || count === 0} onClick=${make}>Export corrected set</button>
        <button class="primary" disabled=${busy || !file} onClick=${start}>Start the job that differs</button>
      </span>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <p role="status" class="exported">${file && html`<${Exported} file=${file} />`}</p>
    </section>
  `;
}

const Exported = ({ file }) => html`
  <code>${file.id}</code> (${file.filename}): ${number(file.derived_from.swapped.length)} rows swapped,${" "}
  ${number(file.derived_from.dropped.length)} dropped. The new job has the same request in everything but${" "}
  <code>data.train</code>.
`;
