package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Lines of pg_hba.conf between which local replication is refused. The first that matches counts, so they are in front.
const (
	refusalBegins = "# refused for a test\n"
	refusalEnds   = "# end of what is refused for a test\n"
)

// RefuseReplication has a member's PostgreSQL refuse replication connections from its own machine, as one does whose pg_hba.conf forgets
// localhost, or take them again. On loopback addresses everybody is on its own machine: a leader would refuse its replicas too.
//
// Patroni writes the file anew when it starts PostgreSQL, and the refusal is gone then.
func (s *Sandbox) RefuseReplication(member string, refuse bool) error {
	m, err := s.layout.member(member)
	if err != nil {
		return err
	}
	r, err := s.current()
	if err != nil {
		return err
	}
	server, running := s.find(r, part{postgresKind, m})
	if refuse && !running {
		return fmt.Errorf("PostgreSQL of %s: %w", m.Name, errEnded)
	}
	path := filepath.Join(s.layout.data(m), "pg_hba.conf")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !refuse {
		return nil // a member that is being made anew, without the lines
	}
	if err != nil {
		return fmt.Errorf("pg_hba.conf of %s: %w", m.Name, err)
	}
	changed := withoutRefusal(string(text))
	if refuse {
		changed = s.layout.refusal(m) + changed
	}
	if changed == string(text) {
		return nil
	}
	// Written over and not replaced: it stays its owner's.
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return fmt.Errorf("pg_hba.conf of %s: %w", m.Name, err)
	}
	if running {
		if err := server.signal(syscall.SIGHUP); err != nil && !errors.Is(err, errEnded) {
			return err
		}
	}
	return nil
}

// refusal are the lines in front.
func (l layout) refusal(m Member) string {
	var b strings.Builder
	b.WriteString(refusalBegins)
	for _, from := range []string{"127.0.0.0/8", "::1/128", m.Address + "/32"} {
		fmt.Fprintf(&b, "host replication all %s reject\n", from)
	}
	b.WriteString("local replication all reject\n" + refusalEnds)
	return b.String()
}

// withoutRefusal takes the lines of a refusal out.
func withoutRefusal(text string) string {
	before, rest, found := strings.Cut(text, refusalBegins)
	if !found {
		return text
	}
	_, after, _ := strings.Cut(rest, refusalEnds)
	return before + after
}
