package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManualCommand makes a program's manual pages of what its commands say of themselves. It is for those who make packages, so help
// doesn't list it.
func newManualCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "manual DIR",
		Short:  "Write a manual page for each command",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			day := time.Now()
			// https://reproducible-builds.org/specs/source-date-epoch/
			if epoch, is := os.LookupEnv("SOURCE_DATE_EPOCH"); is {
				seconds, err := strconv.ParseInt(epoch, 10, 64)
				if err != nil {
					return Input(errors.New("SOURCE_DATE_EPOCH: seconds since 1970"))
				}
				day = time.Unix(seconds, 0)
			}
			for _, c := range described(root) {
				page := manualPage(c, day.UTC())
				if err := os.WriteFile(filepath.Join(args[0], manualName(c)+".1"), []byte(page), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// described are a command and all those below it that its help shows, topics among them, but for those that cobra adds.
func described(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			all = append(all, described(sub)...)
		}
	}
	return all
}

// manualName is what a command's page is called: pgporter-run.
func manualName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manualPage is a command's page in the language of man(7).
func manualPage(c *cobra.Command, day time.Time) string {
	var b strings.Builder
	section := func(name string) { fmt.Fprintf(&b, ".SH %s\n", name) }
	fmt.Fprintf(&b, ".TH %s 1 %s %s %s\n", argument(strings.ToUpper(manualName(c))), argument(day.Format(time.DateOnly)), argument(c.Root().Name()+" "+Version), argument(c.Root().Name()))
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(manualName(c)), roff(c.Short))
	if c.Runnable() {
		section("SYNOPSIS")
		b.WriteString(roff(c.UseLine()) + "\n")
	}
	section("DESCRIPTION")
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	b.WriteString(roffText(text))
	for _, options := range []struct {
		name  string
		flags *pflag.FlagSet
	}{{"OPTIONS", c.NonInheritedFlags()}, {"COMMON OPTIONS", c.InheritedFlags()}} {
		if !options.flags.HasAvailableFlags() {
			continue
		}
		section(options.name)
		options.flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				b.WriteString(manualFlag(f))
			}
		})
	}
	if c.Example != "" {
		section("EXAMPLES")
		b.WriteString(roffText(c.Example))
	}
	section("SEE ALSO")
	var others []string
	if c.HasParent() {
		others = append(others, roff(manualName(c.Parent()))+"(1)")
	}
	for _, sub := range described(c)[1:] {
		if sub.Parent() == c {
			others = append(others, roff(manualName(sub))+"(1)")
		}
	}
	b.WriteString(strings.Join(others, ",\n") + "\n")
	return b.String()
}

// manualFlag is a flag's entry: its names and argument, what it does, and what holds without it.
func manualFlag(f *pflag.Flag) string {
	what, usage := pflag.UnquoteUsage(f)
	names := "\\fB" + roff("--"+f.Name) + "\\fR"
	if f.Shorthand != "" {
		names = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + names
	}
	if what != "" {
		names += " \\fI" + roff(what) + "\\fR"
	}
	switch f.DefValue {
	case "", "false", "0", "[]", "0s":
	default:
		if !strings.Contains(usage, "(default") {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
	}
	return ".TP\n" + names + "\n" + roff(usage) + "\n"
}

// roffText gives paragraphs as they are, filled, and lines that are indented as they stand.
func roffText(text string) string {
	var b strings.Builder
	literal, empty := false, false
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		line = strings.TrimRight(line, "\n")
		// The first line of an example has lost its own blanks.
		indented := strings.HasPrefix(line, "  ") || b.Len() == 0 && strings.HasPrefix(text, "  ")
		switch {
		case line == "":
			empty = true
			continue
		case indented && !literal:
			b.WriteString(".PP\n.nf\n.RS 2\n")
		case !indented && literal:
			b.WriteString(".RE\n.fi\n.PP\n")
		case empty && literal:
			b.WriteString("\n")
		case empty:
			b.WriteString(".PP\n")
		}
		literal, empty = indented, false
		b.WriteString(roff(strings.TrimPrefix(line, "  ")) + "\n")
	}
	if literal {
		b.WriteString(".RE\n.fi\n")
	}
	return b.String()
}

// roff is a text in which nothing means something to troff. Minus signs are those that can be copied into a shell.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", `\&...`, "→", `\(->`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// argument is a text as one argument of a macro.
func argument(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
