// Package e2e tests pgporter on real clusters: PostgreSQL, Patroni, etcd and PgBouncer from Debian's packages, brought up by
// the sandbox on loopback addresses, each test on a prefix of its own. What is missing fails the test; nothing is skipped.
//
// The package has no code besides its tests.
package e2e
