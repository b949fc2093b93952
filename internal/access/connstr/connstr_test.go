package connstr

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestServiceFile(t *testing.T) {
	text, err := ServiceFile([]model.Entry{
		{Name: "pg-test-primary", Hosts: []string{"10.10.10.11", "10.10.10.12"}, Ports: []int{5433, 5433}},
		{Name: "pg-test-replica", Hosts: []string{"10.10.10.11", "10.10.10.12"}, Ports: []int{5434, 6434}},
		{Name: "pg-six.ro", Hosts: []string{"fd00::11"}, Ports: []int{5434}, User: "o'hara", Database: "my db"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `# pgporter made this for pg-service: pg_service.conf. Edits are lost: change the inventory.
# psql 'service=NAME dbname=… user=…', with PGSERVICEFILE set to where this file is.

[pg-test-primary]
host=10.10.10.11,10.10.10.12
port=5433
connect_timeout=10

[pg-test-replica]
host=10.10.10.11,10.10.10.12
port=5434,6434
connect_timeout=10

[pg-six.ro]
host=fd00::11
port=5434
connect_timeout=10
user=o'hara
dbname=my db
`
	if text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}

func TestServiceFileRefusals(t *testing.T) {
	for name, e := range map[string]model.Entry{
		"name":          {Name: "pg]\n[evil", Hosts: []string{"10.0.0.1"}, Ports: []int{1}},
		"host":          {Name: "pg", Hosts: []string{"10.0.0.1\nuser=postgres"}, Ports: []int{1}},
		"hosts in one":  {Name: "pg", Hosts: []string{"10.0.0.1,10.0.0.2"}, Ports: []int{1}},
		"user":          {Name: "pg", Hosts: []string{"10.0.0.1"}, Ports: []int{1}, User: "a\nhost=evil"},
		"blank":         {Name: "pg", Hosts: []string{"10.0.0.1"}, Ports: []int{1}, Database: "test "},
		"no hosts":      {Name: "pg"},
		"port":          {Name: "pg", Hosts: []string{"10.0.0.1"}, Ports: []int{0}},
		"ports missing": {Name: "pg", Hosts: []string{"10.0.0.1", "10.0.0.2"}, Ports: []int{1}},
	} {
		if text, err := ServiceFile([]model.Entry{e}); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		}
	}
}

// The real libpq finds a service's hosts and port in the file and tries them in their order. Nobody listens there.
func TestPSQL(t *testing.T) {
	text, err := ServiceFile([]model.Entry{
		{Name: "pg-test-primary", Hosts: []string{"127.0.70.11", "127.0.70.12"}, Ports: []int{1, 1}},
		{Name: "pg-test-replica", Hosts: []string{"127.0.70.12", "127.0.70.11"}, Ports: []int{2, 3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), File)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tried := range map[string][]string{
		"pg-test-primary": {`"127.0.70.11", port 1 failed: Connection refused`, `"127.0.70.12", port 1 failed: Connection refused`},
		"pg-test-replica": {`"127.0.70.12", port 2 failed: Connection refused`, `"127.0.70.11", port 3 failed: Connection refused`},
	} {
		psql := exec.Command("psql", "service="+name+" dbname=test user=test", "-c", "select 1")
		psql.Env = append(os.Environ(), "PGSERVICEFILE="+file, "LC_ALL=C", "PGHOST=", "PGPORT=")
		out, err := psql.CombinedOutput()
		if err == nil {
			t.Fatalf("%s: somebody answered:\n%s", name, out)
		}
		at := 0
		for _, want := range tried {
			i := strings.Index(string(out)[at:], want)
			if i < 0 {
				t.Fatalf("%s: %q is not, or not in its turn, in what psql said:\n%s", name, want, out)
			}
			at += i
		}
	}
}
