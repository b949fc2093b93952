// Logging in, and orders: each says first what it will do.
import { fill, h } from './dom.js';

const dialog = () => document.getElementById('dialog');

// ask sends something to the server, and gives its answer or throws why not.
async function ask(path, body, csrf) {
  const headers = { 'Content-Type': 'application/json' };
  if (csrf) headers['X-CSRF-Token'] = csrf;
  let answer;
  try {
    answer = await fetch(path, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), credentials: 'same-origin', cache: 'no-store' });
  } catch {
    throw new Error('this pgporter doesn\'t answer');
  }
  const text = await answer.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(text.slice(0, 300) || answer.statusText);
  }
  if (!answer.ok) {
    const e = new Error(value.error || answer.statusText);
    e.code = answer.status;
    throw e;
  }
  return value;
}

// open shows a dialog with a title.
export function open(title, ...content) {
  const d = dialog();
  d.replaceChildren(h('h2', { id: 'dialog-title' }, title), ...content);
  if (!d.open) d.showModal();
  const first = d.querySelector('input, button.go');
  if (first) first.focus();
}

export const close = () => { if (dialog().open) dialog().close(); };

const problem = (form, text) => fill(form.querySelector('.problem'), text ? [document.createTextNode(text)] : []);

export class Acting {
  constructor(changed) {
    this.state = { actions: false, why: '' };
    this.changed = changed;
  }

  async refresh() {
    try {
      this.set(await ask('session'));
    } catch { /* it is asked again when somebody wants to act */ }
  }

  set(state) {
    this.state = state;
    this.changed(state);
  }

  // press is the button at the top.
  press() {
    if (this.state.user) this.leave();
    else if (this.state.actions) this.login();
    else open('This page only shows', h('p', null, this.state.why), h('p', { class: 'buttons' }, h('button', { type: 'button', 'data-do': 'close' }, 'Close')));
  }

  login(then) {
    const form = h('form', { method: 'dialog', class: 'login' },
      h('label', null, 'Name', h('input', { name: 'user', autocomplete: 'username', required: true, value: 'admin', maxlength: 200 })),
      h('label', null, 'Password', h('input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true, maxlength: 1000 })),
      h('p', { class: 'problem', role: 'alert' }),
      h('p', { class: 'buttons' }, h('button', { type: 'button', 'data-do': 'close' }, 'Cancel'), h('button', { type: 'submit', class: 'go' }, 'Log in')));
    form.addEventListener('submit', async e => {
      e.preventDefault();
      const go = form.querySelector('.go');
      go.disabled = true;
      problem(form, '');
      try {
        this.set(await ask('login', { user: form.elements.user.value, password: form.elements.password.value }));
        close();
        if (then) then();
      } catch (err) {
        problem(form, err.message);
        form.elements.password.value = '';
        form.elements.password.focus();
      }
      go.disabled = false;
    });
    open('Log in', form);
    form.elements.password.focus();
  }

  async leave() {
    try {
      this.set(await ask('logout', {}, this.state.csrf));
    } catch {
      this.refresh();
    }
  }

  // order says what an order will do, and does it when that is confirmed.
  order(what, about) {
    const name = about.member + (about.service ? ' of ' + about.service : ', in all services of ' + about.cluster);
    const order = { cluster: about.cluster || '', service: about.service || '', member: about.member };
    if (what !== 'weight') order.state = what;
    const title = { drain: 'Drain ', maint: 'Maintenance for ', ready: 'Ready again: ', weight: 'Weight of ' }[what] + name;
    const go = { drain: 'Drain', maint: 'Put into maintenance', ready: 'Make ready', weight: 'Set the weight' }[what];
    const form = h('form', { method: 'dialog', class: 'ordering' },
      what === 'weight' ? h('label', null, 'Weight, 0 to 256; empty for the declared one', h('input', { name: 'weight', type: 'number', min: 0, max: 256, step: 1 })) : null,
      h('ul', { class: 'effects', 'aria-live': 'polite' }),
      h('p', { class: 'problem', role: 'alert' }),
      h('p', { class: 'buttons' }, h('button', { type: 'button', 'data-do': 'close' }, 'Cancel'), h('button', { type: 'submit', class: 'go', disabled: true }, go)));
    const button = form.querySelector('.go');
    const full = dry => {
      const o = { ...order, dry_run: dry };
      if (what === 'weight') {
        const text = form.elements.weight.value.trim();
        if (text === '') o.declared_weight = true;
        else o.weight = Number(text);
      }
      return o;
    };
    let newest = 0;
    const tell = async () => {
      const mine = ++newest;
      button.disabled = true;
      try {
        const { results } = await ask('order', full(true), this.state.csrf);
        if (mine !== newest) return;
        problem(form, '');
        fill(form.querySelector('.effects'), results.map(r => h('li', null, h('b', null, r.service + ' · ' + r.member), ': ', r.effect)));
        button.disabled = false;
      } catch (err) {
        if (mine !== newest) return;
        fill(form.querySelector('.effects'), []);
        this.failed(form, err, () => this.order(what, about));
      }
    };
    if (what === 'weight') form.elements.weight.addEventListener('input', tell);
    form.addEventListener('submit', async e => {
      e.preventDefault();
      button.disabled = true;
      try {
        await ask('order', full(false), this.state.csrf);
        close();
      } catch (err) {
        this.failed(form, err, () => this.order(what, about));
        button.disabled = false;
      }
    });
    open(title, form);
    tell();
  }

  failed(form, err, again) {
    if (err.code === 401) {
      this.refresh();
      this.login(again);
    } else {
      problem(form, err.message);
    }
  }
}
