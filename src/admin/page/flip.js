// The dialog that steers: it says what will happen, wants a reason, and notices when things have moved on meanwhile.

import { address, ask } from './api.js';
import { h, shape, shapeOf, write } from './draw.js';
import { circuits, put, serverNow } from './store.js';
import { clock, short, stateWord } from './text.js';

const ENDS = [['15m', '15 min', 9e5], ['1h', '1 hour', 36e5], ['4h', '4 hours', 144e5], ['24h', '1 day', 864e5], ['until_cleared', 'until it is released', null]];

const rate = (n) => `${short(n)} calls/s`;
const passing = ({ rates }) => (rates.calls_per_s > 0 ? `${rate(rates.calls_per_s)} pass now.` : 'No calls pass now.');
const refused = ({ rates }) => (rates.rejected_per_s > 0 ? `${rate(rates.rejected_per_s)} are refused now.` : 'No calls are refused now.');

const override = (kind) => ({ kind, path: 'override', method: 'POST', bulk: 'override', ends: true });

/** What an operator may do: the word on the button, and what it will do, in a sentence. */
const ACTS = {
  force_open: { ...override('force_open'), word: 'Hold open', hint: 'refuse every call', tone: 'open',
    does: (of, end) => `All calls will be refused ${end}. ${passing(of)}` },
  force_closed: { ...override('force_closed'), word: 'Hold closed', hint: 'let every call pass', tone: 'held',
    does: (of, end) => `All calls will pass ${end}, however many fail. ${refused(of)}` },
  observe_only: { ...override('observe_only'), word: 'Observe only', hint: 'judge, but refuse nothing', tone: 'held',
    does: (of, end) => `All calls will pass ${end}; the circuit goes on judging, and counts what it would have refused. ${refused(of)}` },
  clear: { word: 'Release', hint: 'let it decide again', path: 'override', method: 'DELETE', bulk: 'clear_override', tone: 'closed',
    does: (of) => `Its own rules decide again, at once${of.automatic_state ? `: by them it is ${of.automatic_state.replace('_', '-')}` : ''}. ${passing(of)}` },
  half_open: { word: 'Try now', hint: 'end the wait', path: 'transition', method: 'POST', to: 'half_open', tone: 'half_open',
    does: (of) => `The wait ends now: the next calls are probes, and what becomes of them decides. ${refused(of)}` },
  open: { word: 'Open', hint: 'once, for its usual wait', path: 'transition', method: 'POST', to: 'open', bulk: 'open', tone: 'open',
    does: (of) => `All calls will be refused until the circuit tries again by itself, after its usual wait. ${passing(of)}` },
  closed: { word: 'Reset', hint: 'close it, with an empty window', path: 'reset', method: 'POST', bulk: 'reset', tone: 'closed',
    does: (of) => (of.override
      ? `Its own rules start over, closed and with an empty window. It stays ${stateWord(of).toLowerCase()} until that ends. ${refused(of)}`
      : `It closes at once, with an empty window: all calls pass until a rule opens it again. ${refused(of)}`) },
};

/** The acts that make sense for a circuit as it is. */
export const possible = ({ override: held, automatic_state: automatic }) => Object.entries(ACTS).filter(([name, act]) =>
  name === 'clear' ? held
  : name === 'half_open' ? !held && automatic === 'open'
  : name === 'open' ? !held && automatic !== 'open'
  : true);

const bulkActs = Object.entries(ACTS).filter(([, act]) => act.bulk);
const dialog = document.getElementById('flip');
let now = null; // What the dialog that is open is about.

