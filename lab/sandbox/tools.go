package sandbox

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// tools are the programs that a sandbox runs.
type tools struct {
	etcd, patroni, pgbouncer, psql string
	// postgresBin has PostgreSQL's own programs, of the version postgres.
	postgresBin string
	postgres    int
}

// debianPostgres is where Debian's packages and PGDG's keep each version of PostgreSQL.
const debianPostgres = "/usr/lib/postgresql"

// oldestPostgres is the first version that a sandbox runs with: the one that has wal_keep_size. scripts/prerequisites installs
// no older one either.
const oldestPostgres = 13

// PostgresBin finds the newest PostgreSQL that is installed with all that a server takes: the folder of its programs, past
// Debian's wrappers in PATH, which choose among versions, and its major version.
func PostgresBin() (dir string, version int, err error) { return newestPostgres(debianPostgres) }

func newestPostgres(below string) (dir string, version int, err error) {
	servers, err := filepath.Glob(filepath.Join(below, "*", "bin", "postgres"))
	if err != nil {
		return "", 0, err
	}
	for _, server := range servers {
		bin := filepath.Dir(server)
		v, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		if err != nil || v < oldestPostgres || v <= version {
			continue
		}
		if _, err := exec.LookPath(server); err == nil {
			dir, version = bin, v
		}
	}
	if version == 0 {
		return "", 0, fmt.Errorf("no PostgreSQL from %d on in %s", oldestPostgres, filepath.Join(below, "VERSION", "bin"))
	}
	return dir, version, nil
}

// findTools looks for the programs in PATH and where Debian keeps them; all that are missing are named at once.
func findTools() (tools, error) {
	var missing []string
	find := func(name, pkg string, dirs ...string) string {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		for _, dir := range append(dirs, "/usr/sbin", "/usr/bin") {
			path := filepath.Join(dir, name)
			if _, err := exec.LookPath(path); err == nil {
				return path
			}
		}
		missing = append(missing, fmt.Sprintf("%s (Debian package %s)", name, pkg))
		return ""
	}
	bin, version, err := PostgresBin()
	if err != nil {
		missing = append(missing, fmt.Sprintf("a server (Debian package postgresql): %v", err))
	}
	t := tools{
		etcd:        find("etcd", "etcd-server"),
		patroni:     find("patroni", "patroni"),
		pgbouncer:   find("pgbouncer", "pgbouncer"),
		psql:        find("psql", "postgresql-client", bin),
		postgresBin: bin,
		postgres:    version,
	}
	if len(missing) > 0 {
		return t, fmt.Errorf("a sandbox needs programs that aren't installed: %s; scripts/prerequisites installs them", strings.Join(missing, ", "))
	}
	return t, nil
}
