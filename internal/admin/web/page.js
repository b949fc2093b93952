// The page: what is known of the world, what of it is looked at, and keys.
import { Acting, close, open } from './actions.js';
import { fill, h, show } from './dom.js';
import { Track } from './draw.js';
import { bytes, clock, count, judgements, rate, span } from './format.js';
import { Stream } from './stream.js';
import { cluster, events, foot, judged, notices, overview, tcpName } from './views.js';

const id = name => document.getElementById(name);

// As many events are kept.
const mostEvents = 2000;

const world = {
  now: Date.now(),
  head: null,
  last: null,
  rows: new Map(),
  names: [],
  detail: null,
  events: [],
  session: {},
  tracks: new Map(),
  track(name) {
    let t = this.tracks.get(name);
    if (!t) this.tracks.set(name, t = new Track());
    return t;
  },
};

let filter = '';
let selected = null;
let linked = null;
const calmly = matchMedia('(prefers-reduced-motion: reduce)');

// Where the page is: #/, #/c/CLUSTER, #/events.
function place() {
  const hash = location.hash;
  if (hash.startsWith('#/c/')) {
    try {
      return { view: 'cluster', name: decodeURIComponent(hash.slice(4)) };
    } catch { /* a % that nothing follows */ }
  }
  if (hash === '#/events') return { view: 'events' };
  // Who has one cluster needs no list.
  if (world.names.length === 1) return { view: 'cluster', name: world.names[0] };
  return { view: 'overview' };
}

const stream = new Stream(told, link);
const acting = new Acting(state => {
  world.session = state;
  draw();
});

function told(name, value) {
  switch (name) {
    case 'head':
      if (world.head && (world.head.pid !== value.pid || world.head.started !== value.started)) acting.refresh();
      world.head = value;
      break;
    case 'list':
      list(value);
      break;
    case 'cluster':
      world.detail = value.gone ? null : value;
      break;
    case 'events':
      happened(value);
      break;
    case 'moment':
      world.now = Date.parse(value.now);
      world.last = value;
      noted(value);
      soon();
      return;
  }
  if (name === 'events' || name === 'cluster') soon();
}

function list(value) {
  if (value.all) {
    world.names = value.all.map(c => c.name);
    for (const name of world.rows.keys()) if (!world.names.includes(name)) world.rows.delete(name);
  }
  for (const name of value.gone || []) {
    world.rows.delete(name);
    world.names = world.names.filter(n => n !== name);
  }
  const words = [];
  for (const c of value.all || value.changed || []) {
    const had = world.rows.get(c.name);
    if (!had && !world.names.includes(c.name)) world.names.push(c.name);
    if (had && had.is !== c.is) words.push(`${c.name} is ${c.is}${c.words ? ': ' + c.words[0] : ''}`);
    if (had && had.primary !== c.primary && c.primary) words.push(`${c.primary} is the primary of ${c.name}`);
    world.rows.set(c.name, c);
  }
  if (words.length) speak(words.slice(0, 5).join('. '));
  look();
}

// Words for who doesn't see them. They stay until there are others.
function speak(text) { id('spoken').textContent = text; }

function happened(list) {
  const known = new Set(world.events.map(e => e.id));
  const fresh = list.filter(e => !known.has(e.id));
  // After a restart numbers may begin anew: what is older by its time goes first all the same.
  world.events = world.events.concat(fresh).sort((a, b) => Date.parse(a.at) - Date.parse(b.at) || a.id - b.id).slice(-mostEvents);
}

const pointOf = f => ({ sessions: f.sessions, held: f.held, rate: f.rate, in: f.in, out: f.out, connect: f.connect === undefined ? null : f.connect });

function noted(value) {
  const at = world.now;
  world.track('').add(at, pointOf(value));
  const inView = place().name;
  for (const c of world.rows.values()) {
    // Every second of the one that is looked at; of the others, which are small in the list, each fifth.
    const t = world.track('c ' + c.name);
    if (c.name === inView || !t.points.length || at - t.points[t.points.length - 1].at > 4500) t.add(at, pointOf(c));
    if (c.name === inView) for (const s of c.services) world.track(s.full_name).add(at, pointOf(s));
  }
}

// what was noted before somebody looked
const asked = new Set();
async function remember(name) {
  if (asked.has(name)) return;
  asked.add(name);
  try {
    const answer = await fetch('history' + (name ? '?cluster=' + encodeURIComponent(name) : ''), { cache: 'no-store' });
    const past = await answer.json();
    for (const [of, series] of Object.entries(past.of)) world.track(of).past(Date.parse(past.last), 1000 * past.step, series);
    soon();
  } catch {
    asked.delete(name);
  }
}

