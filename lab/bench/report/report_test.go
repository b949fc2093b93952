package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	s := Report{Path: filepath.Join(t.TempDir(), "doc.md"), Kind: "failover", System: "Debian 12"}
	mark := func(name, text string) string {
		begin, end := s.marks(name)
		return begin + text + end
	}
	others := "<!-- throughput: pause, Debian 12 -->\ntheirs\n<!-- /throughput: pause, Debian 12 -->\n" +
		"<!-- failover: pause, Debian 13 -->\nnewer\n<!-- /failover: pause, Debian 13 -->\n"
	before := "# Ours\n\n" + mark("machine", "") + "said by hand\n" + mark("pause", "old\n") + mark("switchover", "kept\n") + others
	if err := os.WriteFile(s.Path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check("pause", "switchover"); err != nil {
		t.Error(err)
	}
	if err := s.Check("pause", "nonsense"); err == nil || !strings.Contains(err.Error(), `no place for section "nonsense"`) {
		t.Errorf("a section without its lines: %v", err)
	}
	if err := s.Write(map[string]string{"machine": "2 cores\n", "pause": "new\n"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(strings.Replace(before, "old", "new", 1), mark("machine", ""), mark("machine", "2 cores\n"), 1); string(after) != want {
		t.Errorf("%s\nwant\n%s", after, want)
	}
}

func TestSystemOf(t *testing.T) {
	for text, want := range map[string]string{
		"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n": "Debian 13",
		"NAME='Ubuntu'\nVERSION_ID=24.04\n": "Ubuntu 24.04",
		"NAME=Arch\n":                       "Arch",
		"":                                  "Linux",
	} {
		if got := systemOf(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for said, want := range map[string]string{
		"pgporter v0.1.0\n":          "v0.1.0",
		"pgporter v0.1.0-14-ge13885": "v0.1.0-14-ge13885",
		"pgporter e13885e-dirty\n":   "e13885e-dirty",
	} {
		if got := ownVersion(said); got != want {
			t.Errorf("%q: %q, not %q", said, got, want)
		}
	}
	for said, want := range map[string]string{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)":          "15.18",
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy": "2.6.12-1+deb12u4",
		"etcd Version: 3.4.23\nGit SHA: Not provided":                   "3.4.23",
	} {
		if got := dotted.FindString(said); got != want {
			t.Errorf("%q: %q, not %q", said, got, want)
		}
	}
}
