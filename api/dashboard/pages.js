// The pages: address, module and place in the navigation. Each module is loaded when its page is first opened.

import lazy from "preact-iso/lazy";
import { html } from "./ui.js";

/**
 * The page is within an element of the class `page-NAME`, to which its styles are scoped: those of a page that was
 * shown before stay in the document. A module that cannot be loaded is an error of its page.
 */
const page = (name, load) =>
  lazy(() =>
    load().then(
      ({ default: Page }) =>
        (props) => html`<div class="page-${name}"><${Page} ...${props} /></div>`,
      (error) => () => {
        throw error;
      },
    ),
  );

/** `name`: in the navigation; a page without one is reached from others. `role`: the least that sees it. */
export const PAGES = [
  { path: "/jobs", name: "Jobs", page: page("jobs", () => import("./pages/jobs.js")) },
  { path: "/jobs/:id", page: page("job", () => import("./pages/job.js")) },
  { path: "/jobs/:id/pairs", page: page("pairs", () => import("./pages/pairs.js")) },
  { path: "/queue", name: "Queue", page: page("queue", () => import("./pages/queue.js")) },
  { path: "/new", name: "New job", role: "member", page: page("new-job", () => import("./pages/new_job.js")) },
  { path: "/side-by-side", name: "Side by side", role: "member", page: page("side-by-side", () => import("./pages/side_by_side.js")) },
  { path: "/evaluations", name: "Evaluations", page: page("evaluations", () => import("./pages/evaluations.js")) },
  { path: "/evaluations/:id", page: page("evaluations", () => import("./pages/evaluation.js")) },
  { path: "/compare", name: "Compare runs", page: page("compare", () => import("./pages/compare.js")) },
  { path: "/models", name: "Models", page: page("models", () => import("./pages/models.js")) },
  { path: "/settings", name: "Settings", page: page("settings", () => import("./pages/settings.js")) },
];

export const HOME = "/jobs";
