package diff

import (
	"fmt"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

// BenchmarkBetween compares the plans of a node that carries 1,000 clusters of three members and two services each.
func BenchmarkBetween(b *testing.B) {
	one := sample().Clusters[0]
	plan := model.Plan{Node: "10.10.10.11"}
	for i := range 1000 {
		c := one
		c.Name = fmt.Sprintf("pg-%d", i)
		c.Definitions = nil
		for _, d := range one.Definitions {
			d.FullName = c.Name + "-" + d.Name
			c.Definitions = append(c.Definitions, d)
		}
		plan.Clusters = append(plan.Clusters, c)
	}
	for b.Loop() {
		changes, err := Between(plan, plan, nil)
		if err != nil || !changes.None() {
			b.Fatal(changes, err)
		}
	}
}
