package plan

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

// What a node that tells names is given beside its own part: of a host that carries nothing, of a member, and of one that
// others' services are delegated to.
func TestWithNames(t *testing.T) {
	for _, path := range inventories(t, "naming", 2) {
		name := strings.TrimSuffix(path, ".yml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			inv, problems := parse(t, path)
			type seen struct {
				Node      string
				Names     []model.Naming
				Elsewhere []string
			}
			var all []seen
			for _, h := range inv.Hosts() {
				carried, _ := ForNode(inv, h.Name)
				before := len(carried.Clusters)
				p, found := WithNames(inv, carried)
				problems = append(problems, found...)
				if len(p.Clusters) != before {
					t.Errorf("%s carries %d clusters, and with names %d", h.Name, before, len(p.Clusters))
				}
				s := seen{Node: p.Node}
				if len(all) == 0 {
					s.Names = p.Names
				}
				for _, c := range p.Elsewhere {
					text := c.Name + ":"
					for _, d := range c.Definitions {
						text += " " + d.Name
					}
					s.Elsewhere = append(s.Elsewhere, text)
				}
				if len(all) < 2 || len(p.Clusters) > 0 && len(p.Clusters[0].Definitions) == 0 {
					all = append(all, s)
				}
			}
			text, err := json.MarshalIndent(all, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if bad := filepath.Base(name) == "bad"; bad != (problems.Err() != nil) {
				t.Errorf("problems:\n%s", problems.Error())
			}
			compareGolden(t, name+".json", string(text)+"\n")
			compareGolden(t, name+".txt", problems.Error()+"\n")
		})
	}
}