function link(state) {
  const before = linked;
  linked = state;
  document.body.classList.toggle('lost', state.is === false);
  const line = id('link');
  if (state.is) {
    line.className = 'link is';
    line.textContent = '';
    if (before && before.is === false) {
      speak('the stream is back');
      // What happened meanwhile is in the history.
      asked.clear();
      acting.refresh();
    }
  } else {
    line.className = 'link no';
    const text = `No word from this pgporter since ${clock(state.since)}, ${span(Date.now() - state.since)} ago: what is shown is of then. ` + (state.again ? `Trying again in ${Math.max(0, Math.ceil((state.again - Date.now()) / 1000))} s.` : 'Trying again now.');
    if (line.textContent !== text) line.textContent = text;
    if (!before || before.is !== false) speak('the stream is lost');
  }
  title();
}

// look has the stream follow what is in view.
function look() {
  const p = place();
  const name = p.view === 'cluster' ? p.name : '';
  if (name && world.detail && (world.detail.cluster ? world.detail.cluster.name : tcpName) !== name) world.detail = null;
  stream.look(name);
  remember(name);
}

let drawing = false;
function soon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

const verdictOf = () => {
  const rows = [...world.rows.values()];
  const ill = rows.filter(c => c.is === 'ill'), lookAt = rows.filter(c => c.is === 'look');
  if (world.head && (world.head.stalled || []).length) return ['ill', 'a part of pgporter hangs'];
  // Of the only cluster everybody knows which it is.
  const short = c => c.words[0].split(/, and |; /)[0];
  const name = c => rows.length === 1 ? '' : c.name + ': ';
  if (ill.length) return ['ill', ill.length === 1 ? name(ill[0]) + short(ill[0]) : `${count(ill.length)} clusters are ill`];
  if (lookAt.length) return ['look', lookAt.length === 1 ? name(lookAt[0]) + short(lookAt[0]) : `${count(lookAt.length)} clusters want a look`];
  if (!rows.length) return ['look', 'nothing is known yet'];
  const services = rows.reduce((n, c) => n + c.services.length, 0);
  return ['well', services === 1 ? 'the service is served' : `all ${count(services)} services are served`];
};

const nodeName = () => world.head ? (world.head.page && world.head.page.node) || world.head.node || 'pgporter' : '';

function title() {
  const [is] = verdictOf();
  document.title = (linked && linked.is === false ? '⚠ lost · ' : judgements[is].sign + ' ') + (nodeName() || 'pgporter') + ' · pgporter';
}

function draw() {
  const p = place();
  const [is, text] = verdictOf();
  if (world.head) {
    show('node', nodeName());
    show('verdict', judged(is, text));
    id('verdict').className = 'verdict is-' + is;
    const t = world.last;
    if (t) {
      show('totals', [['sessions', count(t.sessions)], ['waiting', count(t.held), t.held > 0], ['new/s', rate(t.rate)], ['from clients', bytes(t.in) + '/s'], ['to clients', bytes(t.out) + '/s']].map(([k, v, alarm]) =>
        h('div', { class: alarm ? 'alarm' : null }, h('dt', null, k), h('dd', null, v))));
    }
  }
  show('notices', notices(world.head, world.now));
  const main = id('main');
  const had = document.activeElement;
  let content;
  if (p.view === 'cluster') content = cluster(world, p.name, Math.max(320, Math.min(1248, main.clientWidth)), calmly.matches);
  else if (p.view === 'events') content = [h('h2', null, 'What happened'), events(world, '', 300)];
  else content = overview(world, filter, selected);
  const box = h('div', null, content);
  fill(main, [...box.childNodes]);
  if (had && had !== document.activeElement && !had.isConnected) main.focus({ preventScroll: true });
  show('foot', foot(world.head, world.last, world.now));
  for (const [name, view] of [['to-overview', 'overview'], ['to-events', 'events']]) {
    if (p.view === view || name === 'to-overview' && world.names.length === 1 && p.view === 'cluster') id(name).setAttribute('aria-current', 'page');
    else id(name).removeAttribute('aria-current');
  }
  const button = id('session');
  button.hidden = false;
  button.textContent = world.session.user ? `Log out ${world.session.user}` : world.session.actions ? 'Log in' : 'Shows only';
  title();
}

