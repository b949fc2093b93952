package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// guarded is the kind of thing that a LAN is to the guardian of the program that made it.
const guarded = "lan"

func init() { guard.Handle(guarded, Remove) }

// Where iproute2 keeps named namespaces and what replaces files of /etc in them (ip-netns(8)).
const (
	namedDir  = "/run/netns"
	filesDir  = "/etc/netns"
	resolvers = "resolv.conf"
)

// Supported says why there can't be a LAN here; nil if there can.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	return nil
}

// Up makes the LAN. What was made is removed again if it fails; a namespace of the same name that is there is an error.
func (l LAN) Up() (err error) {
	if err := errors.Join(Supported(), l.check()); err != nil {
		return err
	}
	for _, name := range l.namespaces() {
		if _, err := os.Lstat(filepath.Join(namedDir, name)); err == nil {
			return fmt.Errorf("network namespace %s is there already", name)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Remove(l.Name))
		}
	}()
	if err := guard.Keep(guarded, l.Name); err != nil {
		return err
	}
	for _, name := range l.namespaces() {
		if err := create(name); errors.Is(err, unix.EPERM) {
			return fmt.Errorf("network namespace %s: %w (it takes CAP_SYS_ADMIN and CAP_NET_ADMIN)", name, err)
		} else if err != nil {
			return fmt.Errorf("network namespace %s: %w", name, err)
		}
		if err := l.giveFiles(name); err != nil {
			return fmt.Errorf("network namespace %s: %w", name, err)
		}
	}
	// A switch has no address, by which it could take part in what it carries.
	quiet := func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) }
	if err := l.Do(switchNode, quiet); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switch: %w", err)
	}
	at, err := l.handle(switchNode)
	if err != nil {
		return err
	}
	defer at.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = switchNode
	// Without snooping it sends multicast everywhere, as a simple switch does.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &snooping}
	if err := at.LinkAdd(bridge); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	if err := at.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	for _, n := range l.Nodes {
		if err := l.connect(at, bridge.Attrs().Index, n); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

// namespaces are the names of all, the switch's first.
func (l LAN) namespaces() []string {
	all := []string{l.Namespace(switchNode)}
	for _, n := range l.Nodes {
		all = append(all, l.Namespace(n.Name))
	}
	return all
}

// create makes a named namespace with its loopback up.
func create(name string) error {
	return onThread(func() error {
		handle, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		defer handle.Close()
		loopback, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(loopback)
	})
}

// giveFiles writes what replaces the machine's resolv.conf. The empty search list keeps a domain of the machine out of names
// without dots.
func (l LAN) giveFiles(namespace string) error {
	if !l.Resolver.IsValid() {
		return nil
	}
	dir := filepath.Join(filesDir, namespace)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("# of a network namespace of pgporter\nsearch .\nnameserver %s\noptions timeout:1 attempts:3\n", l.Resolver)
	return os.WriteFile(filepath.Join(dir, resolvers), []byte(text), 0o644)
}

// connect plugs a node into the switch.
func (l LAN) connect(at *netlink.Handle, bridge int, n Node) error {
	namespace, err := netns.GetFromName(l.Namespace(n.Name))
	if err != nil {
		return err
	}
	defer namespace.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = n.Name, bridge
	cable := netlink.NewVeth(attributes)
	cable.PeerName, cable.PeerNamespace = Interface, netlink.NsFd(namespace)
	if err := at.LinkAdd(cable); err != nil {
		return err
	}
	if err := at.LinkSetUp(cable); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(Interface)
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(n.Address)}); err != nil {
		return err
	}
	return inside.LinkSetUp(link)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// handle opens netlink in a node's namespace, or the switch's.
func (l LAN) handle(node string) (*netlink.Handle, error) {
	namespace, err := l.open(node)
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	return netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
}

func (l LAN) open(node string) (netns.NsHandle, error) {
	if node != switchNode {
		if _, err := l.node(node); err != nil {
			return netns.None(), err
		}
	}
	namespace, err := netns.GetFromName(l.Namespace(node))
	if err != nil {
		return netns.None(), fmt.Errorf("network namespace %s: %w", l.Namespace(node), err)
	}
	return namespace, nil
}

