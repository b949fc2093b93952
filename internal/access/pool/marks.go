package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// marks is the file that says which databases of a PgBouncer are paused by us. It is there before they are, and as long: whoever comes
// after a pgporter that was killed ends what that has begun, and nobody else's pause.
type marks string

func marksOf(dir string, a Address) marks {
	return marks(filepath.Join(dir, "pgporter-paused-"+url.PathEscape(a.String())))
}

// read gives the databases; none if there is no file.
func (m marks) read() ([]string, error) {
	text, err := os.ReadFile(string(m))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	if err == nil {
		err = json.Unmarshal(text, &names)
	}
	if err != nil {
		return nil, fmt.Errorf("which databases are paused by pgporter (%s): %w", m, err)
	}
	return names, nil
}

// write has the file say these databases.
func (m marks) write(names []string) error {
	if len(names) == 0 {
		err := os.Remove(string(m))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	// It outlives this process, not the machine, which PgBouncer's pauses don't outlive either: it needn't be synced.
	beside := string(m) + ".new"
	if err := os.WriteFile(beside, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(beside, string(m))
}
