package plan

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

// siteView is what of a Site isn't in Plans.
type siteView struct {
	Nodes []nodeView
	Names []Names
}

type nodeView struct {
	Host, Cluster string
	Infra         bool
	Base          *model.Base `json:",omitempty"`
	VIP           *model.VIP  `json:",omitempty"`
}

// What files are rendered from beside services, with every problem. Secrets are hidden in the goldens as everywhere.
func TestSites(t *testing.T) {
	for _, path := range inventories(t, "site", 5) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			inv, problems := parse(t, path)
			stem := filepath.Base(name)
			bad := stem == "bad"
			site, found := ForSite(inv, Parts{Base: bad || stem == "base", VIP: bad || stem == "vip" || stem == "no-etcd", Names: bad || stem == "names" || stem == "no-etcd"})
			view := siteView{Names: site.Names}
			for _, n := range site.Nodes {
				view.Nodes = append(view.Nodes, nodeView{n.Plan.Node, n.Cluster, n.Infra, n.Base, n.VIP})
			}
			text, err := json.MarshalIndent(view, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			problems = append(problems, found...)
			if bad != (problems.Err() != nil) {
				t.Errorf("problems:\n%s", problems.Error())
			}
			compareGolden(t, name+".json", string(text)+"\n")
			compareGolden(t, name+".txt", problems.Error()+"\n")
		})
	}
}

func TestSecretsOfASite(t *testing.T) {
	inv, _ := parse(t, "testdata/site/base.yml")
	site, problems := ForSite(inv, Parts{Base: true})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if got := site.Nodes[0].Base.AdminPassword; got != "" {
		t.Errorf("without authentication the password is %q", got.Reveal())
	}
	if got := site.Nodes[4].Base.AdminPassword.Reveal(); got != "Secret-1" {
		t.Errorf("the password is %q", got)
	}
	inv, _ = parse(t, "testdata/site/vip.yml")
	site, _ = ForSite(inv, Parts{VIP: true})
	for _, n := range site.Nodes {
		if n.VIP != nil && n.VIP.Password.Reveal() != n.VIP.User {
			t.Errorf("%s: the password is %q, want the user's name %q", n.Plan.Node, n.VIP.Password.Reveal(), n.VIP.User)
		}
	}
}

// What isn't asked for isn't read and can't be wrong.
func TestPartsOfASite(t *testing.T) {
	inv, _ := parse(t, "testdata/site/bad.yml")
	_, problems := ForSite(inv, Parts{})
	for _, name := range []string{"haproxy_admin", "haproxy_client", "haproxy_exporter", "nodename", "pg_vip", "pg_dns", "pg_namespace", "etcd"} {
		if strings.Contains(problems.Error(), name) {
			t.Errorf("%s is read though nobody asked:\n%s", name, problems.Error())
		}
	}
}
