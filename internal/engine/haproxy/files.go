package haproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pgporter/pgporter/internal/render/fileset"
	"github.com/pgporter/pgporter/internal/render/haproxycfg"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// changesTo finds what has to be done in a directory so that it holds a layout. Files of ours that aren't in it are removed,
// those of anybody else stay.
func changesTo(dir string, l *layout) ([]fileset.Change, error) {
	changes, err := fileset.Compare(dir, l.files, func(path string, s stamp.Stamp) bool {
		return s.Kind == stamp.HAProxy && filepath.ToSlash(filepath.Dir(path)) == confDir
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %s: %w", dir, err)
	}
	return changes, nil
}

// undoing gives the changes that take others back.
func undoing(changes []fileset.Change) []fileset.Change {
	back := slices.Clone(changes)
	for i := range back {
		c := &back[i]
		c.Old, c.New, c.Added, c.Removed = c.New, c.Old, c.Removed, c.Added
	}
	return back
}

// check has the real HAProxy read a directory's files as they would be with a layout, beside them: nothing in the directory
// changes. The error has HAProxy's own words, with the paths that the files are going to have.
func check(ctx context.Context, binary, dir string, l *layout) error {
	trial, err := os.MkdirTemp(dir, ".pgporter-check-")
	if err != nil {
		return fmt.Errorf("a directory to check the configuration: %w", err)
	}
	defer os.RemoveAll(trial)
	if err := os.Mkdir(filepath.Join(trial, confDir), 0o755); err != nil {
		return err
	}
	ours := map[string]bool{}
	base := filepath.Join(dir, haproxycfg.BaseFile)
	for _, f := range l.files {
		ours[f.Path] = true
		if err := os.WriteFile(filepath.Join(trial, filepath.FromSlash(f.Path)), []byte(f.Text), 0o600); err != nil {
			return err
		}
		if f.Path == haproxycfg.BaseFile {
			base = filepath.Join(trial, haproxycfg.BaseFile)
		}
	}
	if err := copyOthers(filepath.Join(dir, confDir), filepath.Join(trial, confDir), ours); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, binary, "-W", "-c", "-f", base, "-f", filepath.Join(trial, confDir))
	// The base file may name files relative to its directory.
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	said := alerts(strings.ReplaceAll(string(output), trial, dir))
	if said == "" {
		if failed := (*os.PathError)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		return fmt.Errorf("%s -c: %w", binary, err)
	}
	return fmt.Errorf("haproxy -c refuses the new configuration: %s", said)
}

// copyOthers brings the files that are somebody else's to where the configuration is checked.
func copyOthers(from, to string, ours map[string]bool) error {
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		// What HAProxy reads of a directory (configuration manual 2.6, section 2 of the starter guide, option -f).
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".cfg") || ours[confDir+"/"+name] {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if _, stamped := stamp.Of(name, string(text)); stamped {
			continue // it is going to be removed
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// alerts are the lines that tell what is wrong, without their heads.
func alerts(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if _, text, isAlert := strings.Cut(line, "[ALERT]"); isAlert {
			if _, after, found := strings.Cut(text, " : "); found {
				text = after
			}
			said = append(said, strings.TrimSpace(text))
		}
	}
	return strings.Join(said, "; ")
}

// probe says whether somebody else has an address already. HAProxy itself would share a port with another process of the
// same user and say nothing.
func probe(p proxy) error {
	ip := p.ip
	if ip == "*" {
		ip = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(p.port)))
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("service %s: %s is taken by another process", p.name, p.address())
	}
	// An address that isn't there yet, a port that only HAProxy may open: its own reload tells.
	return nil
}
