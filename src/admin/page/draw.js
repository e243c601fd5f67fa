// Elements, shapes and charts. Text is always text, never markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** An HTML element. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** An SVG element. */
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Writes text only where it changes. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SHAPES = {
  // A stop sign, barred.
  open: [['path', { class: 'solid', d: 'M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2z' }], ['path', { class: 'cut', d: 'M4.5 8h7' }]],
  // A diamond, half full.
  half_open: [['path', { class: 'line', d: 'M8 1.5 14.5 8 8 14.5 1.5 8z' }], ['path', { class: 'solid', d: 'M8 1.5v13L1.5 8z' }]],
  // A ring with a tick.
  closed: [['circle', { class: 'line', cx: 8, cy: 8, r: 6.2 }], ['path', { class: 'line', d: 'm5.2 8.3 2 2 3.6-4' }]],
  // A padlock.
  held: [['path', { class: 'line', d: 'M5 7.5V5a3 3 0 0 1 6 0v2.5' }], ['rect', { class: 'solid', x: 3, y: 7, width: 10, height: 7.5, rx: 1.5 }]],
  // An eye.
  observed: [['path', { class: 'line', d: 'M1 8s2.6-4.5 7-4.5S15 8 15 8s-2.6 4.5-7 4.5S1 8 1 8z' }], ['circle', { class: 'solid', cx: 8, cy: 8, r: 2.2 }]],
  // A small dot, for what is neither.
  note: [['circle', { class: 'solid', cx: 8, cy: 8, r: 3 }]],
};

