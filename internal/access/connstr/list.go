package connstr

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Style says how a Listing looks.
type Style struct {
	Driver Driver
	// Passwords are shown.
	Passwords bool
	// Plain leaves out all remarks: URLs alone, one a line.
	Plain bool
}

// headings say what the endpoints below them have in common.
var headings = map[By]string{
	ByDNS:      "By the cluster's name",
	ByVIP:      "By the virtual address, which follows the primary",
	ByInstance: "By an instance's name",
	ByIP:       "By an instance's address",
	BySmart:    "By clients that choose among hosts themselves",
}

// Listing writes endpoints, each with what it goes through. One that the driver can't take is said to be one, unless the
// list is plain; that it can take none is an error.
func Listing(endpoints []Endpoint, style Style) (string, error) {
	b := &strings.Builder{}
	var by By
	var lacks, remarks []string
	written := 0
	for _, w := range endpoints {
		lack := style.Driver.Lacks(w)
		said := func(text string) {
			if text != "" && !slices.Contains(remarks, text) && !style.Plain {
				fmt.Fprintf(b, "# %s\n", text)
			}
			remarks = append(remarks, text)
		}
		if w.By != by && !style.Plain {
			if by != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(b, "# %s\n", headings[w.By])
		}
		by = w.By
		if lack != "" {
			if !slices.Contains(lacks, lack) {
				lacks = append(lacks, lack)
			}
			said(lack)
			continue
		}
		said(style.Driver.Caution(w))
		url, err := style.Driver.URL(w, style.Passwords)
		if err != nil {
			return "", err
		}
		written++
		switch remark := style.Driver.Remark(w); {
		case style.Plain:
			fmt.Fprintln(b, url)
		case remark != "":
			fmt.Fprintf(b, "%s # %s; %s\n", url, w.Path, remark)
		default:
			fmt.Fprintf(b, "%s # %s\n", url, w.Path)
		}
	}
	if written == 0 {
		return "", errors.New(strings.Join(lacks, "; "))
	}
	return b.String(), nil
}

// Entries gives endpoints as entries of a service file, one for each service: of several endpoints of one service all hosts.
func Entries(endpoints []Endpoint) []model.Entry {
	var entries []model.Entry
	for _, w := range endpoints {
		i := slices.IndexFunc(entries, func(e model.Entry) bool { return e.Name == w.FullName })
		if i < 0 {
			i = len(entries)
			entries = append(entries, model.Entry{Name: w.FullName, User: w.User, Database: w.Database})
		}
		hosts, ports := once(slices.Concat(entries[i].Hosts, w.Hosts), slices.Concat(entries[i].Ports, w.Ports))
		entries[i].Hosts, entries[i].Ports = hosts, ports
	}
	return entries
}

// PasswordFile renders libpq's .pgpass (PostgreSQL's manual, "The Password File"): a line for each host, port, database and
// user whose password is known. without are the users whose password isn't.
func PasswordFile(endpoints []Endpoint) (text string, without []string, err error) {
	var lines []string
	for _, w := range endpoints {
		if err := w.sound(); err != nil {
			return "", nil, err
		}
		if w.Password == "" {
			if !slices.Contains(without, w.User) {
				without = append(without, w.User)
			}
			continue
		}
		for i, host := range w.Hosts {
			fields := []string{host, strconv.Itoa(w.Ports[i]), w.Database, w.User, w.Password.Reveal()}
			for j, field := range fields {
				fields[j] = strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(field)
			}
			if line := strings.Join(fields, ":") + "\n"; !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, ""), without, nil
}
