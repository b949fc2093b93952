package dns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/access/dns/zone"
	"github.com/pgporter/pgporter/internal/render/fileset"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// retryFiles is how long after a failure the files are tried again.
const retryFiles = 5 * time.Second

// usable tells whether a directory is there and may be written to.
func usable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("dnsmasq's directory of names: %w", err)
	case !info.IsDir():
		return fmt.Errorf("dnsmasq's directory of names: %s is no directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("dnsmasq's directory of names: %s can't be written to: %w", dir, err)
	}
	return nil
}

// hostsFiles are the files of all clusters as names resolve now. Of two with one name the first is kept, as the Catalog keeps
// names.
func (s *Server) hostsFiles(t *published) ([]zone.HostsFile, error) {
	var all []zone.HostsFile
	taken := map[string]bool{}
	for i := range t.live {
		files, err := t.catalog.HostsFiles(i, t.live[i].Load())
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if !taken[f.Name] {
				taken[f.Name] = true
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// compare finds what has to change in a directory so that it holds files: those of ours that aren't among them are removed. A
// file under one of their names that isn't ours is an error.
func compare(dir string, files []zone.HostsFile) ([]fileset.Change, error) {
	var changes []fileset.Change
	var problems []error
	wanted := make(map[string]bool, len(files))
	for _, f := range files {
		wanted[f.Name] = true
		old, err := fileset.ReadFile(dir, f.Name)
		_, ours := stamp.Of(f.Name, old)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			changes = append(changes, fileset.Change{Path: f.Name, New: f.Text, Added: true})
		case err != nil:
			problems = append(problems, err)
		case !ours:
			problems = append(problems, fmt.Errorf("%s is there and isn't pgporter's: remove it, if it has no more use", filepath.Join(dir, f.Name)))
		case old != f.Text:
			changes = append(changes, fileset.Change{Path: f.Name, Old: old, New: f.Text})
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if wanted[entry.Name()] || !entry.Type().IsRegular() {
			continue
		}
		text, err := fileset.ReadFile(dir, entry.Name())
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue // not known to be ours
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if mark, ours := stamp.Of(entry.Name(), text); ours && mark.Kind == stamp.DNSMasq {
			changes = append(changes, fileset.Change{Path: entry.Name(), Old: text, Removed: true})
		}
	}
	return changes, errors.Join(problems...)
}

// keepHosts keeps the files at what names resolve to until ctx ends. What can't be written is tried again.
func (s *Server) keepHosts(ctx context.Context, t *published) {
	var written []zone.HostsFile
	failed := ""
	for {
		files, err := s.hostsFiles(t)
		if err == nil && (written == nil || !slices.Equal(files, written)) {
			err = s.writeHosts(files)
		}
		var tryAgain <-chan time.Time
		var timer *time.Timer
		if err != nil {
			// Said once, and again when it is another: the reason may stay for days.
			if said := err.Error(); said != failed {
				s.log.Error("dnsmasq's names can't be brought up to date, those that are there stay", "dir", s.cfg.HostsDir, "problems", said, "again_in", s.cfg.retry)
				failed = said
			}
			written = nil
			timer = time.NewTimer(s.cfg.retry)
			tryAgain = timer.C
		} else {
			if failed != "" {
				s.log.Info("dnsmasq's names are up to date again", "dir", s.cfg.HostsDir)
			}
			written, failed = files, ""
		}
		select {
		case <-ctx.Done():
		case <-t.stale:
		case <-tryAgain:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// writeHosts brings the directory up to date, as far as it can be.
func (s *Server) writeHosts(files []zone.HostsFile) error {
	changes, problem := compare(s.cfg.HostsDir, files)
	if len(changes) == 0 {
		return problem
	}
	if err := fileset.Apply(s.cfg.HostsDir, changes); err != nil {
		return errors.Join(problem, err)
	}
	for _, c := range changes {
		s.log.Debug("a name of dnsmasq's was written", "dir", s.cfg.HostsDir, "file", c.Path, "removed", c.Removed)
	}
	return problem
}
