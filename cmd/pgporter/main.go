// Command pgporter is a TCP proxy for Patroni clusters: it connects clients of PostgreSQL services to the instance that can
// serve them now.
package main

import (
	"os"

	"github.com/pgporter/pgporter/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
