package model

import (
	"maps"
	"regexp"
)

// Node is all that a node runs from: its Plan, and beside it what reading etcd and a HAProxy take, where the passwords are.
type Node struct {
	Plan Plan `json:"plan"`
	// Etcd says how the leader keys of clusters are read, by their names; empty where nothing is said of etcd.
	Etcd map[string]Etcd `json:"etcd,omitempty"`
	// Base is what HAProxy's own file is made of; nil for a node whose services the native engine carries.
	Base *Base `json:"haproxy,omitempty"`
	// Page is where pgporter itself answers in HAProxy's place; nil where HAProxy does, or nobody.
	Page *Page `json:"page,omitempty"`
}

// passwordForm is where the files of passwords are that a Node names. It reaches no other file: whoever writes a plan also says
// whom the password is shown to.
var passwordForm = regexp.MustCompile(`^/etc/pgporter/[A-Za-z0-9][A-Za-z0-9_.-]*\.password$`)

// IsPasswordFile tells whether a plan may name a file for a password.
func IsPasswordFile(path string) bool { return passwordForm.MatchString(path) }

// PagePasswordFile is where a node has the password of its statistics page, HAProxy's or pgporter's, unless it is told otherwise.
const PagePasswordFile = "/etc/pgporter/haproxy.password"

// EtcdPasswordFile is where a node has the password of a user in etcd, unless it is told otherwise.
func EtcdPasswordFile(user string) string { return "/etc/pgporter/etcd-" + user + ".password" }

// WithoutSecrets is the same without passwords; where there was one, or ought to be, the file is named that has it.
func (n Node) WithoutSecrets() Node {
	n.Etcd = maps.Clone(n.Etcd)
	for name, e := range n.Etcd {
		if e.Password = ""; e.User != "" && e.PasswordFile == "" {
			e.PasswordFile = EtcdPasswordFile(e.User)
		}
		n.Etcd[name] = e
	}
	if n.Base != nil {
		base := *n.Base
		if base.AdminPassword = ""; base.Auth && base.PasswordFile == "" {
			base.PasswordFile = PagePasswordFile
		}
		n.Base = &base
	}
	if n.Page != nil {
		page := *n.Page
		if page.Password = ""; page.Actions && page.PasswordFile == "" {
			page.PasswordFile = PagePasswordFile
		}
		n.Page = &page
	}
	return n
}
