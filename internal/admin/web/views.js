// What is seen: the list of clusters, one of them, what happened.
import { h } from './dom.js';
import { chart, picture, spark } from './draw.js';
import { bytes, clock, count, judgements, memberState, milliseconds, moment, plural, rate, serverState, span } from './format.js';

export const tcpName = '(other services)';

export const judged = (is, text) => h('span', { class: 'judged is-' + is }, h('span', { class: 'sign', 'aria-hidden': 'true' }, judgements[is].sign), ' ', h('span', null, text || judgements[is].word));

const stated = state => h('span', { class: 'state is-' + state.is }, h('span', { class: 'sign', 'aria-hidden': 'true' }, state.sign), ' ', state.word);

const cell = (label, value, cls) => h('td', { 'data-label': label, class: cls }, value);
const number = (label, value, cls) => cell(label, value, 'n' + (cls ? ' ' + cls : ''));

const rank = { ill: 0, look: 1, well: 2 };

// listed are the clusters that a filter leaves, those first that are worst.
export function listed(world, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = c => words.every(w => [c.name, c.is, c.primary || '', ...c.services.map(s => s.name)].some(t => t.toLowerCase().includes(w)));
  return world.names.map(n => world.rows.get(n)).filter(c => c && fits(c)).map((c, i) => [rank[c.is], i, c]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(e => e[2]);
}

// As many clusters are listed at once.
export const mostListed = 200;

export function overview(world, filter, selected) {
  const all = listed(world, filter);
  const shown = all.slice(0, mostListed);
  const rows = shown.map(c => h('tr', { 'data-key': 'c ' + c.name, 'data-open': '#/c/' + encodeURIComponent(c.name), class: 'item is-' + c.is + (c.name === selected ? ' selected' : ''), tabindex: c.name === selected ? 0 : -1 },
    cell('Cluster', [h('a', { class: 'name', href: '#/c/' + encodeURIComponent(c.name), tabindex: -1 }, c.name), c.words && h('div', { class: 'words' }, c.words[0], c.words.length > 1 && h('span', { class: 'dim' }, ' and ' + (c.words.length - 1) + ' more'))], 'wide'),
    cell('', judged(c.is)),
    cell('Primary', c.primary || h('span', { class: 'dim' }, c.name === tcpName ? '' : 'none')),
    number('Members up', c.members ? c.up + '/' + c.members : ''),
    cell('Services', h('span', { class: 'chips' }, c.services.slice(0, 8).map(s => h('span', { class: 'chip is-' + (s.up ? 'serving' : s.servers ? 'down' : 'out'), title: s.full_name + ': ' + (s.serving ? s.serving.join(', ') : 'no server') }, (s.up ? '● ' : s.servers ? '✕ ' : '– ') + s.name)), c.services.length > 8 && h('span', { class: 'dim' }, ' +' + (c.services.length - 8)))),
    number('Waiting', c.held ? count(c.held) : '', c.held ? 'alarm' : ''),
    number('Sessions', count(c.sessions)),
    number('New/s', rate(c.rate)),
    number('To clients', bytes(c.out) + '/s'),
    cell('Sessions, 10 min', spark(world.track('c ' + c.name).points, p => p.sessions, world.now), 'sparked')));
  return [
    h('div', { class: 'bar' }, h('h2', null, 'Clusters'), h('label', { class: 'find' }, h('span', { class: 'unseen' }, 'Find'), h('input', { id: 'find', type: 'search', placeholder: 'find (/)', value: filter, autocomplete: 'off', spellcheck: 'false' })),
      h('span', { class: 'dim' }, all.length > shown.length ? `the first ${shown.length} of ${count(all.length)}` : plural(all.length, 'cluster', 'clusters'))),
    all.length ? h('div', { class: 'scroll' }, h('table', { class: 'list' },
      h('thead', null, h('tr', null, ['Cluster', 'State', 'Primary', 'Up', 'Services', 'Waiting', 'Sessions', 'New/s', 'To clients', 'Sessions, 10 min'].map((t, i) => h('th', { scope: 'col', class: i === 3 || i > 4 && i < 9 ? 'n' : null }, t)))),
      h('tbody', null, rows))) : h('p', { class: 'empty' }, filter ? 'Nothing is called so.' : 'No cluster is served here.'),
  ];
}

// events are what happened, the newest first.
export function events(world, of, most) {
  const all = (of ? world.events.filter(e => !e.cluster || e.cluster === of) : world.events).slice(-most).reverse();
  if (!all.length) return h('p', { class: 'empty' }, 'Nothing has happened since this pgporter started to note it.');
  return h('ol', { class: 'events' }, all.map(e => h('li', { 'data-key': 'e ' + e.id, class: 'event kind-' + e.kind },
    h('time', { datetime: e.at, title: e.at }, moment(e.at, world.now)),
    h('span', { class: 'kind' }, e.kind),
    h('span', { class: 'what' }, !of && e.cluster && h('a', { href: '#/c/' + encodeURIComponent(e.cluster) }, e.cluster), !of && e.cluster && ' ', said(e, of)))));
}

// said is an event's sentence, with what it is about where that doesn't name it.
function said(e) {
  const about = [e.service, e.member].filter(n => n && !e.text.includes(n)).join(', ');
  return [about && about + ': ', e.text, e.by && !e.text.includes(e.by) && h('span', { class: 'by' }, ' by ' + e.by)];
}

// charted are the measures that are drawn.
const charted = [
  { title: 'Sessions', value: p => p.sessions, write: count, sum: true, least: 4 },
  { title: 'New sessions/s', value: p => p.rate, write: rate, sum: true, least: 2 },
  { title: 'To clients/s', value: p => p.out, write: bytes, sum: true, least: 1000 },
  { title: 'From clients/s', value: p => p.in, write: bytes, sum: true, least: 1000 },
  { title: 'Connecting takes', value: p => p.connect, write: milliseconds, least: 1 },
  { title: 'Waiting', value: p => p.held, write: count, sum: true, least: 1 },
];

// letters tell lines of a chart apart.
const letterOf = (services, i) => {
  const name = services[i].name;
  for (const c of name) if (services.findIndex(s => s.name.includes(c)) === i) return c;
  return String.fromCharCode(97 + i);
};

export function charts(world, services) {
  // More lines than six tell nobody anything: then they are one.
  const apart = services.length <= 6;
  const lines = c => apart ? services.map((s, i) => ({ name: s.name, letter: services.length > 1 ? letterOf(services, i) : '', points: world.track(s.full_name).points, value: c.value })) :
    [{ name: 'all', letter: '', points: summed(world, services), value: c.value }];
  const legend = apart && services.length > 1 ? h('p', { class: 'legend' }, services.map((s, i) => h('span', { class: 'key letter' + i % 6 }, h('svg', { class: 'sample', viewBox: '0 0 24 8', 'aria-hidden': 'true' }, h('path', { class: 'curve curve' + i % 6, d: 'M0 4L24 4' })), h('b', null, letterOf(services, i)), ' ', s.name))) : null;
  return h('section', { class: 'charts', 'aria-label': 'The last ten minutes' }, legend, h('div', { class: 'grid' }, charted.map(c => {
    const drawn = chart({ title: c.title, now: world.now, lines: lines(c), write: c.write, least: c.least });
    const now = drawn.values.length === 0 ? '–' : c.sum ? c.write(drawn.sum) : c.write(Math.max(...drawn.values));
    return h('figure', { class: 'chart' }, h('figcaption', null, h('span', null, c.title), h('b', null, now)), drawn.svg);
  })));
}

function summed(world, services) {
  const all = new Map();
  for (const s of services) {
    for (const p of world.track(s.full_name).points) {
      const q = all.get(p.at);
      if (!q) all.set(p.at, { ...p });
      else {
        for (const k of ['sessions', 'held', 'rate', 'in', 'out']) q[k] += p[k];
        q.connect = Math.max(q.connect || 0, p.connect || 0) || null;
      }
    }
  }
  return [...all.values()].sort((a, b) => a.at - b.at);
}

const button = (text, what, about, title) => h('button', { type: 'button', class: 'act', 'data-do': what, ...Object.fromEntries(Object.entries(about).map(([k, v]) => ['data-' + k, v])), title }, text);

// acts are what may be ordered of a server now.
function acts(world, about, server) {
  if (!world.session.user) return null;
  const state = server.order ? server.order.state : 'ready';
  return h('span', { class: 'acts' },
    state !== 'ready' && button('Ready', 'ready', about, 'lets it take clients again'),
    state !== 'drain' && button('Drain', 'drain', about, 'keeps new clients away, sessions go on'),
    state !== 'maint' && button('Maintenance', 'maint', about, 'takes it out'),
    about.service && button('Weight', 'weight', about, 'gives it another share of new clients'));
}

function ordered(server, now) {
  const o = server.order;
  if (!o) return null;
  const what = [o.state === 'ready' ? null : o.state === 'drain' ? 'drained' : 'in maintenance', o.weight !== undefined && o.weight !== null ? 'weight ' + o.weight : null].filter(Boolean).join(', ') || 'ordered ready';
  return h('div', { class: 'order' }, `${what} by ${o.by}, ${span(now - Date.parse(o.since))} ago`);
}

// columns of a service's servers, and which of them are numbers.
const columns = [['Server'], ['State'], ['Sessions', true], ['Most', true], ['Total', true], ['New/s', true], ['In', true], ['Out', true], ['Queue', true], ['Weight', true], ['Why']];

function service(world, clusterName, s, flows) {
  const flow = flows[s.full_name] || {};
  const now = world.now;
  const words = s.shadow ? 'shadow: nobody is served here' : s.up ? 'served' : s.servers.length ? 'no server takes clients' : 'no member is selected';
  const is = s.shadow ? 'look' : s.up ? 'well' : s.servers.length ? 'ill' : 'look';
  const facts = [
    s.listen && ['at', s.listen], s.check && ['check', s.check], s.balance && ['balance', s.balance],
    ['sessions', `${count(s.sessions)}, most ${count(s.sessions_max)}, total ${count(s.total)}`],
    ['new/s', `${rate(flow.rate)}, most ${count(s.session_rate_max)}`],
    s.limit ? ['clients', `${count(s.clients)} of ${count(s.limit)}`] : ['clients', count(s.clients)],
    s.held || s.held_max ? ['waiting', `${count(s.held)}, most ${count(s.held_max)}`] : null,
    s.refused ? ['refused', count(s.refused)] : null,
    s.cancels ? ['cancels', count(s.cancels)] : null,
    s.downs ? ['was without server', `${plural(s.downs, 'time', 'times')}, ${span(1000 * s.down_seconds)}`] : null,
  ].filter(Boolean);
  return h('section', { class: 'service', 'data-key': 's ' + s.full_name, 'aria-label': s.full_name },
    h('div', { class: 'service-head' }, h('h3', null, s.full_name), judged(is, words), s.held ? h('span', { class: 'alarm' }, plural(s.held, 'client waits', 'clients wait') + (s.waiting_since ? ` (${span(now - Date.parse(s.waiting_since))})` : '')) : null),
    h('dl', { class: 'facts' }, facts.map(([k, v]) => h('div', null, h('dt', null, k), h('dd', null, v)))),
    s.servers.length ? h('div', { class: 'scroll' }, h('table', { class: 'servers' },
      h('thead', null, h('tr', null, columns.map(([text, n]) => h('th', { scope: 'col', class: (n ? 'n ' : '') + 'col-' + text.toLowerCase().replace('/', '') }, text)))),
      h('tbody', null, s.servers.map(v => {
        const state = serverState(v);
        const f = flows[s.full_name + '/' + v.member] || {};
        return h('tr', { 'data-key': 'v ' + v.member, 'data-open': '', class: 'item server is-' + state.is, tabindex: -1 },
          cell('Server', [h('span', { class: 'name' }, v.member), ' ', h('span', { class: 'dim' }, (v.role || '') + (v.backup ? ' (backup)' : '')), h('div', { class: 'dim small' }, v.address)]),
          cell('State', [stated(state), h('div', { class: 'dim small' }, 'for ' + span(now - Date.parse(v.since)))]),
          number('Sessions', count(v.sessions) + (v.limit ? ' of ' + count(v.limit) : '')), number('Most', count(v.sessions_max)), number('Total', count(v.total)),
          number('New/s', rate(f.rate)), number('In', bytes(f.in) + '/s'), number('Out', bytes(f.out) + '/s'), number('Queue', v.held ? count(v.held) : '', v.held ? 'alarm' : ''),
          number('Weight', v.weight + (v.throttle !== undefined && v.throttle !== null ? ` (${v.throttle} %)` : '') + (v.weight !== v.declared_weight && v.order ? ` (declared ${v.declared_weight})` : '')),
          cell('Why', [h('span', { class: 'why' }, v.reason), ordered(v, now), acts(world, { cluster: clusterName, service: s.full_name, member: v.member }, v)], 'wide'));
      })))) : null);
}

function members(world, c) {
  const now = world.now;
  return h('section', { 'aria-label': 'Members' }, h('h3', null, 'Members'), h('div', { class: 'scroll' }, h('table', { class: 'members' },
    h('thead', null, h('tr', null, ['Member', 'Role', 'State', 'Lag', 'Timeline', 'What its Patroni said'].map((t, i) => h('th', { scope: 'col', class: i === 3 || i === 4 ? 'n' : null }, t)))),
    h('tbody', null, c.members.map(m => {
      const servers = c.services.flatMap(s => s.servers.filter(v => v.member === m.name));
      const key = c.leader_key && c.leader_key.holder === m.name;
      const orders = servers.filter(v => v.order && v.order.state !== 'ready');
      return h('tr', { 'data-key': 'm ' + m.name, 'data-open': '', class: 'item is-' + memberState(c, m.name).is, tabindex: -1 },
        cell('Member', [h('span', { class: 'name' }, (m.role === 'primary' ? '★ ' : '') + m.name), h('div', { class: 'dim small' }, m.host)]),
        cell('Role', [m.role, m.declared_role !== m.role && h('div', { class: 'dim small' }, 'declared ' + m.declared_role), key && h('div', { class: 'dim small' }, 'holds the leader key')]),
        cell('State', [stated(memberState(c, m.name)), m.state && h('div', { class: 'dim small' }, 'PostgreSQL ' + m.state)]),
        number('Lag', m.lag_bytes === undefined || m.lag_bytes === null ? '–' : bytes(m.lag_bytes)),
        number('Timeline', m.timeline || '–'),
        cell('Patroni', [m.answer, m.answered && h('span', { class: 'dim' }, `, ${span(now - Date.parse(m.answered))} ago`), m.remark && h('div', { class: 'order' }, m.remark),
          servers.length ? acts(world, { cluster: c.name, member: m.name }, orders.length ? orders[0] : { order: null }) : null], 'wide'));
    })))));
}

function address(vip, now) {
  return h('p', { class: 'fact' }, h('b', null, vip.address), ' ', vip.here ? `is here since ${clock(vip.since)}` : "isn't here", ` (${vip.why})`, vip.interface && ` on ${vip.interface}`, vip.problem && h('span', { class: 'alarm' }, ' ' + vip.problem));
}

export function cluster(world, name, width, calm) {
  const row = world.rows.get(name), detail = world.detail;
  if (!row) return [h('p', { class: 'empty' }, world.rows.size ? `There is no cluster ${name} here.` : 'waiting for the first word …')];
  const head = h('div', { class: 'cluster-head' }, h('h2', null, name), judged(row.is), row.primary && h('span', { class: 'dim' }, 'primary ', h('b', null, row.primary)));
  const words = row.words && h('ul', { class: 'words is-' + row.is }, row.words.map(w => h('li', null, w)));
  if (!detail || (detail.cluster ? detail.cluster.name : tcpName) !== name) return [head, words, h('p', { class: 'dim' }, 'waiting for the first word …')];
  const c = detail.cluster;
  const services = c ? c.services : detail.generic_services;
  const recent = world.events.filter(e => !e.cluster || e.cluster === name);
  return [
    head, words,
    c && c.leader_key && h('p', { class: 'fact' }, 'leader key: ', h('b', null, c.leader_key.holder || 'nobody'), c.leader_key.lost && h('span', { class: 'alarm' }, ` (lost: ${c.leader_key.lost})`)),
    c && c.vip && address(c.vip, world.now),
    c && h('div', { class: 'pictured' }, picture(detail, width, calm)),
    h('div', { class: 'live' }, charts(world, services),
      h('section', { class: 'recent', 'aria-label': 'What happened lately' }, h('h3', null, 'Lately'), recent.length ? events(world, name, 9) : h('p', { class: 'dim' }, 'Nothing has been noted yet.'))),
    services.map(s => service(world, c ? name : '', s, detail.flows)),
    c && members(world, c),
    recent.length > 9 && h('section', { 'aria-label': 'What happened' }, h('h3', null, 'What happened'), events(world, name, 60)),
  ];
}

// notices are what an operator should know of the node itself.
export function notices(head, now) {
  if (!head) return [];
  const all = [];
  const say = (is, ...text) => all.push(h('p', { class: 'notice is-' + is }, h('span', { class: 'sign', 'aria-hidden': 'true' }, judgements[is].sign), ' ', ...text));
  for (const l of head.stalled || []) say('ill', `${l.loop} stands still since ${clock(l.since)}`);
  const c = head.config;
  if (c.refused) say('look', h('span', null, 'The last configuration was refused, the one before goes on: '), h('span', { class: 'pre' }, c.refused));
  if (head.shadow) say('look', `A shadow beside HAProxy (${head.shadow.haproxy}): it shows what it would do, and serves ${(head.shadow.taken || []).join(', ') || 'nobody'}.`);
  if (head.upgrade && head.upgrade.problem) say('look', `The last upgrade failed at ${moment(head.upgrade.at, now)}: ${head.upgrade.problem}`);
  if (head.page && head.page.problem) say('look', `Nothing of pgporter answers at ${head.page.listen}: ${head.page.problem}`);
  if (head.page && head.page.warning) say('look', head.page.warning);
  if (c.plan && c.plan.unkept) say('look', `The plan isn't kept for the next start: ${c.plan.unkept}`);
  if (c.plan && c.plan.instead) say('look', `The plan that was accepted last runs instead of the file: ${c.plan.instead}`);
  if (head.log_lines_dropped) say('look', `${plural(head.log_lines_dropped, 'line', 'lines')} of the log were dropped: nobody read them in time`);
  return all;
}

export function foot(head, last, now) {
  if (!head) return [];
  const c = head.config;
  const facts = [
    ['version', head.version], ['engine', head.engine], ['process', `${head.pid}, up ${span(now - Date.parse(head.started))}`],
    ['configuration', `${c.generation} of ${moment(c.loaded, now)} from ${c.source}${c.sent ? `, sent by ${c.sent.sender} from ${c.sent.from}` : ''}${c.refusals ? `, ${plural(c.refusals, 'refusal', 'refusals')}` : ''}`],
    head.names && head.names.names && ['names', `${count(head.names.names)}${head.names.listen ? ' at ' + head.names.listen : ''}`],
    head.page && ['page', `${head.page.listen}${head.page.actions ? '' : ', shows only'}`],
    c.control && ['control', c.control],
    head.upgrade && !head.upgrade.problem && ['upgrade', `${moment(head.upgrade.at, now)}, took ${plural(head.upgrade.sessions, 'session', 'sessions')} over from ${head.upgrade.version || 'another process'}`],
    last && ['open files', `${count(last.files_open)}${head.process.files_limit ? ' of ' + count(head.process.files_limit) : ''}`],
    last && last.memory_bytes && ['memory', bytes(last.memory_bytes)],
  ].filter(Boolean);
  return [h('dl', { class: 'facts' }, facts.map(([k, v]) => h('div', null, h('dt', null, k), h('dd', null, v)))), ...(c.assumed || []).map(a => h('p', { class: 'dim' }, 'assumed: ' + a)),
    h('p', { class: 'dim' }, h('a', { href: 'status' }, 'status as JSON'), ' · ', h('a', { href: 'plain' }, 'without scripts'), ' · ', h('a', { href: 'metrics' }, 'metrics'))];
}
