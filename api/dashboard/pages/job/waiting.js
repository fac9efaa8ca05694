// Why a job waits and when it will start and end: asked for again and again, since the job's stream does not tell.

import { json } from "../../api.js";
import { Moment } from "../../format.js";
import { Component, everyWhileVisible, html } from "../../ui.js";

const REFRESH_EVERY_S = 5;

export class Waiting extends Component {
  state = { waiting: null, eta: null };
  abort = new AbortController();

  componentDidMount() {
    everyWhileVisible(REFRESH_EVERY_S, () => this.refresh(), this.abort.signal);
  }

  componentWillUnmount() {
    this.abort.abort();
  }

  async refresh() {
    try {
      const { waiting, eta } = await json(`/v1/jobs/${this.props.id}`, { signal: this.abort.signal });
      this.setState({ waiting, eta });
    } catch {
      // The page's own stream says what is wrong; what was known stays until it is back.
    }
  }

  render({ queued }, { waiting, eta }) {
    const place = waiting?.position ? `Place ${waiting.position} in the queue. ` : "";
    return html`
      ${queued && waiting && html`<p class="note" role="status">${place}${waiting.message}</p>`}
      ${eta && html`<p class="muted">${queued && between("starts", eta.start_low, eta.start_high)}
        ${between("finishes", eta.finish_low, eta.finish_high)}</p>`}
    `;
  }
}

function between(verb, low, high) {
  if (!low || !high) return "";
  return html`Probably ${verb} between <${Moment} at=${low} /> and <${Moment} at=${high} />. `;
}