/** Asks what to do to one circuit, or to many. */
export function decide(targets, { act, done }) {
  if (dialog.open || !targets.length) return;
  const one = targets.length === 1 ? targets[0] : null;
  const acts = one ? possible(one) : bulkActs;
  const wanted = act && acts.some(([name]) => name === act) ? act : one?.override ? 'clear' : 'force_open';

  const title = one ? one.id : `${targets.length} circuits`;
  const choices = acts.map(([name, { word, hint, tone }]) => h('label', { class: 'choice', 'data-tone': tone },
    h('input', { type: 'radio', name: 'act', value: name, ...(name === wanted ? { checked: true } : {}) }), h('b', {}, word), h('span', {}, hint)));
  const ends = h('fieldset', { class: 'ends' }, h('legend', {}, 'For how long'),
    ENDS.map(([value, word]) => h('label', {}, h('input', { type: 'radio', name: 'end', value, ...(value === '1h' ? { checked: true } : {}) }), h('span', {}, word))));
  const reason = h('input', { id: 'reason', type: 'text', name: 'reason', required: true, maxlength: 500, autocomplete: 'off', placeholder: 'INC-42, index rebuild until 04:00' });
  const confirm = h('input', { id: 'confirm', type: 'text', inputmode: 'numeric', required: true, pattern: String(targets.length), autocomplete: 'off' });
  const preview = h('p', { class: 'preview', id: 'preview', 'aria-live': 'polite' });
  const is = h('p', { class: 'is' });
  const trouble = h('p', { class: 'error', role: 'alert', hidden: true });
  const submit = h('button', { type: 'submit', class: 'primary', 'aria-describedby': 'preview' });
  const form = h('form', { method: 'dialog' },
    h('h2', { id: 'flip-title' }, title), is,
    h('fieldset', { class: 'choices' }, h('legend', {}, 'Do what'), choices),
    ends,
    h('label', { class: 'field', for: 'reason' }, h('span', {}, 'Why ', h('small', {}, 'everyone who looks will read it')), reason),
    one ? null : h('label', { class: 'field', for: 'confirm' }, h('span', {}, `Type ${targets.length} to confirm the number of circuits`), confirm),
    preview, trouble,
    h('footer', {}, h('button', { type: 'button', class: 'cancel', onclick: () => dialog.close() }, 'Cancel'), submit));

  const chosen = () => ACTS[new FormData(form).get('act')];
  now = { one, seen: one };
  const mine = now;
  const isOpen = () => now === mine && dialog.open;

  const show = () => {
    const act = chosen();
    ends.hidden = !act.ends;
    const [, word, ms] = ENDS.find(([value]) => value === new FormData(form).get('end'));
    const end = ms == null ? word : `until ${clock(serverNow() + ms, false)} (${word.replace('1 hour', '1 h').replace('hours', 'h')})`;
    const held = one || act.ends || act === ACTS.clear ? 0 : targets.filter((target) => target.override).length;
    write(preview, act.does(one ? mine.seen : sum(targets), end) + (held ? ` ${held} of them stay held as they are.` : ''));
    preview.dataset.tone = act.tone;
    write(submit, `${act.word}${act.ends && ms != null ? ` for ${word}` : ''}${one ? '' : `: ${targets.length} circuits`}`);
    submit.dataset.tone = act.tone;
    if (one) is.replaceChildren(shape(shapeOf(mine.seen)), h('span', {}, mine.seen.sentence));
  };
  mine.refresh = () => {
    const current = one && circuits.get(one.id);
    if (!current || current.generation === mine.seen.generation) {
      if (current) mine.seen = current;
      return show();
    }
    complain(`It has changed since you looked: ${current.sentence}`);
  };
  const complain = (text) => {
    trouble.hidden = !text;
    write(trouble, text);
  };

  form.addEventListener('change', show);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const act = chosen();
    const data = new FormData(form);
    const body = { reason: reason.value.trim() };
    if (!body.reason) {
      reason.value = '';
      return form.reportValidity();
    }
    if (act.ends) Object.assign(body, { kind: act.kind, expires_in: data.get('end') });
    if (act.to) body.to = act.to;
    submit.disabled = true;
    complain('');
    try {
      if (one) {
        body.if_generation = mine.seen.generation;
        const { circuit } = await ask(address(one, act.path), { method: act.method, body });
        put(circuit);
        done(`${one.id}: ${circuit.sentence}`);
      } else {
        // As they were when this was opened: what has changed since is left alone, and said.
        const ids = targets.map(({ id, generation }) => ({ id, if_generation: generation }));
        Object.assign(body, { action: act.bulk, ids, confirm: Number(confirm.value) });
        const { changed, unchanged, failed } = await ask('bulk', { method: 'POST', body });
        const not = failed.slice(0, 5).map(({ id }) => id).join(', ') + (failed.length > 5 ? ` and ${failed.length - 5} more` : '');
        done(`${act.word}: ${changed} of ${targets.length} circuits changed${unchanged ? `; ${unchanged} were so already` : ''}${failed.length ? `; not ${not}, changed meanwhile` : ''}.`);
      }
      if (isOpen()) dialog.close();
    } catch (error) {
      let why = error.code ? `Nothing was done: ${error.message}` : 'There was no answer, so it is not known whether it was done. Look before you try again.';
      let still = '';
      if (error.code === 'stale_generation' && error.current?.circuit) {
        const before = mine.seen;
        put(error.current.circuit);
        mine.seen = error.current.circuit;
        why = `Nothing was done: it has changed while you decided. It was ${stateWord(before).toLowerCase()}; now: ${mine.seen.sentence}`;
        still = ' If you still want this, confirm again.';
      }
      // Another may be open by now, about something else.
      if (!isOpen()) return done(`${title}: ${why}`);
      complain(why + still);
      if (error.field === 'reason') reason.focus();
      show();
    } finally {
      submit.disabled = false;
    }
  });

  dialog.replaceChildren(form);
  show();
  dialog.showModal();
  reason.focus();
}

dialog.addEventListener('close', () => {
  now = null;
  dialog.replaceChildren();
});
dialog.addEventListener('click', (event) => {
  // Beside the dialog is its backdrop; a reason that was begun is not thrown away by a slip of the hand.
  if (event.target === dialog && !document.getElementById('reason')?.value) dialog.close();
});

function sum(circuits) {
  const rates = { calls_per_s: 0, rejected_per_s: 0 };
  for (const circuit of circuits) for (const name in rates) rates[name] += circuit.rates[name];
  return { rates };
}

/** New numbers have come. */
export const refresh = () => now?.refresh();
