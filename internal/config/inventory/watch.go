package inventory

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Directories are those in which something may happen that concerns an inventory: the file's own, or all of the directory's,
// and those with files of variables. Those that can't be read are left out.
func Directories(path string) []string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		dir := filepath.Dir(path)
		found := []string{dir}
		for _, vars := range varsDirectories(dir) {
			found = append(found, below(vars)...)
		}
		return found
	}
	return below(path)
}

// Concerns tells whether a change of a file in one of the Directories may change the inventory.
func Concerns(path, changed string) bool {
	path, changed = filepath.Clean(path), filepath.Clean(changed)
	if changed == path || strings.HasPrefix(changed, path+string(filepath.Separator)) {
		return true
	}
	for _, vars := range varsDirectories(filepath.Dir(path)) {
		if changed == vars || strings.HasPrefix(changed, vars+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

func varsDirectories(dir string) []string {
	return []string{filepath.Join(dir, "group_vars"), filepath.Join(dir, "host_vars")}
}

// below are a directory and all directories in it.
func below(dir string) []string {
	var found []string
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}
