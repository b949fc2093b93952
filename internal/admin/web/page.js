const el = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const row = (cells, cls) => { const tr = el('tr', undefined, cls); for (const c of cells) tr.append(c instanceof Node ? c : el('td', c)); return tr; };
const table = (heads) => { const t = el('table'), tr = el('tr'); for (const h of heads) tr.append(el('th', h)); const head = el('thead'); head.append(tr); const body = el('tbody'); t.append(head, body);
  const wide = el('div', undefined, 'wide'); wide.append(t); return [wide, body]; };
const span = ms => { let s = Math.max(0, Math.round(ms / 1000)); if (s < 60) return s + 's'; if (s < 3600) return Math.floor(s / 60) + 'm ' + s % 60 + 's';
  if (s < 86400) return Math.floor(s / 3600) + 'h ' + Math.floor(s % 3600 / 60) + 'm'; return Math.floor(s / 86400) + 'd ' + Math.floor(s % 86400 / 3600) + 'h'; };
function show(s) {
  const now = new Date(s.now);
  document.getElementById('head').textContent = `${s.version} · ${s.node || 'discovered members'} · ${s.config.source}${s.config.sent ? `, sent by ${s.config.sent.sender} from ${s.config.sent.from}` : ''} · up ${span(now - new Date(s.started))} · configuration ${s.config.generation}`;
  document.getElementById('error').textContent = [s.shadow && `A shadow beside HAProxy (${s.shadow.haproxy}): it serves ${(s.shadow.taken || []).join(', ') || 'nobody'}, and shows what it would do. pgporter status tells how they compare.`, ...(s.stalled || []).map(l => `${l.loop} stands still for ${span(now - new Date(l.since))}`), s.config.refused && 'The last reload was refused:\n' + s.config.refused, s.log_lines_dropped && 'Lines of the log that nobody read in time: ' + s.log_lines_dropped + ' were dropped', ...(s.config.assumed || []).map(a => 'Assumed: ' + a)].filter(Boolean).join('\n');
  const main = el('main'); main.id = 'clusters';
  for (const c of s.clusters) {
    main.append(el('h2', c.name));
    const [services, body] = table(['Service', 'Listens on', 'Server', 'Address', 'Role', 'State', 'Sessions', 'For', 'Why']);
    for (const v of c.services) {
      v.servers.forEach((r, i) => {
        // A server that is down is alarming only where nobody serves, or where its PostgreSQL isn't well.
        const what = r.serving ? 'serving' : r.up ? 'idle' : v.up && r.reason.endsWith(' running') ? 'out' : 'down';
        const word = el('td', undefined, 'word'); word.append(el('span', undefined, 'dot'), r.serving ? 'serving' : r.up ? (r.backup ? 'backup, ready' : 'ready') : 'down');
        const member = r.member + (r.backup ? ' (backup)' : '');
        body.append(row([i ? '' : v.full_name + (v.held ? ` (${v.held} waiting)` : ''), i ? '' : v.shadow ? '(shadow)' : v.listen, member, r.address, r.role, word, el('td', r.sessions, 'n'), span(now - new Date(r.since)), r.reason], what + (i ? '' : ' first')));
      });
      if (!v.servers.length) body.append(row([v.full_name, v.listen, '(no server)', '', '', '', '', '', 'the selector matches no member'], 'down first'));
    }
    main.append(services);
    const [members, list] = table(['Member', 'Host', 'Role', 'Declared', 'PostgreSQL', 'Timeline', 'Last answer of its Patroni']);
    for (const m of c.members) list.append(row([m.name, m.host, m.role, m.declared_role, m.state || '', el('td', m.timeline || '', 'n'), m.answer + (m.answered ? `, ${span(now - new Date(m.answered))} ago` : '') + (m.remark ? `; ${m.remark}` : '')]));
    main.append(members);
  }
  document.getElementById('clusters').replaceWith(main);
}
async function ask() {
  try {
    const res = await fetch('status', { cache: 'no-store' });
    if (!res.ok) throw new Error(res.status + ' ' + res.statusText);
    show(await res.json());
  } catch (e) { document.getElementById('error').textContent = 'No answer from this pgporter: ' + e.message; }
  setTimeout(ask, 1000);
}
ask();
