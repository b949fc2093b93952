package failover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgporter/pgporter/lab/bench/subject"
)

// services declares the two services that write with options of their own, to be bound to an address.
const services = `    pg_default_services:
      - { name: primary, port: 5433, ip: %[1]s, dest: default, check: /primary, selector: "[]", options: "%[2]s" }
      - { name: default, port: 5436, ip: %[1]s, dest: postgres, check: /primary, selector: "[]", options: "%[2]s" }
`

// startHAProxy has a HAProxy carry the sandbox's services on another address and with other options.
func startHAProxy(ctx context.Context, binary, inventory, dir, node, address, options string) (*subject.Process, error) {
	text, err := os.ReadFile(inventory)
	if err != nil {
		return nil, err
	}
	const vars = "\n  vars:\n"
	if strings.Count(string(text), vars) != 1 {
		return nil, fmt.Errorf("%s: not one line for variables of all", inventory)
	}
	edited := strings.Replace(string(text), vars, vars+fmt.Sprintf(services, address, options), 1)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	own := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(own, []byte(edited), 0o600); err != nil {
		return nil, err
	}
	return subject.HAProxy{Pgporter: binary, Inventory: own, Node: node, Address: address, Ports: []int{pooled, direct}, Dir: dir}.Start(ctx)
}
