package owner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// File is the configuration's name.
const File = "vip-manager.yml"

// Paces of vip-manager in milliseconds, and how often it tries again; Pigsty's.
const (
	interval   = 1000
	retryAfter = 250
	retryNum   = 2
)

// Manager renders the configuration for one member of a cluster. It holds a password.
func Manager(cluster string, v model.VIP) (string, error) {
	address, err := netip.ParseAddr(v.Address)
	if err != nil || v.Bits < 1 || v.Bits > address.BitLen() {
		return "", fmt.Errorf("virtual address %s/%d: an address with the length of its network", v.Address, v.Bits)
	}
	if v.Interface == "" || v.TriggerKey == "" || v.TriggerValue == "" || len(v.Endpoints) == 0 {
		return "", fmt.Errorf("vip-manager needs an interface, a key with its value and etcd's addresses")
	}
	b := &strings.Builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.VIPManager, Cluster: cluster, File: File}.Line())
	fmt.Fprintf(b, "interval: %d\n", interval)
	fmt.Fprintf(b, "trigger-key: %s\n", quote(v.TriggerKey))
	fmt.Fprintf(b, "trigger-value: %s\n", quote(v.TriggerValue))
	fmt.Fprintf(b, "ip: %s\n", quote(address.String()))
	fmt.Fprintf(b, "netmask: %d\n", v.Bits)
	fmt.Fprintf(b, "interface: %s\n", quote(v.Interface))
	b.WriteString("manager-type: basic\ndcs-type: etcd\ndcs-endpoints:\n")
	for _, e := range v.Endpoints {
		fmt.Fprintf(b, "  - %s\n", quote(e))
	}
	for _, f := range []struct{ key, value string }{
		{"etcd-ca-file", v.CAFile}, {"etcd-cert-file", v.CertFile}, {"etcd-key-file", v.KeyFile},
		{"etcd-user", v.User}, {"etcd-password", v.Password.Reveal()},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "%s: %s\n", f.key, quote(f.value))
		}
	}
	fmt.Fprintf(b, "retry-num: %d\nretry-after: %d\nverbose: false\n", retryNum, retryAfter)
	return b.String(), nil
}

// quote writes a text as YAML's double-quoted scalar, of which JSON's strings are a part (YAML 1.2, section 1.3).
func quote(text string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}
