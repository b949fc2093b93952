// Package command is what command lines of pgporter have in common, the product's and the lab's: exit statuses, how errors
// are printed, checks of arguments, flags that several commands have, and the version. It knows no command.
//
// Exit status: 0 done; 1 it was tried and failed; 2 the input (flags, inventory) can't be used. Results go to standard
// output, everything else to standard error.
package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Exit statuses.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitInput  = 2
)

// Version is that of the programs, set by the linker (-X).
var Version = "0.1.0-dev"

// NewVersion is the command that prints the version, with what it was built by and for.
func NewVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s %s (%s, %s/%s)\n", c.Root().Name(), Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// Status is an error that ends with a given exit status; whatever there is to say has been printed.
type Status int

func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Input marks an error as the caller's input: exit status 2.
func Input(err error) error { return inputError{err} }

type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

// Main runs a command line and gives its exit status. Errors of flags and arguments are marked as input.
func Main(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.Version = Version
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.AddCommand(newManualCommand(root))
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Input(err) })
	markArgumentErrors(root)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	return Report(stderr, command, err)
}

// Report prints an error as its kind wants it and gives the exit status.
func Report(stderr io.Writer, command *cobra.Command, err error) int {
	var problems diag.Problems
	var status Status
	var input inputError
	program := command.Root().Name()
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems)
		return ExitInput
	case errors.As(err, &input):
		fmt.Fprintf(stderr, "%s: %s\n", program, safetext.Text(err.Error()))
		fmt.Fprintf(stderr, "see: %s --help\n", command.CommandPath())
		return ExitInput
	}
	fmt.Fprintf(stderr, "%s: %s\n", program, safetext.Text(err.Error()))
	return ExitFailed
}

// markArgumentErrors makes the argument checks of every command input errors.
func markArgumentErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return Input(err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgumentErrors(sub)
	}
}

// SubcommandOnly refuses a word that isn't a command, with those that are near.
func SubcommandOnly(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s has no command %q", c.CommandPath(), args[0])
	if !c.HasParent() {
		// The program's name stands before every error.
		text = fmt.Sprintf("there is no command %q", args[0])
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ")
	}
	return errors.New(text)
}

// OneOf refuses a flag's value that isn't one of those listed.
func OneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return Input(fmt.Errorf("--%s %q: one of %s", flag, value, strings.Join(allowed, ", ")))
}

// OutputFlag adds -o with its completion; the first format is the default.
func OutputFlag(c *cobra.Command, output *string, formats ...string) {
	c.Flags().StringVarP(output, "output", "o", formats[0], "`FORMAT`: "+strings.Join(formats, ", "))
	c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// Terminal says whether w is one that shows colour to a person: https://no-color.org is honoured.
func Terminal(w io.Writer) (isTerminal, colour bool) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return false, false
	}
	return true, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
