package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/model"
)

// keptFile is the plan that was accepted last, in the state directory.
const keptFile = "plan.json"

// planned is a Source that has a plan for this one node, which can be kept.
type planned interface {
	Source
	// Digest is that of what the node's own file says now; empty if it can't be read.
	Digest() string
	// Fits says why a plan for a node isn't for this one.
	Fits(node string) error
}

// acceptance is how the running plan came here, and whether it is kept.
type acceptance struct {
	intake.Accepted
	made intake.Made
	// hash is the plan's Digest.
	hash string
	// kept is the file that it is kept in, unkept why it isn't though it ought to be.
	kept, unkept string
	// instead is why it runs instead of what the node's own file says.
	instead string
}

// first chooses what to begin with, given what the Source has loaded or why it couldn't: the last accepted plan goes on as long as
// the node's own file says what it said when that was accepted. A file that has changed since goes before the kept plan, and the kept
// plan before a file that can't be used. Where that turns out not to be possible, there is another one as a rule.
func (d *Daemon) first(l Loaded, failed error) (one Loaded, other *Loaded, err error) {
	source, is := d.cfg.Source.(planned)
	if d.cfg.StateDir == "" || !is {
		return l, nil, failed
	}
	path := filepath.Join(d.cfg.StateDir, keptFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return l, nil, failed
	}
	kept, err := d.readKept(path, source)
	if err != nil {
		if failed == nil {
			d.log.Warn("the plan that was kept can't be used, the configuration is taken as it is now", "source", source.Name(), "problems", err.Error())
		}
		return l, nil, together(failed, err)
	}
	a := kept.Accepted
	again := Loaded{Plan: kept.Plan, Base: kept.Base, Page: kept.Page, Etcd: kept.Etcd, Made: &kept.Made, Accepted: a, Kept: true, Secrets: l.Secrets}
	if a.From != "" {
		again.Sent = &Sent{Source: a.Source, Sender: a.Sender, From: a.From}
	}
	if d.names() == nil {
		again.Plan.Names, again.Plan.Elsewhere = nil, nil
	}
	about := []any{"source", source.Name(), "kept", path, "accepted", a.At, "from", cmp.Or(a.From, "the file"), "sender", a.Sender}
	switch {
	case d.cfg.Inherited != nil && len(d.cfg.Inherited.order) == 0:
		// The process before goes by its file, and is there still.
		return asKept(l, kept), nil, failed
	case failed != nil:
		d.log.Warn("the configuration can't be used: this node goes on with the plan that it accepted last", append(about, "problems", failed.Error())...)
		again.Instead = failed.Error()
		return again, nil, nil
	case d.cfg.Inherited != nil:
		return l, nil, nil
	case a.From == "":
		return asKept(l, kept), nil, nil
	case a.File != l.Digest:
		d.log.Warn("the file has changed since a plan was sent: it counts, and the plan that was sent is over", about...)
		return l, nil, nil
	}
	d.log.Info("this node goes on with the plan that was sent to it: the file hasn't changed since", about...)
	again.Base, again.Page, again.Etcd = l.Base, l.Page, l.Etcd
	l.Temporary = true
	return again, &l, nil
}

// asKept gives a configuration with when it was accepted, if it is the one that was kept.
func asKept(l Loaded, kept intake.File) Loaded {
	hash, err := intake.Digest(model.Node{Plan: l.Plan, Etcd: l.Etcd, Base: l.Base, Page: l.Page})
	if a := kept.Accepted; err == nil && hash == kept.SHA256 && a.From == "" && l.Digest == a.File {
		l.Accepted, l.Kept = a, true
	}
	return l
}

// together joins two errors so that both are told as problems of the input if they are.
func together(failed, kept error) error {
	var problems, more diag.Problems
	switch {
	case failed == nil:
		return nil
	case errors.As(failed, &problems) && errors.As(kept, &more):
		return append(problems, more...)
	}
	return errors.Join(failed, kept)
}

// readKept reads the plan that was kept, and says why it can't be gone by.
func (d *Daemon) readKept(path string, source planned) (intake.File, error) {
	kept, problems := readPlan(path, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o022 != 0 {
			return fmt.Errorf("others than its owner may write it (mode %04o)", mode)
		}
		if owner, is := info.Sys().(*syscall.Stat_t); is && int(owner.Uid) != os.Geteuid() && owner.Uid != 0 && os.Geteuid() != 0 {
			return fmt.Errorf("it belongs to the user with id %d", owner.Uid)
		}
		return nil
	})
	if err := problems.Err(); err != nil {
		return intake.File{}, err
	}
	switch {
	case kept.Accepted == nil || kept.SHA256 == "":
		return intake.File{}, fmt.Errorf("%s: it isn't a plan that a pgporter has kept: it doesn't say when it was accepted, or has no sha256", path)
	case (kept.Base != nil) != (d.cfg.HAProxy != nil):
		return intake.File{}, fmt.Errorf("%s: it is for another engine", path)
	}
	if err := source.Fits(kept.Plan.Node); err != nil {
		return intake.File{}, fmt.Errorf("%s: %w", path, err)
	}
	return kept, nil
}

