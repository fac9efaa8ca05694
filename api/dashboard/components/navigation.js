// The navigation: beside the page on a wide window, above it behind a button on a narrow one.

import { useLocation } from "preact-iso/router";
import { useEffect, useState } from "preact/hooks";
import { PAGES } from "../pages.js";
import { html } from "../ui.js";
import { ThemeChoice } from "./theme.js";
import { useWho } from "./who.js";

export function Navigation({ onSignOut }) {
  const { path } = useLocation();
  const { name, role, project_id, may } = useWho();
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [path]);
  return html`
    <a class="skip" href="#main">Skip to the page</a>
    <header class="side ${open ? "open" : ""}">
      <a class="brand" href="/"><img src="/icon.svg" alt="" width="22" height="22" />Plumbline</a>
      <button class="quiet menu" aria-expanded=${open} aria-controls="navigation" onClick=${() => setOpen(!open)}>
        Menu
      </button>
      <div class="side-body" id="navigation">
        <nav aria-label="Pages">
          <ul>
            ${PAGES.filter((page) => page.name && may(page.role ?? "viewer")).map(
              (page) => html`
                <li key=${page.path}>
                  <a href=${page.path} aria-current=${isCurrent(page.path, path) ? "page" : undefined}>${page.name}</a>
                </li>
              `,
            )}
          </ul>
        </nav>
        <div class="side-foot">
          <p class="who"><strong>${project_id}</strong><br />${name && `${name}, `}${role}</p>
          <${ThemeChoice} />
          <a href="/docs">API</a>
          <button class="quiet" onClick=${onSignOut}>Sign out</button>
        </div>
      </div>
    </header>
  `;
}

const isCurrent = (of, path) => path === of || path.startsWith(`${of}/`);
