package inventory

import (
	"path/filepath"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// part is a piece of the inventory's files that says something of a group or of a host.
type part struct {
	// from is where it begins, in its file, and to where the next begins; a Line of 0 is the end of the file. A file of variables,
	// or a directory of such, is a part as a whole: from has no Line.
	from, to diag.Position
	group    *Group
	host     *Host
}

// before compares positions in one file.
func before(a, b diag.Position) bool {
	return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
}

func (p part) has(pos diag.Position) bool {
	if p.from.Line == 0 {
		return pos.File == p.from.File || strings.HasPrefix(pos.File, p.from.File+string(filepath.Separator))
	}
	return pos.File == p.from.File && !before(pos, p.from) && (p.to.Line == 0 || before(pos, p.to))
}

// OwnersOf gives the hosts that what stands at a position is about, by the innermost group or host around it. It is nil for what
// is about all hosts, or about none that can be told.
func (inv *Inventory) OwnersOf(pos diag.Position) []*Host {
	best := -1
	for i, p := range inv.parts {
		if p.has(pos) && (best < 0 || !before(p.from, inv.parts[best].from)) {
			best = i
		}
	}
	switch {
	case best < 0:
		return nil
	case inv.parts[best].host != nil:
		return []*Host{inv.parts[best].host}
	case inv.parts[best].group == inv.all:
		return nil
	}
	return inv.parts[best].group.Hosts()
}

// next is where the entry behind one of several begins; end is where the last one ends.
func next(entries []Entry, i int, end diag.Position) diag.Position {
	if i+1 < len(entries) && before(entries[i].Key.Pos(), entries[i+1].Key.Pos()) {
		return entries[i+1].Key.Pos()
	}
	return end
}

// owns notes whose an entry is, which ends where another begins. In a file with aliases what stands at one group may be another's
// too: nothing of it is anybody's own.
func (b *builder) owns(e Entry, end diag.Position, g *Group, h *Host) {
	if e.Key.doc != nil && !e.Key.doc.aliased {
		b.inv.parts = append(b.inv.parts, part{from: e.Key.Pos(), to: end, group: g, host: h})
	}
}
