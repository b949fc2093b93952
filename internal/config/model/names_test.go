package model

import (
	"strings"
	"testing"
)

func TestForms(t *testing.T) {
	long := strings.Repeat("a", MaxName)
	for _, form := range []struct {
		name      string
		is        func(string) bool
		good, bad []string
	}{
		{"cluster", IsClusterName, []string{"pg-test", "PG1", "1", "pg-", long}, []string{"", "root", "-pg", "pg_test", "pg.test", "pg test", "pg-test\n", long + "a"}},
		{"name", IsName, []string{"primary", "_a", "1", "pg-test-1", "a.b_c-", long}, []string{"", "-a", ".a", "a b", "a/b", "a:b", "ä", "a\n", long + "a"}},
		{"host name", IsHostName, []string{"db", "db-1.example", "_a_", "10.10.10.10", long}, []string{"", "-a", "a-", "a.", ".a", "a:1", "a b", "a\n", long + "a"}},
		{"host", IsHost, []string{"db", "10.10.10.10", "fd00::1", "::"}, []string{"", "fe80::1%eth0", "[::1]", "10.10.10.12/24", "db:1", "a-"}},
		{"address", IsAddress, []string{"10.10.10.10", "::"}, []string{"", "*", "db", "fe80::1%eth0", "10.10.10.12/24"}},
		{"suffix", IsSuffix, []string{".db.example", "-a", "a", long}, []string{"", "a.", ".a-", ".a b", ".a\n", long + "a"}},
		{"key path", IsKeyPath, []string{"/pg", "/pg/pg-test/0"}, []string{"", "/", "pg", "/pg/", "/pg//a", "/pg a", "/" + strings.Repeat("a", 3*MaxName)}},
		{"interface", IsInterface, []string{"eth0", "br-1.20", strings.Repeat("a", 15)}, []string{"", "eth0:1", "a/b", "a b", "a\n", strings.Repeat("a", 16)}},
	} {
		for _, text := range form.good {
			if !form.is(text) {
				t.Errorf("%q is no %s", text, form.name)
			}
		}
		for _, text := range form.bad {
			if form.is(text) {
				t.Errorf("%q is a %s", text, form.name)
			}
		}
	}
}

func TestIsCheckPath(t *testing.T) {
	for text, want := range map[string]bool{
		"/": true, "/replica?lag=10MB&tag_zone=a": true, "": false, "primary": false, "/a b": false, "/a\n": false, "/\"": false, "/#": false, "/ä": false,
	} {
		if IsCheckPath(text) != want {
			t.Errorf("IsCheckPath(%q) isn't %v", text, want)
		}
	}
}