// Themes: the system's, or one that was chosen.
const themes = ['auto', 'light', 'dark'];
let theme = 'auto';
try { theme = localStorage.getItem('pgporter-theme') || 'auto'; } catch { /* there is no storage: it isn't remembered */ }
function paint() {
  if (!themes.includes(theme)) theme = 'auto';
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  id('theme').textContent = { auto: '◐ auto', light: '○ light', dark: '● dark' }[theme];
  id('theme').title = 'light or dark (t)';
}

const keys = [['/', 'find'], ['j k ↑ ↓', 'next, previous row'], ['Enter', 'open'], ['Esc', 'back, close'], ['o', 'overview'], ['e', 'events'], ['t', 'light or dark'], ['l', 'log in or out'], ['?', 'this']];
const signs = [['● serving', 'takes new clients'], ['○ ready', 'would take clients, and none is led there now'], ['▨ drained', 'an operator keeps new clients away'], ['– not eligible', 'runs in another role than the service asks for'], ['✕ down', "can't serve"], ['★', 'the primary']];

function help() {
  open('Keys and signs', h('dl', { class: 'keys' }, [...keys, ...signs].map(([k, v]) => h('div', null, h('dt', null, h('kbd', null, k)), h('dd', null, v)))),
    h('p', { class: 'dim' }, 'In the picture a line is as wide as there are bytes on their way now; dashed ones have sessions and nothing on its way. Times of connecting are averages of the last second.'),
    h('p', { class: 'buttons' }, h('button', { type: 'button', class: 'go', 'data-do': 'close' }, 'Close')));
}

const doing = {
  theme() {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem('pgporter-theme', theme); } catch { /* not remembered */ }
    paint();
  },
  help,
  close,
  session() { acting.press(); },
  drain(of) { acting.order('drain', { ...of.dataset }); },
  maint(of) { acting.order('maint', { ...of.dataset }); },
  ready(of) { acting.order('ready', { ...of.dataset }); },
  weight(of) { acting.order('weight', { ...of.dataset }); },
};

document.addEventListener('click', e => {
  const what = e.target.closest('[data-do]');
  if (what && doing[what.dataset.do]) {
    doing[what.dataset.do](what);
    return;
  }
  if (e.target.closest('a, button, input, dialog')) return;
  const row = e.target.closest('tr[data-open]');
  if (row && row.dataset.open && !String(getSelection())) location.hash = row.dataset.open;
});

id('dialog').addEventListener('close', () => {
  // Another may have been opened since: this comes late.
  if (!id('dialog').open) id('dialog').replaceChildren();
});

document.addEventListener('input', e => {
  if (e.target.id !== 'find') return;
  filter = e.target.value;
  draw();
});

// walk goes through the rows that are in view.
function walk(by) {
  const rows = [...document.querySelectorAll('#main tr.item')];
  if (!rows.length) return;
  let at = rows.indexOf(document.activeElement.closest ? document.activeElement.closest('tr.item') : null);
  if (at < 0 && selected !== null) at = rows.findIndex(r => r.dataset.key === 'c ' + selected);
  at = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, at + by));
  for (const r of rows) r.setAttribute('tabindex', r === rows[at] ? 0 : -1);
  rows[at].focus();
  if (rows[at].dataset.key.startsWith('c ')) selected = rows[at].dataset.key.slice(2);
}

document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || id('dialog').open) return;
  const typing = e.target.matches('input, textarea, select');
  if (typing && !['Escape', 'Enter', 'ArrowDown'].includes(e.key)) return;
  const on = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[e.key];
  if (on && (!typing || e.key === 'ArrowDown')) walk(on);
  else if (e.key === '/') {
    if (place().view !== 'overview') location.hash = '#/';
    setTimeout(() => id('find') && id('find').focus());
  } else if (e.key === 'Enter') {
    const row = typing ? document.querySelector('#main tr.item') : e.target.closest('tr[data-open]');
    if (!row || !row.dataset.open) return;
    location.hash = row.dataset.open;
  } else if (e.key === 'Escape') {
    if (typing) {
      filter = '';
      e.target.value = '';
      e.target.blur();
      draw();
    } else if (location.hash !== '#/' && location.hash) location.hash = '#/';
    else return;
  } else if (e.key === '?') help();
  else if (e.key === 'o') location.hash = '#/';
  else if (e.key === 'e') location.hash = '#/events';
  else if (e.key === 't') doing.theme();
  else if (e.key === 'l') acting.press();
  else return;
  e.preventDefault();
});

addEventListener('hashchange', () => {
  look();
  draw();
  scrollTo(0, 0);
});
addEventListener('resize', soon);
calmly.addEventListener('change', soon);

paint();
look();
acting.refresh();
