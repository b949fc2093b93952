package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// planted makes a sandbox directory as Up leaves it, with a state but without programs.
func planted(t *testing.T, change func(*record)) *Sandbox {
	t.Helper()
	dir := filepath.Join(realTempDir(t), "sandbox")
	l := mustLayout(t, Config{Dir: dir, Members: 1})
	for _, path := range []string{l.home(l.members[0]), l.etcdHome(), l.logDir(), l.sockets} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.log(part{kind: etcdKind}), []byte("first line\nlast line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := record{
		Version: stateVersion, Phase: phaseUp, Config: l.config, Boot: bootID(), UID: os.Getuid(), GID: os.Getgid(),
		Sockets: l.sockets, MadeDir: true, Processes: map[string]Process{},
	}
	if change != nil {
		change(&r)
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestOpenNone(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("an empty directory: %v, want %v", err, ErrNone)
	}
}

func TestStateRefused(t *testing.T) {
	dir := realTempDir(t)
	for _, c := range []struct{ text, want string }{
		{`{"version":2,"config":{"dir":"` + dir + `"}}`, "written by another version of pgporter (2, this one knows 1)"},
		{`{"version":1,"config":{"dir":"/elsewhere"}}`, "describes the sandbox of another directory, /elsewhere"},
		{`{"version":`, "unexpected end of JSON input"},
	} {
		if err := os.WriteFile(filepath.Join(dir, stateName), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}

// TestDownEndsOnlyItsOwn: a process of the sandbox is ended, one that has got a recorded id since is not.
func TestDownEndsOnlyItsOwn(t *testing.T) {
	innocent := sleeper(t, "/")
	ours := sleeper(t, "/")
	s := planted(t, func(r *record) {
		r.Processes["etcd"] = ours
		r.Processes["pg-test-1/patroni"] = Process{PID: innocent.PID, Start: innocent.Start + 1}
	})
	lost := sleeper(t, "/", dirVariable+"="+s.Dir())
	eventually(t, "the marked process shows", func() bool { return len(leftovers(s.Dir())) == 1 })
	if err := s.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if ours.running() || lost.running() {
		t.Error("a process of the sandbox is left")
	}
	if !innocent.running() {
		t.Error("a process that isn't the sandbox's was ended")
	}
	if exists(t, s.Dir()) {
		t.Error("the directory is left")
	}
	if err := s.Down(t.Context(), false); err != nil {
		t.Errorf("a second Down: %v", err)
	}
}

// TestDownAfterReboot: ids of another boot mean nothing.
func TestDownAfterReboot(t *testing.T) {
	innocent := sleeper(t, "/")
	s := planted(t, func(r *record) {
		r.Boot = "an earlier one"
		r.Processes["etcd"] = innocent
		r.Supervisor = &innocent
	})
	if err := s.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if !innocent.running() {
		t.Error("a process of this boot was ended for one of an earlier boot")
	}
}

// TestDownEscalates: what ignores SIGTERM is killed, also when the caller has no patience left.
func TestDownEscalates(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	stubborn := start(t, "/bin/sh", "/", nil, "-c", `trap '' TERM; : >"$0"; read x`, ready)
	eventually(t, "the shell ignores SIGTERM", func() bool { return exists(t, ready) })
	s := planted(t, func(r *record) { r.Processes["pg-test-1/pgbouncer"] = stubborn })
	var logged bytes.Buffer
	s.SetProgress(&logged)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.end(ctx); err != nil {
		t.Fatal(err)
	}
	if stubborn.running() {
		t.Error("it is still there")
	}
	for _, want := range []string{"pg-test-1/pgbouncer doesn't end by SIGTERM", "killing process "} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("logged %q, want %s", logged.String(), want)
		}
	}
}

func TestDownKeepsWhatIsNotItsOwn(t *testing.T) {
	s := planted(t, nil)
	unmarked := filepath.Join(s.Dir(), "notes.txt")
	if err := os.WriteFile(unmarked, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil || len(entries) != 1 || entries[0].Name() != "notes.txt" {
		t.Errorf("left: %v, %v; want notes.txt alone", entries, err)
	}
}

func TestDownKeepsLogs(t *testing.T) {
	s := planted(t, nil)
	if err := s.Down(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if !exists(t, s.layout.log(part{kind: etcdKind})) || exists(t, s.layout.etcdHome()) {
		t.Error("want the logs to stay and the data to go")
	}
	// What is left disturbs nobody.
	again := &Sandbox{layout: s.layout, progress: newSteps(&bytes.Buffer{}), exits: map[Process]string{}}
	if made, err := again.claim(s.Dir(), false); err != nil || !made {
		t.Errorf("claim: %v, %v", made, err)
	}
	if exists(t, s.layout.logDir()) {
		t.Error("the logs of the sandbox before are left")
	}
}

func TestClaim(t *testing.T) {
	running := sleeper(t, "/")
	s := planted(t, func(r *record) { r.Processes["etcd"] = running })
	claimant := &Sandbox{layout: s.layout, progress: newSteps(&bytes.Buffer{}), exits: map[Process]string{}}
	_, err := claimant.claim(s.Dir(), false)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "etcd (process ") {
		t.Errorf("where one is running: %v", err)
	}
	if !running.running() || !exists(t, s.layout.etcdHome()) {
		t.Error("the running sandbox was touched")
	}
	unmarked := realTempDir(t)
	if err := os.WriteFile(filepath.Join(unmarked, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claimant.claim(unmarked, false); err == nil || !strings.Contains(err.Error(), "there is something in it (thesis.tex)") {
		t.Errorf("where something else is: %v", err)
	}
	if made, err := claimant.claim(realTempDir(t), true); err != nil || !made {
		t.Errorf("an empty directory: %v, %v", made, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockDir(ended, dir); !errors.Is(err, errBusy) {
		t.Errorf("a second: %v, want %v", err, errBusy)
	}
	// The one who waits must not get a file that has been removed meanwhile.
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	first.release()
	second, err := lockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer second.release()
	if _, err := lockDir(ended, dir); !errors.Is(err, errBusy) {
		t.Errorf("a third: %v, want %v", err, errBusy)
	}
}

func TestKillRefused(t *testing.T) {
	running := sleeper(t, "/")
	s := planted(t, func(r *record) { r.Processes["etcd"] = running })
	err := s.Kill(t.Context(), syscall.SIGKILL, "etcd", "1/patroni", "1/nonsense")
	for _, want := range []string{"pg-test-1/patroni: it isn't running", `the sandbox has no "1/nonsense"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if !running.running() {
		t.Error("one of the list was killed though others can't be")
	}
	if err := s.Kill(t.Context(), syscall.SIGKILL, "etcd"); err != nil {
		t.Fatal(err)
	}
	if running.running() {
		t.Error("etcd wasn't killed")
	}
}

// TestAwaitDead: who waits for a process that has ended hears why at once, and who waits in vain what was answered, if anything was.
func TestAwaitDead(t *testing.T) {
	s := planted(t, nil)
	never := func(context.Context) error { return errors.New("nobody answers") }
	err := s.await(t.Context(), "etcd answers", never, part{kind: etcdKind})
	if err == nil || !strings.Contains(err.Error(), "etcd ended; the end of "+s.layout.log(part{kind: etcdKind})+":\n    first line\n    last line") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	once := func(ctx context.Context) error {
		defer cancel(errors.New("given up"))
		return never(ctx)
	}
	err = s.await(ctx, "etcd answers", once)
	if err == nil || err.Error() != "waiting until etcd answers: given up; the last answer: nobody answers" {
		t.Errorf("got %v", err)
	}
	err = s.await(ctx, "etcd answers", never)
	if err == nil || err.Error() != "waiting until etcd answers: given up" {
		t.Errorf("nothing asked in time: got %v", err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := tail(path); !strings.Contains(got, "no such file") {
		t.Errorf("no file: %s", got)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("line\n", 5000)+"the end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path); strings.Count(got, "\n") != 14 || !strings.HasSuffix(got, "\n    the end") {
		t.Errorf("long file: %q", got)
	}
}

func TestMay(t *testing.T) {
	dir := t.TempDir()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	owner := runUser{uid: os.Getuid(), gid: -1}
	group := runUser{uid: -1, gid: int(info.Sys().(*syscall.Stat_t).Gid)}
	other := runUser{uid: -1, gid: -1}
	for _, c := range []struct {
		mode                fs.FileMode
		owner, group, other bool
	}{
		{0o700, true, false, false}, {0o710, true, true, false}, {0o711, true, true, true}, {0o011, false, true, true}, {0o644, false, false, false},
	} {
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if owner.may(info, 1) != c.owner || group.may(info, 1) != c.group || other.may(info, 1) != c.other {
			t.Errorf("%s: owner %v, group %v, other %v", c.mode, owner.may(info, 1), group.may(info, 1), other.may(info, 1))
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := other.reaches(filepath.Join(dir, "deep", "file")); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("reaches: %v, want the directory in the way", err)
	}
}
