package owner

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/model"
)

// documented are the keys of vip-manager's configuration with what may be their values, and whether each must be there
// (the table in the README of vip-manager 5.0).
var documented = map[string]struct {
	required bool
	number   bool
	list     bool
	oneOf    []string
}{
	"ip": {required: true}, "netmask": {required: true, number: true}, "interface": {required: true},
	"trigger-key": {required: true}, "trigger-value": {},
	"manager-type": {oneOf: []string{"basic", "hetzner"}}, "dcs-type": {oneOf: []string{"etcd", "consul", "patroni"}},
	"dcs-endpoints": {list: true}, "etcd-user": {}, "etcd-password": {}, "consul-token": {},
	"interval": {number: true}, "retry-after": {number: true}, "retry-num": {number: true},
	"etcd-ca-file": {}, "etcd-cert-file": {}, "etcd-key-file": {}, "verbose": {oneOf: []string{"true", "false"}},
}

func sample() model.VIP {
	return model.VIP{
		Address: "10.10.10.3", Bits: 24, Interface: "eth0", TriggerKey: "/pg/pg-test/leader", TriggerValue: "pg-test-1",
		Endpoints: []string{"https://10.10.10.10:2379", "https://10.10.10.9:2379"},
		CAFile:    "/pg/cert/ca.crt", CertFile: "/pg/cert/server.crt", KeyFile: "/pg/cert/server.key", User: "pg-test", Password: `a"b: #\ <é>`,
	}
}

func TestManager(t *testing.T) {
	text, err := Manager("pg-test", sample())
	if err != nil {
		t.Fatal(err)
	}
	var parsed map[string]yaml.Node
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for key, node := range parsed {
		d, known := documented[key]
		if !known {
			t.Errorf("vip-manager doesn't know %s", key)
		}
		if d.number != (node.ShortTag() == "!!int") || d.list != (node.Kind == yaml.SequenceNode) || d.oneOf != nil && !slices.Contains(d.oneOf, node.Value) {
			t.Errorf("%s can't be %s %q", key, node.ShortTag(), node.Value)
		}
	}
	for key, d := range documented {
		if _, set := parsed[key]; d.required && !set {
			t.Errorf("%s is missing", key)
		}
	}
	// What vip-manager demands together: a certificate needs its key and the authority, a password its user.
	for _, key := range []string{"etcd-ca-file", "etcd-cert-file", "etcd-key-file", "etcd-user", "etcd-password"} {
		if _, set := parsed[key]; !set {
			t.Errorf("%s is missing", key)
		}
	}
	for key, want := range map[string]string{
		"ip": "10.10.10.3", "netmask": "24", "interface": "eth0", "trigger-key": "/pg/pg-test/leader", "trigger-value": "pg-test-1",
		"etcd-user": "pg-test", "etcd-password": `a"b: #\ <é>`,
	} {
		if node := parsed[key]; node.Value != want {
			t.Errorf("%s is %q, want %q", key, node.Value, want)
		}
	}
	endpoints := parsed["dcs-endpoints"]
	if len(endpoints.Content) != 2 || endpoints.Content[0].Value != "https://10.10.10.10:2379" {
		t.Errorf("the endpoints are wrong in\n%s", text)
	}
	if !strings.HasPrefix(text, "# pgporter made this for vip-manager: vip-manager.yml of pg-test.") {
		t.Errorf("no stamp in\n%s", text)
	}
}

// An interface or a value that YAML would take for something else stays a text.
func TestManagerQuotes(t *testing.T) {
	v := sample()
	v.Interface, v.TriggerValue, v.Password = "no", "1e3", "0123"
	text, err := Manager("pg-test", v)
	if err != nil {
		t.Fatal(err)
	}
	var parsed map[string]any
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	if parsed["interface"] != "no" || parsed["trigger-value"] != "1e3" || parsed["etcd-password"] != "0123" {
		t.Errorf("not texts any more: %v", parsed)
	}
}

func TestManagerRefusals(t *testing.T) {
	for name, spoil := range map[string]func(v *model.VIP){
		"no address":   func(v *model.VIP) { v.Address = "pg-test" },
		"no bits":      func(v *model.VIP) { v.Bits = 0 },
		"many bits":    func(v *model.VIP) { v.Bits = 33 },
		"no interface": func(v *model.VIP) { v.Interface = "" },
		"no key":       func(v *model.VIP) { v.TriggerKey = "" },
		"no value":     func(v *model.VIP) { v.TriggerValue = "" },
		"no etcd":      func(v *model.VIP) { v.Endpoints = nil },
	} {
		v := sample()
		spoil(&v)
		if text, err := Manager("pg-test", v); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		} else if strings.Contains(err.Error(), v.Password.Reveal()) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}
