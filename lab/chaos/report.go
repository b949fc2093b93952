package chaos

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report tells how it went; false if a promise was broken. What is printed then stays with the logs, too.
func (f *field) report(c Config, all []promise, broken map[string][]string) bool {
	var b strings.Builder
	kept := true
	for _, p := range all {
		if len(broken[p.says]) == 0 {
			fmt.Fprintf(&b, "kept    %s\n", p.says)
		}
	}
	for _, says := range slices.Sorted(maps.Keys(broken)) {
		const most = 20
		lines := broken[says]
		for i, line := range lines {
			if i == 0 {
				kept = false
				fmt.Fprintf(&b, "BROKEN  %s\n", says)
			}
			if i == most {
				fmt.Fprintf(&b, "        and %d more\n", len(lines)-most)
				break
			}
			fmt.Fprintf(&b, "        %s\n", line)
		}
	}
	f.summarise(&b, all)
	fmt.Fprint(f.out, b.String())
	if kept {
		fmt.Fprintf(f.out, "seed %d: every promise was kept\n", c.Seed)
		if !c.Keep {
			return true
		}
	}
	f.mu.Lock()
	journal := slices.Clone(f.journal)
	f.mu.Unlock()
	fmt.Fprintf(&b, "\nwhat was done (seed %d, %s)\n", c.Seed, c.Length)
	for _, e := range journal {
		fmt.Fprintf(&b, "  %s %6.1fs  %s\n", clock(e.when), e.when.Sub(f.began).Seconds(), e.text)
	}
	fmt.Fprint(&b, "\nwho held the leader key\n")
	for _, t := range f.keys.seen() {
		fmt.Fprintf(&b, "  %s revision %d: %s\n", clock(t.from), t.revision, holder(t))
	}
	fmt.Fprint(&b, "\nwhat was acknowledged\n")
	for _, w := range f.ledger.acknowledged() {
		fmt.Fprintf(&b, "  %s\n", w)
	}
	path := filepath.Join(f.Dir(), "log", "chaos.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		fmt.Fprintf(f.out, "the report can't be kept: %v\n", err)
	}
	if !kept {
		fmt.Fprintf(f.out, "seed %d: PROMISES WERE BROKEN; the report with all faults is %s\n", c.Seed, path)
	}
	return kept
}

func holder(t tenure) string {
	if t.holder == "" {
		return "nobody"
	}
	return t.holder
}

func (f *field) summarise(b *strings.Builder, all []promise) {
	keys := f.keys.seen()
	fmt.Fprintf(b, "leader key: %d tenures\n", len(slices.DeleteFunc(slices.Clone(keys), func(t tenure) bool { return t.holder == "" })))
	f.ledger.mu.Lock()
	defer f.ledger.mu.Unlock()
	fmt.Fprintf(b, "%d writes acknowledged\n", len(f.ledger.writes))
	for _, port := range slices.Sorted(maps.Keys(f.ledger.ports)) {
		t := f.ledger.ports[port]
		fmt.Fprintf(b, "%d: %d done, longest gap %.2fs, %d connects failed, %d cut on a session\n", port, t.done, t.gap.Seconds(), t.refused, t.cut)
		why := slices.SortedFunc(maps.Keys(t.why), func(x, y string) int { return t.why[y] - t.why[x] })
		for i, w := range why {
			if i == 8 {
				break
			}
			fmt.Fprintf(b, "      %5d  %.150s\n", t.why[w], w)
		}
	}
	for _, p := range all {
		if p.figures != nil {
			for _, line := range p.figures() {
				fmt.Fprintln(b, line)
			}
		}
	}
}
