// The project: what it uses, and for admins its members, keys and log; for operators all projects and their quotas.

import { useQuery } from "../components/query.js";
import { useWho } from "../components/who.js";
import { useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { AuditLog } from "./settings/audit.js";
import { Keys } from "./settings/keys.js";
import { Members } from "./settings/members.js";
import { Projects } from "./settings/projects.js";
import { ProjectUsage } from "./settings/usage.js";

await stylesheet("./settings.css", import.meta.url);

const TABS = [
  { name: "project", title: "Project", role: "viewer", page: ProjectUsage },
  { name: "members", title: "Members", role: "admin", page: Members },
  { name: "keys", title: "Keys", role: "admin", page: Keys },
  { name: "log", title: "Audit log", role: "admin", page: AuditLog },
  { name: "projects", title: "All projects", role: "operator", page: Projects },
];

export default function Settings() {
  useTitle("Settings");
  const who = useWho();
  const [query] = useQuery();
  const project = query.get("project") ?? who.project_id;
  const shown = TABS.filter(({ role }) => who.may(role));
  const tab = shown.find(({ name }) => name === query.get("tab")) ?? shown[0];
  const of = project === who.project_id ? "" : `&project=${encodeURIComponent(project)}`;
  return html`
    <div class="head"><h1>Settings</h1><code>${project}</code></div>
    <nav class="tabs" aria-label="Settings">
      ${shown.map(
        ({ name, title }) => html`
          <a key=${name} href="/settings?tab=${name}${of}" aria-current=${name === tab.name ? "page" : undefined}>${title}</a>
        `,
      )}
    </nav>
    <${tab.page} key=${project + tab.name} project=${project} />
  `;
}
