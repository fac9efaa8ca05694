// Texts of the API, in which `names` stand in backticks.

import { html } from "../ui.js";

export const Prose = ({ text }) =>
  text.split("`").map((part, index) => (index % 2 ? html`<code key=${index}>${part}</code>` : part));
