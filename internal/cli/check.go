package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// checkFlags are those of check.
type checkFlags struct {
	inventory, engine, output, explain string
}

// everyKind is what --explain says for a list of all codes.
const everyKind = "list"

func newCheckCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check {FILE | --inventory FILE | --explain CODE}",
		Short: "Print every problem of an inventory",
		Long: `Reads an inventory as every one of its nodes would and prints all problems at once as file:line:col, with what would be
right and, in brackets, the code of the kind of problem. --explain prints a paragraph on a code. Nothing is opened, bound or changed.

Exit status 2 if there is an error; warnings alone leave it at 0, in every format. Problems go to standard error, and what
was found to standard output; -o json and -o sarif have everything on standard output.

What the native engine can't carry is refused. --engine haproxy checks what nodes carry that run with it.`,
		Example: `  pgporter check pigsty.yml
  pgporter check pigsty.yml --engine haproxy
  pgporter check --explain vip-used-twice
  pgporter check --explain list                                  # every code there is
  pgporter check pigsty.yml -o json | jq '.problems[] | select(.severity == "error")'
  pgporter check pigsty.yml -o sarif                               # for a CI's code scanning`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	inventoryFlag(c, &f.inventory)
	engineFlag(c, &f.engine)
	c.Flags().StringVar(&f.explain, "explain", "", "print what there is to say of a problem's `CODE`; "+everyKind+" for all codes")
	c.RegisterFlagCompletionFunc("explain", cobra.FixedCompletions(explainable(), cobra.ShellCompDirectiveNoFileComp))
	command.OutputFlag(c, &f.output, "text", "json", "sarif")
	return c
}

func (f *checkFlags) run(c *cobra.Command, args []string) error {
	out := safetext.Writer(c.OutOrStdout())
	if c.Flags().Changed("explain") {
		if len(args) > 0 || f.inventory != "" {
			return command.Input(fmt.Errorf("--explain %s is all that is printed: it goes without an inventory", f.explain))
		}
		return explain(out, f.explain)
	}
	if err := inventoryArgument(&f.inventory, args); err != nil {
		return err
	}
	if err := command.OneOf("output", f.output, "text", "json", "sarif"); err != nil {
		return err
	}
	if err := command.OneOf("engine", f.engine, engineNative, engineHAProxy); err != nil {
		return err
	}
	inv, problems := readInventory(f.inventory, c.InOrStdin())
	var count plan.Count
	if inv != nil {
		check := plan.Check
		if f.engine == engineHAProxy {
			check = plan.CheckForHAProxy
		}
		var found diag.Problems
		count, found = check(inv)
		problems = append(problems, found...)
	}
	report := reportOn(count, problems.Sorted())
	switch f.output {
	case "json":
		if err := printJSON(out, report); err != nil {
			return err
		}
	case "sarif":
		if err := printJSON(out, sarifOf(problems.Sorted())); err != nil {
			return err
		}
	default:
		if err := report.print(out, c.ErrOrStderr(), problems); err != nil {
			return err
		}
	}
	if report.Summary.Errors > 0 {
		return command.Status(command.ExitInput)
	}
	return nil
}

// checkReport is what `pgporter check -o json` prints.
type checkReport struct {
	Summary  checkSummary   `json:"summary"`
	Problems []checkProblem `json:"problems"`
}

type checkSummary struct {
	// Clusters and Services are those that are sound enough to be counted.
	Clusters int `json:"clusters"`
	Services int `json:"services"`
	Errors   int `json:"errors"`
	Warnings int `json:"warnings"`
}

type checkProblem struct {
	File string `json:"file"`
	// Line and Column count from 1; without them the whole file is meant.
	Line     int       `json:"line,omitempty"`
	Column   int       `json:"column,omitempty"`
	Severity string    `json:"severity"`
	Code     diag.Code `json:"code"`
	What     string    `json:"what"`
	Want     string    `json:"want,omitempty"`
}

func reportOn(count plan.Count, problems diag.Problems) checkReport {
	report := checkReport{Summary: checkSummary{Clusters: count.Clusters, Services: count.Services}, Problems: []checkProblem{}}
	for _, p := range problems {
		if p.Severity == diag.Error {
			report.Summary.Errors++
		} else {
			report.Summary.Warnings++
		}
		report.Problems = append(report.Problems, checkProblem{safetext.Line(p.Pos.File), p.Pos.Line, p.Pos.Column, p.Severity.String(), p.Code, p.What, p.Want})
	}
	return report
}

// print lists the problems among the remarks, and says what was found if the inventory can be used.
func (r checkReport) print(out, remarks io.Writer, problems diag.Problems) error {
	found := "no problem"
	if len(problems) > 0 {
		var counts []string
		if r.Summary.Errors > 0 {
			counts = append(counts, command.Plural(r.Summary.Errors, "error"))
		}
		if r.Summary.Warnings > 0 {
			counts = append(counts, command.Plural(r.Summary.Warnings, "warning"))
		}
		found = strings.Join(counts, ", ")
		fmt.Fprintln(remarks, problems)
		fmt.Fprintf(remarks, "pgporter: %s; pgporter check --explain CODE says more of what stands in brackets\n", found)
	}
	if r.Summary.Errors > 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s, %s, %s\n", command.Plural(r.Summary.Clusters, "cluster"), command.Plural(r.Summary.Services, "service"), found)
	return err
}

// explain prints a code's paragraph, or all codes.
func explain(out io.Writer, text string) error {
	if text == everyKind {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, k := range diag.Kinds() {
			fmt.Fprintf(table, "%s\t%s\n", k.Code, k.Title)
		}
		return table.Flush()
	}
	// As it stands in a message, or as it is.
	code := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	kind, known := diag.KindOf(diag.Code(code))
	if !known {
		near := ""
		if word := diag.NearestCode(code); word != "" {
			near = fmt.Sprintf("did you mean %s; ", word)
		}
		return command.Input(fmt.Errorf("--explain %q: no problem has this code; %spgporter check --explain %s prints all", text, near, everyKind))
	}
	_, err := fmt.Fprintf(out, "%s: %s\n\n%s\n", kind.Code, kind.Title, strings.TrimSpace(kind.Text))
	return err
}

// explainable are the words that --explain takes.
func explainable() []string {
	words := []string{everyKind}
	for _, k := range diag.Kinds() {
		words = append(words, string(k.Code))
	}
	return words
}

// printJSON prints a value for programs that read it, and for people.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// engineFlag adds --engine for commands that only look at what would be carried.
func engineFlag(c *cobra.Command, engine *string) {
	c.Flags().StringVar(engine, "engine", engineNative, "what is to carry the services, as `ENGINE`: native, haproxy")
	c.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{engineNative, engineHAProxy}, cobra.ShellCompDirectiveNoFileComp))
}