// keep notes how a configuration that was taken came here, and keeps it for the next start. It is called with d.taking held.
func (d *Daemon) keep(l Loaded) {
	source, is := d.cfg.Source.(planned)
	if !is {
		return
	}
	page := d.pageOf(l)
	d.mu.Lock()
	node, now := model.Node{Plan: l.Plan, Etcd: d.etcd, Base: d.base, Page: page}.WithoutSecrets(), d.loaded.UTC().Truncate(time.Second)
	d.mu.Unlock()
	a := acceptance{instead: l.Instead, Accepted: intake.Accepted{At: now, Source: intake.Printable(source.Name()), File: l.Digest}}
	switch {
	case l.Accepted != nil:
		a.Accepted = *l.Accepted
	case l.Sent != nil:
		a.Accepted = intake.Accepted{At: now, Source: l.Sent.Source, Sender: l.Sent.Sender, From: l.Sent.From, File: source.Digest()}
	}
	a.made = intake.Made{By: d.cfg.Version, At: a.At, From: intake.Printable(filepath.Base(a.Source))}
	if l.Made != nil {
		a.made = *l.Made
	}
	var err error
	if a.hash, err = intake.Digest(node); err == nil && d.cfg.StateDir != "" {
		err = d.write(l, node, &a)
	}
	if err != nil {
		a.unkept = err.Error()
		d.log.Error("the plan runs and couldn't be kept: the next start won't have it", "problem", err.Error())
	}
	d.mu.Lock()
	d.acceptance = a
	d.mu.Unlock()
}

// write writes the plan into the state directory, unless it is there already.
func (d *Daemon) write(l Loaded, node model.Node, a *acceptance) error {
	path := filepath.Join(d.cfg.StateDir, keptFile)
	switch {
	case l.Temporary:
		return errors.New("what was kept was accepted later, and can't be taken now: it stays")
	case !l.Kept:
		if err := WritePlan(path, intake.File{Made: a.made, Accepted: &a.Accepted, Node: node}); err != nil {
			return err
		}
	}
	a.kept = path
	return nil
}

// status is what the status says of it; nil where there is no such plan.
func (a acceptance) status() *api.Plan {
	if a.hash == "" {
		return nil
	}
	shown := &api.Plan{Hash: a.hash, Origin: api.FromFile, Accepted: a.At, MadeBy: a.made.By, Made: a.made.At, MadeFrom: a.made.From,
		Kept: a.kept, Unkept: a.unkept, Instead: a.instead}
	if a.From != "" {
		shown.Origin = api.FromControl
	}
	return shown
}

// withPassword completes what haproxy.cfg is made of: a plan has no password, so it is in a file, the one that was said or the one
// that the plan names.
func (d *Daemon) withPassword(b *model.Base) (*model.Base, error) {
	if b == nil || !b.Auth || d.cfg.HAProxy == nil || d.cfg.HAProxy.System {
		return b, nil
	}
	file := d.cfg.HAProxyPassword
	if file == "" && b.AdminPassword != "" {
		return b, nil
	}
	if file = cmp.Or(file, b.PasswordFile); file == "" {
		return nil, errors.New("HAProxy's statistics page asks for a password, and nothing says where that is: --haproxy-password-file FILE")
	}
	password, err := FirstLine(file)
	if err == nil && password == "" {
		err = fmt.Errorf("%s: its first line is empty", file)
	}
	if err != nil {
		return nil, fmt.Errorf("the password of HAProxy's statistics page, which a plan doesn't hold: %w (another file: --haproxy-password-file)", err)
	}
	complete := *b
	complete.AdminPassword = model.Secret(password)
	return &complete, nil
}

// mostNamed is how many variables with secrets are named.
const mostNamed = 10

// tellSecrets warns of an inventory with secrets on the node.
func (d *Daemon) tellSecrets(names []string) {
	if len(names) == 0 {
		return
	}
	shown := strings.Join(names[:min(len(names), mostNamed)], " ")
	if more := len(names) - mostNamed; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	d.log.Warn("the inventory that this node reads holds secrets, and a node needs a plan alone, which holds none: pgporter plan makes it, run --plan takes it",
		"inventory", d.cfg.Source.Name(), "variables", len(names), "names", shown)
}
