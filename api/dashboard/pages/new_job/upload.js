// Uploading a training file: chosen or dropped, with progress, and stopped when one likes.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, upload } from "../../api.js";
import { bytes } from "../../format.js";
import { html } from "../../ui.js";
import { ProblemNote } from "../../components/notes.js";

/** onUploaded(file): a FileView of the API, when all of it is there. */
export function Upload({ onUploaded }) {
  const [sending, setSending] = useState(null); // {name, sent, size, abort}
  const [problem, setProblem] = useState(null);
  const [over, setOver] = useState(false);
  const input = useRef(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);

  const send = async (file) => {
    running.current?.abort();
    const abort = (running.current = new AbortController());
    setProblem(null);
    setSending({ name: file.name, sent: 0, size: file.size, abort });
    try {
      const onProgress = (sent) => setSending((now) => now && { ...now, sent });
      onUploaded(await upload("/v1/files", file, { onProgress, signal: abort.signal }));
    } catch (refused) {
      if (refused.name !== "AbortError") {
        if (!(refused instanceof Problem)) throw refused;
        setProblem(refused);
      }
    } finally {
      if (running.current === abort) setSending(null);
    }
  };
  const choose = ({ target }) => {
    if (target.files.length > 0) send(target.files[0]);
    target.value = ""; // the same file again is a change too
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length > 0) send(event.dataTransfer.files[0]);
  };
  const drag = (event) => (event.preventDefault(), setOver(true));
  return html`
    <div class="upload ${over ? "over" : ""}" onDragOver=${drag} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <input ref=${input} type="file" class="visually-hidden" aria-label="Training file" tabindex="-1" onChange=${choose}
        accept=".jsonl,.json,.csv,.parquet,.gz,.zst,.xz,.bz2,.ndjson" />
      ${sending
        ? html`
            <p role="status">Uploading ${sending.name}: ${bytes(Math.min(sending.sent, sending.size))} of ${bytes(sending.size)}</p>
            <progress aria-label="Uploading ${sending.name}" max=${sending.size} value=${sending.sent}></progress>
            <button type="button" onClick=${() => sending.abort.abort()}>Stop the upload</button>
          `
        : html`
            <button type="button" onClick=${() => input.current.click()}>Upload a file</button>
            <span class="muted"> or drop it here: JSON Lines, JSON, CSV or Parquet, plain or compressed</span>
          `}
    </div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
  `;
}
