package ownfile

import (
	"regexp"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// phrases are what messages say of inventories, with what it is here. They come before single words.
var phrases = strings.NewReplacer(
	"hosts with pg_cluster, pg_seq and pg_role, or haproxy_services", "clusters with members",
	"hosts with pg_cluster, pg_seq and pg_role", "clusters with members",
	"no host is a member of a cluster", "there is no cluster",
	"pg_cluster, pg_seq and pg_role", "a member of a cluster, or one of its nodes",
	"pgbouncer_enabled is false", "there is no pgbouncer_port",
	"pg_default_service_dest: postgres, or dest: postgres of the service", "a pgbouncer_port, or dest: postgres of the cluster or the service",
	"a pg_group of its own for each cluster of a pg_shard", "a scope of its own for each cluster",
	"a group etcd with hosts", "etcd with its endpoints",
	"there is no group etcd", "nothing is said of etcd",
	"pg_vip_enabled: true, or another target", "a vip, or another target",
	"a row of pg_rto_plan with a ttl of at least 10", "a ttl of at least 10",
	"a name and no address: every node has to look it up, and names of the DNS can't stand for it", "a name and no address: every node has to look it up, and names that --dns tells can't stand for it",
	"an address as the host's name", "an address as its host",
	"isn't in the inventory", "isn't in this file",
	"a variable of the inventory", "a value written out",
	"'' for services that the members carry", "no nodes for services that the members carry",
	"a group with hosts", "a list with addresses",
	"pgporter_member is", "the member's name is",
	"PostgreSQL's pg_port", "PostgreSQL's port",
	"PgBouncer's pgbouncer_port", "PgBouncer's port",
	"Patroni's patroni_port", "Patroni's port",
	", as in Pigsty", "",
)

var variableForm = regexp.MustCompile(`[a-z]+(_[a-z0-9]+)+`)

// Worded gives a message on what a file became, which speaks of variables, in the words of the file. What it quotes stays.
func Worded(message string) string {
	parts := strings.Split(phrases.Replace(message), `"`)
	for i := 0; i < len(parts); i += 2 {
		parts[i] = variableForm.ReplaceAllStringFunc(parts[i], func(word string) string {
			if path, known := paths[word]; known {
				return path
			}
			return word
		})
	}
	return strings.Join(parts, `"`)
}

// Nearest gives the key that a misspelt one is probably meant to be: one that is near, or that a variable of that name is called here.
// Empty if there is none.
func Nearest(name string, keys []Key) string {
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for _, k := range keys {
		if k.Name == plain || k.Variable == name || k.Variable != "" && k.Variable == plain {
			return k.Name
		}
	}
	return diag.Nearest(plain, Names(keys))
}

// elsewhere are words that people bring along, with what is meant here.
var elsewhere = map[string]string{
	"address": "host", "ip": "host", "hosts": "members", "instances": "members", "servers": "members", "master": "role: primary",
	"postgres_port": "port", "pg_vip_enabled": "vip with its address", "password": "nothing in its place: this file has no secrets",
	"pg_seq": "nothing in its place: a member is called by Patroni's name", "pg_service_provider": "nodes", "pg_default_services": "default_services",
	"haproxy_services": "nothing in its place: services that aren't PostgreSQL's take an inventory", "children": "clusters", "vars": "defaults",
}

// Instead says what is to be written where somebody writes a word that isn't a key anywhere; empty if nothing is known of it.
func Instead(name string) string { return elsewhere[name] }