/** A state's shape: it says without colour what the colour says. */
export function shape(name) {
  const parts = (SHAPES[name] ?? SHAPES.note).map(([tag, properties]) => s(tag, properties));
  return s('svg', { class: `shape ${name}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' }, parts);
}

/** Which shape stands for what callers of a circuit meet. */
export const shapeOf = (circuit) => (circuit.override?.kind === 'observe_only' ? 'observed' : circuit.state);

/** Which colour stands for it. */
export const toneOf = (circuit) =>
  circuit.override && circuit.override.kind !== 'force_open' ? 'held' : circuit.state;

const FULL = 60;

/** The path of a line through `values`, with gaps where there are none, and the area below it. */
function paths(values, top, height) {
  let line = '', area = '', from = null;
  const close = (i) => { if (from !== null) area += `L${i - 0.5} ${height}L${from} ${height}z`; from = null; };
  values.forEach((value, i) => {
    if (value == null) return close(i);
    const point = `${i + 0.5} ${(height - (value / top) * height).toFixed(2)}`;
    line += (from === null ? 'M' : 'L') + point;
    area += (from === null ? 'M' : 'L') + point;
    if (from === null) from = i + 0.5;
  });
  close(values.length);
  return { line, area };
}

/** A line without axes: the shape of the last quarter of an hour. */
export class Spark {
  constructor() {
    this.area = s('path', { class: 'area' });
    this.line = s('path', { class: 'line' });
    this.element = s('svg', { class: 'spark', viewBox: '0 -1 60 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, this.area, this.line);
  }
  show(values) {
    const { line, area } = paths(values, Math.max(1e-9, ...values) * 1.05, 18);
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
  }
}

// The worse, the taller: the ribbon reads without colours too.
const RIBBON = { c: [8, 3], h: [4, 7], o: [0, 11], f: [4, 7] };

/** How far back it goes, unless told otherwise. */
const QUARTER = { words: '15 minutes', axis: ['15 min ago', '10', '5', 'now'] };

/** The states of the last quarter of an hour, oldest first. */
export class Ribbon {
  constructor() {
    this.paths = Object.fromEntries(Object.keys(RIBBON).map((letter) => [letter, s('path', { class: letter })]));
    this.element = s('svg', { class: 'ribbon', viewBox: '0 0 60 11', preserveAspectRatio: 'none', role: 'img' }, Object.values(this.paths));
  }
  show(letters, { words } = QUARTER) {
    const key = letters.map((letter) => letter ?? '-').join('');
    if (key + words === this.key) return;
    this.key = key + words;
    for (const [letter, [y, height]] of Object.entries(RIBBON)) {
      let d = '';
      for (const run of key.matchAll(new RegExp(`${letter}+`, 'g'))) {
        d += `M${run.index} ${y}h${run[0].length - 0.12}v${height}h-${run[0].length - 0.12}z`;
      }
      this.paths[letter].setAttribute('d', d);
    }
    this.element.setAttribute('aria-label', inWords(key, words));
  }
}

function inWords(key, words) {
  const of = (letter) => key.split(letter).length - 1;
  const parts = [['o', 'open'], ['h', 'half-open'], ['f', 'forced']]
    .filter(([letter]) => of(letter))
    .map(([letter, word]) => `${word} in ${of(letter)}`);
  return parts.length ? `Of 60 steps in ${words}: ${parts.join(', ')}` : `Closed for ${words}`;
}

/** The least round number that is no less than `value`. */
function above(value) {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((n) => n * ten).find((n) => n >= value * 0.999);
}

/**
 * A chart over the last quarter of an hour: `layers` of `{ name, tone, values, kind }`, where bars are stacked and
 * lines are not. What the pointer is on is read out above it.
 */
export class Chart {
  constructor({ title, say, layers, at }) {
    this.say = say;
    this.layers = layers;
    this.at = at;
    this.plot = s('svg', { viewBox: '0 0 60 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    this.marks = layers.map(({ kind, tone }) => s('path', { class: `${kind} ${tone}` }));
    this.hair = s('path', { class: 'hair' });
    this.plot.append(s('path', { class: 'grid', d: 'M0 0H60M0 50H60M0 100H60' }), ...this.marks, this.hair);
    this.nothing = h('p', { class: 'nothing-here', hidden: true }, h('span', {}, 'Nothing was measured.'));
    this.top = h('span', { class: 'top-label' });
    this.middle = h('span', { class: 'middle-label' });
    this.legend = layers.map(({ name, tone, kind }) => {
      const value = h('b');
      return { value, element: h('span', { class: 'key' }, h('i', { class: `${kind} ${tone}` }), `${name} `, value) };
    });
    this.when = h('span', { class: 'when' });
    this.ribbon = new Ribbon();
    this.axis = h('p', { class: 'axis', 'aria-hidden': 'true' }, QUARTER.axis.map(() => h('span')));
    this.element = h('figure', { class: 'chart' },
      h('figcaption', {}, h('h3', {}, title), h('p', { class: 'legend' }, this.legend.map((key) => key.element), this.when)),
      h('div', { class: 'plot', onpointermove: (event) => this.point(event), onpointerleave: () => this.point(null) },
        this.top, this.middle, this.plot, this.nothing),
      this.ribbon.element,
      this.axis);
  }

  point(event) {
    const box = event && this.plot.getBoundingClientRect();
    this.index = box ? Math.max(0, Math.min(FULL - 1, Math.floor(((event.clientX - box.left) / box.width) * FULL))) : null;
    this.read();
  }

  /** What is pointed at; what was last otherwise. */
  read() {
    if (!this.shown) return;
    const index = this.index ?? FULL - 1;
    this.legend.forEach(({ value }, i) => write(value, this.say(this.shown[i][index])));
    write(this.when, this.index == null ? '' : this.at(index));
    this.hair.setAttribute('d', this.index == null ? '' : `M${index + 0.5} 0V100`);
  }

  /** Shows a column of values a layer, and the states they were counted in. */
  show(columns, states, over = QUARTER) {
    this.shown = columns;
    this.ribbon.show(states, over);
    over.axis.forEach((text, i) => write(this.axis.children[i], text));
    const floor = new Array(FULL).fill(0);
    let most = 0;
    columns.forEach((values, i) => values.forEach((value, at) => {
      if (value == null) return;
      const stacked = this.layers[i].kind === 'bars';
      if (stacked) floor[at] += value;
      most = Math.max(most, stacked ? floor[at] : value);
    }));
    const nothing = columns.every((values) => values.every((value) => value == null));
    this.nothing.hidden = !nothing;
    for (const label of [this.top, this.middle]) label.hidden = nothing;
    const top = above(most);
    write(this.top, this.say(top));
    write(this.middle, this.say(top / 2));
    floor.fill(0);
    columns.forEach((values, i) => {
      if (this.layers[i].kind === 'line') return this.marks[i].setAttribute('d', paths(values, top, 100).line);
      let d = '';
      values.forEach((value, at) => {
        if (!value) return;
        const y = 100 - ((floor[at] + value) / top) * 100;
        const height = (value / top) * 100;
        d += `M${at + 0.1} ${y.toFixed(2)}h.8v${height.toFixed(2)}h-.8z`;
        floor[at] += value;
      });
      this.marks[i].setAttribute('d', d);
    });
    this.read();
  }
}