// Remove takes a LAN away, whatever is left of it; that nothing is left is no error. Processes on its nodes go on without a
// network.
func Remove(name string) error {
	if !lanName.MatchString(name) {
		return fmt.Errorf("lan %q: no such name", name)
	}
	var failed []error
	for _, dir := range []string{namedDir, filesDir} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		failed = append(failed, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), name+"-") {
				failed = append(failed, removeEntry(dir, e.Name()))
			}
		}
	}
	return errors.Join(append(failed, guard.Forget(guarded, name))...)
}

func removeEntry(dir, name string) error {
	path := filepath.Join(dir, name)
	if dir == filesDir {
		if err := os.Remove(filepath.Join(path, resolvers)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err := os.Remove(path)
		// The directory may be there for the LAN alone.
		os.Remove(dir) //nolint:errcheck // others' namespaces are in it
		return err
	}
	// A mount may lie over another; none at all is what a failed creation leaves.
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", name, err)
		}
	}
	return os.Remove(path)
}

// onThread runs f on an operating system thread that nothing else runs on afterwards, whatever f did to it. It isn't the
// process's first thread, which can't end and would go on to show what f made of it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			done <- onThread(f) // this thread being taken, it is another one
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// Do runs f on a thread whose network is the node's: sockets that f opens and processes that it starts belong to the node,
// and stay there. What f hands to other goroutines doesn't.
func (l LAN) Do(node string, f func() error) error {
	namespace, err := l.open(node)
	if err != nil {
		return err
	}
	defer namespace.Close()
	return onThread(func() error {
		if err := netns.Set(namespace); err != nil {
			return fmt.Errorf("network namespace %s: %w", l.Namespace(node), err)
		}
		return f()
	})
}

// Dial connects from a node. Addresses are numeric: names would be asked of the machine's own resolver.
func (l LAN) Dial(ctx context.Context, node, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("connecting from %s: %w", node, err)
	}
	var connection net.Conn
	err := l.Do(node, func() (err error) {
		connection, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return connection, err
}

// Enter puts the calling thread on a node: its network, and the LAN's resolver in place of the machine's. The caller has
// locked the thread, which can't go back; it is for who replaces this program by another (execve(2)).
func (l LAN) Enter(node string) error {
	namespace, err := l.open(node)
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := netns.Set(namespace); err != nil {
		return fmt.Errorf("network namespace %s: %w", l.Namespace(node), err)
	}
	file := filepath.Join(filesDir, l.Namespace(node), resolvers)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Mounts of the machine still come in, none goes out.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace of %s: %w", l.Namespace(node), err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount namespace of %s: %w", l.Namespace(node), err)
	}
	target := filepath.Join("/etc", resolvers)
	if real, err := filepath.EvalSymlinks(target); err == nil {
		target = real
	}
	if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("resolver of %s: %w", l.Namespace(node), err)
	}
	return nil
}

// Start starts a program on a node, as Enter would put it there. Waiting for it is the caller's, from anywhere.
func (l LAN) Start(node string, cmd *exec.Cmd) error {
	return onThread(func() error {
		if err := l.Enter(node); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// Reset takes every address but its own from a node's interface, as a restart of a machine does.
func (l LAN) Reset(node string) error {
	n, err := l.node(node)
	if err != nil {
		return err
	}
	at, err := l.handle(node)
	if err != nil {
		return err
	}
	defer at.Close()
	link, err := at.LinkByName(Interface)
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	addresses, err := at.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	for _, a := range addresses {
		if a.IPNet.String() == n.Address.String() || a.IP.IsLinkLocalUnicast() {
			continue
		}
		if err := at.AddrDel(link, &a); err != nil {
			return fmt.Errorf("node %s: %s: %w", node, a.IPNet, err)
		}
	}
	return nil
}

// Addresses are what a node's interface has now, link-local ones left out.
func (l LAN) Addresses(node string) ([]netip.Prefix, error) {
	at, err := l.handle(node)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	link, err := at.LinkByName(Interface)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	addresses, err := at.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	var all []netip.Prefix
	for _, a := range addresses {
		bits, _ := a.Mask.Size()
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			all = append(all, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all, nil
}
