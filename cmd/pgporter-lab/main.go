// Command pgporter-lab is what pgporter is tried and tested with: real clusters on this machine, faults, load and benchmarks.
package main

import (
	"os"

	"github.com/pgporter/pgporter/lab/cli"
	"github.com/pgporter/pgporter/lab/soak"
)

func main() {
	if soak.BePeer() {
		return
	}
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
