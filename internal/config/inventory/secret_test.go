package inventory

import (
	"strings"
	"testing"
)

// What a secret went into is known for it, and what has to do with none isn't.
func TestAttackSecretsAreKnownByProvenance(t *testing.T) {
	const text = `
all:
  vars:
    a_password: &a s3cret
    users: [ { name: u, password: p1 }, { name: v, password: p2, comment: c } ]
    settings: { s3_key: k, region: r }
    plain: x
    url: postgres://u:hunter2@h/db
    conninfo: host=h password = hunter2
    open_url: http://h:80/a@b
    vaulted: !vault |
      $ANSIBLE_VAULT;1.1;AES256
  children: { tokens: { vars: { of_group: y }, hosts: { key-1: { own_secret: z } } } }
  hosts:
    h:
`
	for value, want := range map[string]string{
		"*a":                   "a_password",
		"[ 1, *a ]":            "a_password",
		"{ b: [ *a ] }":        "a_password",
		"{ b_secret: *a }":     "",
		"{{ a_password }}":     "a_password",
		"x{{ a_password[0] }}": "a_password",
		"{{ 'yes' if a_password == 'x' else 'no' }}": "a_password",
		"{{ a_password | length }}":                  "a_password",
		"{{ a_password is defined }}":                "",
		"{{ users[0].password is defined }}":         "",
		"{{ a_password is defined and a_password }}": "a_password",
		"{{ hostvars.h.a_password is undefined }}":   "",
		"{{ 1 if a_password is defined else 2 }}":    "",
		"{{ url }}":                          "a password in a text",
		"{{ conninfo }}":                     "a password in a text",
		"{{ url.split('/')[2] }}":            "a password in a text",
		"{{ open_url }}":                     "",
		"{{ hostvars.h.a_password }}":        "a_password",
		"{{ vars.a_password }}":              "a_password",
		"{{ hostvars['key-1'].own_secret }}": "own_secret",
		"{{ hostvars['key-1'].of_group }}":   "",
		"{{ users }}":                        "",
		"{{ users + users }}":                "",
		"{{ users[1] }}":                     "",
		"{{ users | selectattr('name', 'eq', 'u') | list }}": "",
		"{{ users | map(attribute='name') | list }}":         "",
		"{{ users[0].name }}":                                "",
		"{{ users | map(attribute='password') | list }}":     "password",
		"{{ users[0].password }}":                            "password",
		"{{ users | string }}":                               "password",
		"{{ users }}.":                                       "password",
		"{{ users ~ '' }}":                                   "password",
		"{{ (users ~ '') | replace('password', 'name') }}":   "password",
		"{{ users[0].values() | list }}":                     "password",
		"{{ users[0].items() | list }}":                      "password",
		"{{ users[0] == users[0] }}":                         "password",
		"{{ users | map('extract', {'u': 1}) | list }}":      "",
		"{{ users[0].get('password') }}":                     "password",
		"{{ settings }}":                                     "",
		"{{ settings.region }}":                              "",
		"{{ settings.s3_key }}":                              "s3_key",
		"{{ settings['s3_' ~ 'key'] }}":                      "s3_key",
		"{{ nosuch_password | default('x') }}":               "",
		"{{ plain }}":                                        "",
		"{{ groups | length }}":                              "",
		"{{ groups['tokens'] | first }}":                     "",
	} {
		if strings.HasPrefix(value, "{{") || strings.HasSuffix(value, "}}") {
			value = `"` + value + `"`
		}
		// Twice removed it is the same.
		inv := read(t, text+"      v: "+value+"\n      w: \"{{ v }}\"\n")
		h, _ := inv.Host("h")
		for _, name := range []string{"v", "w"} {
			v, _ := inv.Templates(nil).Var(h, name)
			if problem, unreadable := v.Unreadable(name); unreadable && value != `"{{ users | map('extract', {'u': 1}) | list }}"` {
				t.Fatal(problem)
			}
			if got := v.Tainted(); got != want {
				t.Errorf("%s of %s is made of %q, want %q", name, value, got, want)
			}
		}
	}
}
