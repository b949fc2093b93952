package inventory

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// Bounds of an inventory, for who wrote it may be a stranger: a pull request's, say, that a CI checks. A thousand clusters with files
// of variables for all their hosts take a third of the files and a tenth of the rest.
const (
	maxFiles = 10_000
	// maxRead is for all files together, in bytes.
	maxRead = 32 << 20
	// maxMarks is for what separates values in YAML (line ends, commas, colons, dashes, brackets), of all files together, before any
	// is read: a value takes some microseconds. JSON is read faster, and is longer: it has each host's variables written out.
	maxMarks, maxJSONMarks = 1_000_000, 4_000_000
	// maxTold is how many keys of a file that stand there twice are told of.
	maxTold = 1000
	// maxFileDepth is how deep directories may be in each other.
	maxFileDepth = 16
	// maxHosts is how often hosts may be named; maxMemberships how many groups hosts and groups are in, those above included.
	maxHosts       = 100_000
	maxMemberships = 500_000
)

// limits are what was used of them so far.
type limits struct {
	files, bytes, marks, hosts, memberships int
	// over says that a limit was reported which only one problem is worth.
	over bool
}

// once reports that a limit is exceeded, the first time.
func (b *builder) once(pos diag.Position, format string, args ...any) bool {
	if !b.over {
		b.over = true
		b.problems.Errorf(diag.TooLarge, pos, "", format, args...)
	}
	return false
}

// named accounts for a host's name; n is 1, and more where it has many variables.
func (b *builder) named(pos diag.Position, n int) bool {
	if b.limits.hosts += n; b.limits.hosts > maxHosts {
		return b.once(pos, "the inventory names hosts more than %d times", maxHosts)
	}
	return true
}

// joined accounts for a group that a host or a group is in.
func (b *builder) joined(pos diag.Position) bool {
	if b.memberships++; b.memberships > maxMemberships {
		return b.once(pos, "hosts and groups are in too many groups together: more than %d", maxMemberships)
	}
	return true
}

// marked accounts for what separates values in a file; false if that is too much.
func (b *builder) marked(name string, data []byte, most int) bool {
	for _, c := range data {
		switch c {
		case '\n', '\r', ',', ':', '-', '[', '{':
			b.marks++
		}
	}
	if b.marks > most {
		b.problems.Errorf(diag.TooLarge, diag.Position{File: name}, "an inventory of its own for a part of the clusters",
			"the inventory has more than %d line ends, commas, colons, dashes and brackets in it", most)
	}
	return b.marks <= most
}

// errSpecial is what isn't a regular file: a device, a socket, a FIFO, which can be without end or never begin.
var errSpecial = errors.New("it isn't a regular file")

// read gives a file's text. The error doesn't name the file.
func (b *builder) read(path string) ([]byte, error) {
	if b.files++; b.files > maxFiles {
		return nil, errTooMany
	}
	// Opening a FIFO would wait for who writes into it.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errSpecial
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(maxRead-b.bytes)+1))
	if err != nil {
		return nil, err
	}
	if b.bytes += len(data); b.bytes > maxRead {
		b.bytes = maxRead
		return nil, errTooLong
	}
	b.sum(path, data)
	return data, nil
}

var (
	errTooMany = errors.New("the inventory has more than 10000 files")
	errTooLong = errors.New("the files of the inventory have more than 32 MiB together")
	errTooDeep = errors.New("directories are more than 16 deep in each other, or one is in itself by way of a link")
)

// entries lists a directory; depth is how deep it is. The error doesn't name the directory.
func (b *builder) entries(path string, depth int) ([]fs.DirEntry, error) {
	if depth > maxFileDepth {
		return nil, errTooDeep
	}
	if b.files++; b.files > maxFiles {
		return nil, errTooMany
	}
	return os.ReadDir(path)
}
