package sandbox

import (
	"strings"
	"testing"
)

// TestBeginRefused: what runs already, what Patroni starts, and what isn't there is refused; PID knows what runs.
func TestBeginRefused(t *testing.T) {
	running := sleeper(t, "/")
	s := planted(t, func(r *record) { r.Processes["etcd"] = running })
	for what, want := range map[string]string{
		"etcd":       "etcd is running already",
		"1/postgres": "started by its Patroni",
		"1/nonsense": `the sandbox has no "1/nonsense"`,
	} {
		if err := s.Begin(t.Context(), what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	if pid, runs := s.PID("etcd"); !runs || pid != running.PID {
		t.Errorf("etcd is process %d, %v; want %d", pid, runs, running.PID)
	}
	for _, what := range []string{"1/patroni", "1/nonsense"} {
		if pid, runs := s.PID(what); runs {
			t.Errorf("%s is process %d, and nobody started it", what, pid)
		}
	}
}

// TestAdminPort: a pgporter is waited for where it tells its status.
func TestAdminPort(t *testing.T) {
	for want, config := range map[string]Config{
		"127.0.5.11:8432":  {Dir: t.TempDir(), Prefix: "127.0.5"},
		"10.10.10.11:8432": {Dir: t.TempDir(), Netns: true},
	} {
		l := mustLayout(t, config)
		p, err := l.part("1/pgporter")
		if err != nil {
			t.Fatal(err)
		}
		if all := l.ports(p); all[len(all)-1] != want {
			t.Errorf("listens on %v, want %s among them", all, want)
		}
	}
}
