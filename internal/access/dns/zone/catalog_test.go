package zone

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

// of makes a cluster of members with these hosts, and a service primary.
func of(name string, hosts ...string) model.Cluster {
	c := model.Cluster{Name: name, Definitions: []model.Definition{{Name: "primary", FullName: name + "-primary", IP: "*", Port: 5433}}}
	for i, h := range hosts {
		c.Members = append(c.Members, model.Member{Name: name + "-" + string(rune('1'+i)), Host: h})
	}
	return c
}

func TestNamesThatTwoHave(t *testing.T) {
	nested := of("pg-b", "10.0.1.1")
	nested.Definitions = append(nested.Definitions, model.Definition{Name: "PRIMARY", FullName: "pg-b-PRIMARY"}, model.Definition{Name: serverLabel, FullName: "pg-b-pgporter"})
	c, warnings, err := NewCatalog([]model.Cluster{of("pg-a", "10.0.0.1"), of("pg-a-1", "10.0.0.1"), nested},
		[]model.Naming{{Cluster: "pg-a", Target: "primary"}, {Cluster: "pg-a-1", Target: "primary"}, {Cluster: "pg-b", Target: "primary"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the name pg-a-1. of cluster pg-a-1 is the name of instance pg-a-1 already, which keeps it",
		"the name primary.pg-b. of service pg-b-PRIMARY is the name of service pg-b-primary already, which keeps it",
		"the name _postgresql._tcp.primary.pg-b. of service pg-b-PRIMARY is the name of service pg-b-primary already, which keeps it",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(want, "\n"))
	}
	if o := c.names["primary.pg-a-1."]; o.kind != serviceName || o.cluster != 1 {
		t.Errorf("what is below the name that both have is %+v", o)
	}
	if o := c.names["pgporter.pg-b."]; o.kind != serviceName {
		t.Errorf("the service lost its name to the name server: %+v", o)
	}
	if got := c.pointers["1.0.0.10.in-addr.arpa."]; !slices.Equal(got, []string{"pg-a-1.", "pg-a-1-1."}) {
		t.Errorf("the address of two members is %v", got)
	}
	if c.Names() != 19+2 {
		t.Errorf("there are %d names: %v %v", c.Names(), c.names, c.pointers)
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	long := of(strings.Repeat("a", 62), "10.0.0.1")
	odd := of("pg-odd", "10.0.0.2", "pg-2.lan")
	odd.Definitions[0].Name = "a..b"
	odd.Definitions = append(odd.Definitions, model.Definition{Name: "grün", FullName: "pg-odd-grün"})
	_, _, err := NewCatalog([]model.Cluster{long, odd, of("pg-c", "10.0.0.3"), of("pg-d")}, []model.Naming{
		{Cluster: long.Name, Target: "primary"}, {Cluster: "pg-odd", Target: "primary"}, {Cluster: "pg-c", Suffix: "." + strings.Repeat("long.", 50), Target: "none"},
		{Cluster: "pg-d", Target: "auto"}, {Cluster: "pg-e", Target: "primary"},
	}, nil)
	for _, want := range []string{
		"instance " + long.Name + "-1: \"" + long.Name + "-1\" can't be a name of the DNS: the label",
		"service pg-odd-primary: \"a..b.pg-odd\" can't be a name of the DNS: a label is empty",
		"service pg-odd-grün: \"grün.pg-odd\" can't be a name of the DNS: in grün there is something else than letters, digits, dashes and underscores",
		"cluster pg-c: ", "it is longer than 253 bytes",
		"the name of cluster pg-d: its target is \"auto\", which is no address",
		"names of cluster pg-e, of which nothing else is known",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q isn't in\n%v", want, err)
		}
	}
}
