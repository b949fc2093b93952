package netns

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cutTable holds one chain of one rule for each cut: in the bridge family, whose hook forward sees every frame between two
// ports of the switch, ARP included.
const (
	cutTable = "pgporter"
	cutChain = "cuts"
)

// Cut has the switch lose every frame between a node and others, or all others if none is named; oneWay only those that the
// node sends. Frames vanish without a trace: links stay up, nobody is refused. It adds to the cuts that are there.
func (l LAN) Cut(oneWay bool, node string, others ...string) error {
	more, err := l.cutsBetween(node, others, oneWay)
	if err != nil {
		return err
	}
	present, err := l.cuts()
	if err != nil {
		return err
	}
	return l.setCuts(merged(present, more))
}

// Unplug takes a node's link down, as pulling its cable does: its interface loses the carrier.
func (l LAN) Unplug(node string) error { return l.setPort(node, (*netlink.Handle).LinkSetDown) }

// Plug puts an unplugged node's cable back.
func (l LAN) Plug(node string) error { return l.setPort(node, (*netlink.Handle).LinkSetUp) }

func (l LAN) setPort(node string, set func(*netlink.Handle, netlink.Link) error) error {
	if _, err := l.node(node); err != nil {
		return err
	}
	at, err := l.handle(switchNode)
	if err != nil {
		return err
	}
	defer at.Close()
	port, err := at.LinkByName(node)
	if err == nil {
		err = set(at, port)
	}
	if err != nil {
		return fmt.Errorf("port of %s: %w", node, err)
	}
	return nil
}

// Heal ends all cuts and plugs every node in.
func (l LAN) Heal() error {
	failed := []error{l.setCuts(nil)}
	for _, n := range l.Nodes {
		failed = append(failed, l.Plug(n.Name))
	}
	return errors.Join(failed...)
}

// Faults asks the kernel what is cut and unplugged.
func (l LAN) Faults() (Faults, error) {
	cuts, err := l.cuts()
	if err != nil {
		return Faults{}, err
	}
	faults := Faults{Cuts: cuts}
	at, err := l.handle(switchNode)
	if err != nil {
		return faults, err
	}
	defer at.Close()
	for _, n := range l.Nodes {
		port, err := at.LinkByName(n.Name)
		if err != nil {
			return faults, fmt.Errorf("port of %s: %w", n.Name, err)
		}
		if port.Attrs().Flags&net.FlagUp == 0 {
			faults.Unplugged = append(faults.Unplugged, n.Name)
		}
	}
	return faults, nil
}

// filter opens nf_tables in the switch's namespace, for as long as use takes.
func (l LAN) filter(use func(*nftables.Conn) error) error {
	namespace, err := l.open(switchNode)
	if err != nil {
		return err
	}
	defer namespace.Close()
	connection, err := nftables.New(nftables.WithNetNSFd(int(namespace)))
	if err == nil {
		err = use(connection)
	}
	if err != nil {
		return fmt.Errorf("cuts of the switch (nf_tables of the family bridge): %w", err)
	}
	return nil
}

func (l LAN) cuts() ([]Cut, error) {
	var cuts []Cut
	err := l.filter(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == cutTable })
		if at < 0 {
			return nil
		}
		rules, err := c.GetRules(tables[at], &nftables.Chain{Name: cutChain, Table: tables[at]})
		if err != nil {
			return err
		}
		for _, r := range rules {
			from, to, ok := strings.Cut(string(r.UserData), ">")
			if !ok {
				return fmt.Errorf("a rule of somebody else's: %q", r.UserData)
			}
			cuts = append(cuts, Cut{from, to})
		}
		return nil
	})
	return cuts, err
}

// setCuts replaces all cuts in one transaction.
func (l LAN) setCuts(cuts []Cut) error {
	return l.filter(func(c *nftables.Conn) error {
		// Added before it is deleted, so that it makes no difference whether it was there.
		table := c.AddTable(&nftables.Table{Name: cutTable, Family: nftables.TableFamilyBridge})
		c.DelTable(table)
		if len(cuts) > 0 {
			table = c.AddTable(&nftables.Table{Name: cutTable, Family: nftables.TableFamilyBridge})
			chain := c.AddChain(&nftables.Chain{
				Name: cutChain, Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
			})
			for _, cut := range cuts {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, UserData: []byte(cut.From + ">" + cut.To), Exprs: []expr.Any{
					&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: portName(cut.From)},
					&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: portName(cut.To)},
					&expr.Verdict{Kind: expr.VerdictDrop},
				}})
			}
		}
		return c.Flush()
	})
}

// portName is an interface's name as nf_tables compares it: whole, filled up with zeros.
func portName(name string) []byte {
	filled := make([]byte, unix.IFNAMSIZ)
	copy(filled, name)
	return filled
}
