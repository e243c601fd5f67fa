// The last days of a circuit, where the server remembers them. Loaded only then.

import { address, ask } from './api.js';
import { h, write } from './draw.js';

const EVERY = 30e3; // ms between looks: what is remembered grows by the minute
const UNITS = { h: 'hours', d: 'days' };

/** `24h` as `24 h`; in words, and below a chart. */
function over(range) {
  const n = parseInt(range, 10), unit = range.at(-1);
  const part = (share) => String(Math.round(n * share * 10) / 10);
  return { words: `${n} ${UNITS[unit]}`, short: `${n} ${unit}`, axis: [`${n} ${unit} ago`, part(2 / 3), part(1 / 3), 'now'] };
}

/** Buttons that say how far back the charts of a detail reach. */
export class Past {
  constructor(detail, ranges) {
    this.detail = detail;
    this.range = null;
    this.title = detail.series.querySelector('h2');
    this.live = this.title.textContent;
    this.buttons = [null, ...ranges].map((range) => h('button', {
      type: 'button', 'data-range': range ?? 'live', 'aria-pressed': String(range === null), onclick: () => this.choose(range),
    }, range === null ? '15 min' : over(range).short));
    detail.series.prepend(h('div', { class: 'ranges', role: 'group', 'aria-label': 'How far back' }, this.buttons));
  }

  choose(range) {
    this.range = range;
    this.looked = -Infinity;
    for (const button of this.buttons) button.setAttribute('aria-pressed', String(button.dataset.range === (range ?? 'live')));
    this.detail.load();
  }

  /** Shows what was chosen: the series of now, or one that it asks for itself. */
  async show(series, now) {
    const { range, detail } = this;
    if (range === null) {
      write(this.title, this.live);
      detail.draw(series, now);
      return;
    }
    if (performance.now() - this.looked < EVERY) return;
    this.looked = performance.now();
    try {
      const past = await ask(`history/${address(detail.circuit)}?range=${encodeURIComponent(range)}`);
      // Meanwhile another may have been chosen.
      if (detail.gone || range !== this.range) return;
      write(this.title, `The last ${over(range).words}`);
      detail.draw(past.series, past.now, over(range));
    } catch (error) {
      if (range === this.range) write(this.title, `The last ${over(range).words}: ${error.message}`);
    }
  }
}
