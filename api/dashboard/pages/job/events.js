// The event log of a job, newest first.

import { Moment } from "../../format.js";
import { Component, html } from "../../ui.js";

const SHOWN = 100;

export class EventLog extends Component {
  state = { all: false };

  render({ events }, { all }) {
    if (events.length === 0) return html`<p class="muted">Nothing has happened yet.</p>`;
    const shown = events.slice(all ? 0 : -SHOWN).reverse();
    return html`
      <ol class="events" reversed tabindex="0" aria-label="Events, newest first">${shown.map((event) => html`<${Entry} key=${event.number} event=${event} />`)}</ol>
      ${shown.length < events.length &&
      html`<button onClick=${() => this.setState({ all: true })}>Show all ${events.length} events</button>`}
    `;
  }
}

function Entry({ event }) {
  const data = Object.keys(event.data).length > 0;
  return html`
    <li>
      <small class="when"><${Moment} at=${event.created_at} seconds /></small>
      <code>${event.type}</code>
      <span class="message">
        ${event.message}
        ${data && html`<details><summary>data</summary><pre>${JSON.stringify(event.data, null, 2)}</pre></details>`}
      </span>
    </li>
  `;
}
