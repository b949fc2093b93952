package intake

import (
	"fmt"

	"github.com/pgporter/pgporter/internal/config/model"
)

// names checks what a plan says of names, and the clusters that are only watched for them. What can be a name of the DNS is
// found out when they are served.
func (c *checker) names(p model.Plan, clusters map[string]bool) {
	known := map[string]bool{}
	for name := range clusters {
		known[name] = true
	}
	elsewhere := map[string]bool{}
	for i, one := range p.Elsewhere {
		c.path = fmt.Sprintf("plan.elsewhere[%d]", i)
		c.that(model.IsClusterName(one.Name), "cluster %q elsewhere: its name has to be letters, digits and dashes, and not root", one.Name)
		c.that(!elsewhere[one.Name], "cluster %s elsewhere is there twice", one.Name)
		elsewhere[one.Name], known[one.Name] = true, true
		// Its services are on other nodes: there they have ports and names of their own.
		other := newChecker()
		other.path, other.local = c.path, c.local
		other.cluster(one)
		c.problems = append(c.problems, other.problems...)
	}
	named := map[string]bool{}
	for i, n := range p.Names {
		c.path = fmt.Sprintf("plan.names[%d]", i)
		c.that(known[n.Cluster], "names of cluster %q, of which nothing else is known", n.Cluster)
		c.that(!named[n.Cluster], "the names of cluster %s are there twice", n.Cluster)
		named[n.Cluster] = true
		c.that(n.Suffix == "" || model.IsSuffix(n.Suffix), "names of cluster %s: suffix is %q: letters, digits, dashes and dots", n.Cluster, n.Suffix)
		c.that(n.Target == model.TargetPrimary || n.Target == model.TargetNone || model.IsAddress(n.Target),
			"names of cluster %s: target is %q: primary, none or an address", n.Cluster, n.Target)
	}
}
