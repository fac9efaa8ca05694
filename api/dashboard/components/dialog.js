// Dialogs on the browser's own <dialog>: it keeps the focus inside, and Escape closes it.

import { useEffect, useId, useRef } from "preact/hooks";
import { html } from "../ui.js";
import { ProblemNote } from "./notes.js";

/**
 * A dialog that is open as long as it is drawn. onClose: after Escape, Cancel, or a click beside it.
 * onSubmit: after `action` (the button's text), with the form's FormData; without it there is only a way out.
 */
export function Dialog({ title, action, danger, busy, problem, wide, onClose, onSubmit, children }) {
  const dialog = useRef(null);
  const heading = useId();
  useEffect(() => {
    const element = dialog.current;
    element.showModal();
    return () => element.close();
  }, []);
  const submit = (event) => {
    event.preventDefault();
    onSubmit(new FormData(event.target));
  };
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`
    <dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby=${heading} onCancel=${cancel}
      onMouseDown=${(event) => event.target === dialog.current && onClose()}>
      <form onSubmit=${onSubmit ? submit : cancel}>
        <h2 id=${heading}>${title}</h2>
        ${children}
        ${problem && html`<${ProblemNote} problem=${problem} />`}
        <div class="actions dialog-actions">
          <button type="button" onClick=${onClose}>${action ? "Cancel" : "Close"}</button>
          ${action && html`<button class="${danger ? "primary destructive" : "primary"}" disabled=${busy}>${action}</button>`}
        </div>
      </form>
    </dialog>
  `;
}
