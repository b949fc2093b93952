package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlansHoldNoSecret plans an inventory full of secrets for both engines and looks for each of them: by their names, in lists, made by
// templates, by aliases, encrypted, and Pigsty's own defaults that stand nowhere.
func TestPlansHoldNoSecret(t *testing.T) {
	var secrets []string
	secret := func() string {
		s := fmt.Sprintf("S3cr3t.%04d", len(secrets))
		secrets = append(secrets, s)
		return s
	}
	var vars strings.Builder
	for _, name := range []string{
		"pg_admin_password", "pg_dbsu_password", "pg_monitor_password", "pg_replication_password", "pg_etcd_password", "patroni_password", "pgbouncer_password",
		"etcd_root_password", "grafana_admin_password", "haproxy_admin_password", "minio_secret_key", "api_token", "vault_credentials", "ansible_ssh_pass", "tls_private_key",
	} {
		fmt.Fprintf(&vars, "    %s: %s\n", name, secret())
	}
	anchored := secret()
	fmt.Fprintf(&vars, "    other_password: &anchored %s\n", anchored)
	fmt.Fprintf(&vars, "    innocent: \"{{ pg_admin_password }}\"\n    further: \"x{{ innocent | upper }}\"\n    pointing: *anchored\n")
	fmt.Fprintf(&vars, "    pg_users: [ { name: test, password: %s }, { name: other, password: \"{{ innocent }}\" } ]\n", secret())
	fmt.Fprintf(&vars, "    pgbackrest_repo: { minio: { s3_key: k, s3_key_secret: %s, cipher_pass: %s } }\n", secret(), secret())
	fmt.Fprintf(&vars, "    conninfo: host=h password=%s\n    url: postgres://u:%s@h/db\n", secret(), secret())
	fmt.Fprintf(&vars, "    vaulted_password: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      %s\n", secret())
	fmt.Fprint(&vars, "    pg_services: [ { name: every, port: 5440, selector: \"[? keys(@) && to_string(@) != 'x']\" } ]\n")
	inventory := strings.Replace(trio, "  vars: { pg_cluster: pg-test }\n", "  vars:\n    pg_cluster: pg-test\n    pg_vip_enabled: true\n    pg_vip_address: 127.0.62.99/24\n    pg_vip_interface: lo\n"+vars.String(), 1) +
		"etcd: { hosts: { 127.0.62.51: } }\n"
	secrets = append(secrets, "S3CR3T", "DBUser", `"pigsty"`, `"(secret)"`)
	dir := t.TempDir()
	path := filepath.Join(dir, "pigsty.yml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"", "--names", "--engine haproxy", "--engine haproxy --names"} {
		out := filepath.Join(dir, "plans"+flags)
		var stdout, stderr bytes.Buffer
		if status := Main(append([]string{"plan", "-i", path, "--out", out}, strings.Fields(flags)...), strings.NewReader(""), &stdout, &stderr); status != 0 {
			t.Fatalf("%s: status %d\n%s", flags, status, &stderr)
		}
		texts := stdout.String() + stderr.String()
		for _, host := range []string{"127.0.62.51", "127.0.62.52", "127.0.62.53"} {
			text, err := os.ReadFile(filepath.Join(out, host+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte("pg-test-every")) || !bytes.Contains(text, []byte(`"etcd-pg-test.password"`[1:])) || !bytes.Contains(text, []byte(`"vip"`)) {
				t.Errorf("%s: the plan lacks something:\n%s", flags, text)
			}
			texts += string(text)
		}
		hidesNothing(t, texts, secrets)
	}
}
