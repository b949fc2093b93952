package fileset

import (
	"fmt"
	"io"
	"path"
	"regexp"

	"github.com/rogpeppe/go-internal/diff"
)

// secretForm finds what rendered files hold of secrets: passwords of HAProxy's userlists, vip-manager's, and whatever else a
// whole line calls a password, a secret or a token.
var secretForm = regexp.MustCompile(`(?mi)^(.*?(?:password|passwd|secret|token)["']?\s*[ :=]\s*)\S.*$`)

// redact hides secrets.
func redact(text string) string { return secretForm.ReplaceAllString(text, "${1}(secret)") }

// Show prints changes as unified diffs, secrets hidden. dir is what the files' names begin with.
func Show(w io.Writer, dir string, changes []Change) error {
	for _, c := range changes {
		before, after := path.Join(dir, c.Path), path.Join(dir, c.Path)
		if c.Added {
			before = "/dev/null"
		}
		if c.Removed {
			after = "/dev/null"
		}
		text := diff.Diff(before, []byte(redact(c.Old)), after, []byte(redact(c.New)))
		if text == nil {
			what := "only a secret changes, which isn't shown"
			if c.Old == c.New {
				what = "only its mode changes: others may read it"
			}
			text = fmt.Appendf(nil, "diff %s %s\n--- %s\n+++ %s\n# %s\n", before, after, before, after, what)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}
