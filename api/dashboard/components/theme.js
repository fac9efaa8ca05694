// Light, dark, or as the system has it: remembered in this browser.

import { useState } from "preact/hooks";
import { html } from "../ui.js";

const STORED_AS = "plumbline.theme";
const CHOICES = ["system", "light", "dark"];

/** Tells charts, which draw on a canvas, to read the colours again. */
export const themes = new EventTarget();

function apply(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  themes.dispatchEvent(new Event("change"));
}

const stored = () => {
  const choice = localStorage.getItem(STORED_AS);
  return CHOICES.includes(choice) ? choice : "system";
};

apply(stored());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themes.dispatchEvent(new Event("change")));

export function ThemeChoice() {
  const [choice, setChoice] = useState(stored());
  const choose = ({ target: { value } }) => {
    localStorage.setItem(STORED_AS, value);
    setChoice(value);
    apply(value);
  };
  return html`
    <label class="inline">Theme
      <select value=${choice} onChange=${choose}>
        ${CHOICES.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
      </select>
    </label>
  `;
}
