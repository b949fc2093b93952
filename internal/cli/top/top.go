// Package top is the live picture in a terminal: clusters, their services and servers on one node or summed up over several, what
// happened lately, and keys by which servers are drained, put into maintenance, made ready, weighed, and rid of their sessions.
//
// Each node is asked once a second for its status and its events, and never while a question to it is under way, so that a slow node
// is asked less often and not more. A node that doesn't answer is said to be lost, with since when and why; what it said last isn't
// counted any more, and is shown only where no node answers. Nothing is ordered before its dry run has said what would become of it
// and that was confirmed.
//
// The model is a function of messages, which bring the time along: commands alone ask nodes and clocks.
package top

import (
	"context"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Node is a pgporter that is looked at and steered.
type Node interface {
	Status(context.Context) (*api.Status, error)
	// Events are those after the one with an ID.
	Events(ctx context.Context, after uint64) ([]api.Event, error)
	Order(context.Context, api.Order) ([]api.OrderResult, error)
	EndSessions(context.Context, api.EndSessions) (api.SessionsEnded, error)
}

// Target is a Node with what it is called.
type Target struct {
	Name string
	Node Node
}

// Config is what is shown.
type Config struct {
	Targets []Target
	// Cluster narrows it to one; empty is all.
	Cluster string
	// Interval is the time between two looks.
	Interval time.Duration
}

// patience bounds a look at a node, orderPatience an order to one.
const (
	patience      = 5 * time.Second
	orderPatience = time.Minute
)

// Run shows it until the user has had enough or ctx ends.
func Run(ctx context.Context, cfg Config, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err := tea.NewProgram(newModel(ctx, cfg), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	return err
}

// tickMsg is the next moment to look.
type tickMsg time.Time

func (m *model) tick() tea.Cmd {
	return tea.Tick(m.cfg.Interval, func(now time.Time) tea.Msg { return tickMsg(now) })
}

// lookedMsg is what a node said.
type lookedMsg struct {
	node   int
	at     time.Time
	status *api.Status
	events []api.Event
	err    error
}

// look asks a node.
func (m *model) look(i int) tea.Cmd {
	target, after, pid := m.cfg.Targets[i], m.nodes[i].last, m.nodes[i].pid
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		defer cancel()
		status, err := target.Node.Status(ctx)
		var events []api.Event
		if err == nil {
			if pid != 0 && status.PID != pid {
				// Another process counts its events anew.
				after = 0
			}
			events, err = target.Node.Events(ctx, after)
		}
		return lookedMsg{i, time.Now(), status, events, err}
	}
}

// answer is what a node said to an order or its dry run.
type answer struct {
	node  string
	lines []string
	err   error
}

// answeredMsg is what all nodes said to an order or its dry run; dialog is whose it was.
type answeredMsg struct {
	dialog  int
	dryRun  bool
	answers []answer
}

// send gives what a dialog is about to all nodes.
func (m *model) send(d *dialog, dryRun bool) tea.Cmd {
	targets, number := m.cfg.Targets, d.number
	do := d.do(dryRun)
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, orderPatience)
		defer cancel()
		answers := make([]answer, len(targets))
		ended := make(chan struct{})
		for i, target := range targets {
			go func() {
				lines, err := do(ctx, target.Node)
				answers[i] = answer{target.Name, lines, err}
				ended <- struct{}{}
			}()
		}
		for range targets {
			<-ended
		}
		return answeredMsg{number, dryRun, answers}
	}
}
