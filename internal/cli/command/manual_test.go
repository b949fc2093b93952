package command

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// gate is a program with what pages have to cope with.
func gate() *cobra.Command {
	root := &cobra.Command{Use: "gate", Short: "Opens and shuts", Long: "Opens and shuts.\n\nIts exit status:\n\n  0  open\n  1  shut\n\n.profile isn't read.", RunE: func(*cobra.Command, []string) error { return nil }}
	open := &cobra.Command{Use: "open NAME", Short: "Open it", Example: "  gate open --wide 'the north'   # C:\\gate\n  gate open", RunE: func(*cobra.Command, []string) error { return nil }}
	open.Flags().StringP("wide", "w", "1m", "how `FAR`, such as .5m")
	open.Flags().String("secret", "", "not shown")
	_ = open.Flags().MarkHidden("secret")
	open.AddCommand(&cobra.Command{Use: "hidden", Hidden: true, RunE: func(*cobra.Command, []string) error { return nil }})
	root.AddCommand(open, &cobra.Command{Use: "topic", Short: "What gates are", Long: "Gates are doors."})
	return root
}

func TestManual(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if status := Main(gate(), []string{"manual", dir}, nil, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	written, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range written {
		names = append(names, filepath.Base(path))
	}
	for _, want := range []string{"gate.1", "gate-open.1", "gate-topic.1"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no %s among %q", want, names)
		}
	}
	for _, other := range []string{"gate-open-hidden.1", "gate-manual.1", "gate-help.1", "gate-completion.1"} {
		if slices.Contains(names, other) {
			t.Errorf("there is a %s", other)
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "gate-open.1"))
	if err != nil {
		t.Fatal(err)
	}
	want := `.TH "GATE\-OPEN" 1 "1970\-01\-02" "gate ` + roff(Version) + `" "gate"
.SH NAME
gate\-open \- Open it
.SH SYNOPSIS
gate open NAME [flags]
.SH DESCRIPTION
Open it.
.SH OPTIONS
.TP
\fB\-w\fR, \fB\-\-wide\fR \fIFAR\fR
how FAR, such as .5m (default 1m)
.SH EXAMPLES
.PP
.nf
.RS 2
gate open \-\-wide \(aqthe north\(aq   # C:\egate
gate open
.RE
.fi
.SH SEE ALSO
gate(1)
`
	if string(page) != want {
		t.Errorf("the page is\n%s\nwant\n%s", page, want)
	}
	page, err = os.ReadFile(filepath.Join(dir, "gate.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Its exit status:\n.PP\n.nf\n.RS 2\n0  open\n1  shut\n.RE\n.fi\n.PP\n\\&.profile", "gate\\-open(1),\ngate\\-topic(1)\n"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("the program's page has no %q:\n%s", part, page)
		}
	}
	if _, err := exec.LookPath("groff"); err != nil {
		return
	}
	for _, path := range written {
		if out, err := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff of %s: %v\n%s", path, err, out)
		}
	}
}

func TestManualRefusesNoDate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	var stdout, stderr bytes.Buffer
	if status := Main(gate(), []string{"manual", t.TempDir()}, nil, &stdout, &stderr); status != ExitInput || !strings.Contains(stderr.String(), "SOURCE_DATE_EPOCH: seconds since 1970") {
		t.Errorf("status %d: %s", status, &stderr)
	}
}
