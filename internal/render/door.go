package render

import (
	"github.com/pgporter/pgporter/internal/render/pgbouncercfg"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// doors renders the PgBouncers before services. A list of users is there only where the inventory knows a password: somebody else may
// write one.
func (r *renderer) doors() {
	for _, n := range r.site.Nodes {
		if n.Door == nil {
			continue
		}
		var of, notes []string
		for _, s := range n.Door.Shares {
			of = append(of, s.Cluster)
			notes = append(notes, pgbouncercfg.Share(s))
		}
		notes = append(notes, n.Door.LeftOut...)
		text, err := pgbouncercfg.Config(*n.Door)
		r.keep(n.Pos, n.Plan.Node, text, err, File{Path: pgbouncercfg.File, Whole: true, Clusters: of, Notes: notes,
			Of: stamp.Stamp{Kind: stamp.PgBouncer, File: pgbouncercfg.File}})
		if len(n.Door.Users) == 0 {
			continue
		}
		text, err = pgbouncercfg.Users(n.Door.Users)
		r.keep(n.Pos, n.Plan.Node, text, err, File{Path: pgbouncercfg.UserFile, Private: true, Whole: true, Clusters: of,
			Of: stamp.Stamp{Kind: stamp.PgBouncer, File: pgbouncercfg.UserFile}})
	}
}
