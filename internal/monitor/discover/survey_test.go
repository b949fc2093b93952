package discover

import (
	"strings"
	"testing"
)

// A survey asks each cluster once, whichever of its members are named, and tells what nobody else could be asked.
func TestSurvey(t *testing.T) {
	p := newFakePatroni(t, "pg-test", `{"name": "one", "role": "leader", "state": "running", "api_url": "http://`+address(61)+`:8008/patroni", "host": "`+address(61)+`", "port": 5432, "tags": {"zone": "a", "rack": 7}},
		{"name": "two", "role": "replica", "state": "creating replica"}`)
	again := newFakePatroni(t, "pg-test", member("one", "leader", address(61)))
	other := newFakePatroni(t, "pg-test", member("one", "leader", address(62)))
	found, err := Survey(t.Context(), []string{p.URL, again.URL, other.URL, address(63) + ":1", "a b"})
	if len(found) != 2 || found[0].Cluster.Members[0].Host != address(61) || found[1].Cluster.Members[0].Host != address(62) {
		t.Fatalf("found %+v", found)
	}
	if err == nil || !strings.Contains(err.Error(), address(63)+":1: connection refused") || !strings.Contains(err.Error(), `"a b" isn't the address of a Patroni`) {
		t.Errorf("of those who don't answer: %v", err)
	}
	one := found[0]
	if one.At != p.URL || one.Version != "3.0.2" || len(one.Silent) != 1 || one.Silent[0] != "two" || one.Tags["one"]["zone"] != "a" || one.ConfigErr == nil {
		t.Errorf("surveyed: %+v", one)
	}
	vars := one.Cluster.Members[0].Vars
	if vars["zone"] != "a" || vars["rack"] != 7.0 || vars["pg_role"] != "primary" || vars["inventory_hostname"] != "one" {
		t.Errorf("selectors see %v", vars)
	}
}

// Patroni's tags are what they were for Patroni, and none takes the place of what a member is.
func TestTags(t *testing.T) {
	vars := tags(map[string]string{"on": "true", "n": "1.5", "text": "null", "list": "[1]"})
	if vars["on"] != true || vars["n"] != 1.5 || vars["text"] != "null" || vars["list"] != "[1]" {
		t.Errorf("%v", vars)
	}
}
