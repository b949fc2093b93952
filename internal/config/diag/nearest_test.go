package diag

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"maxconn", "maxqueue", "port", "ip", "id", "backup"}
	for misspelt, want := range map[string]string{
		"maxcon": "maxconn", "maxqeue": "maxqueue", "prot": "port", "bakcup": "backup", "ipp": "ip", "port": "port",
		"": "", "3": "", "selector": "", "xyz": "",
	} {
		if got := Nearest(misspelt, known); got != want {
			t.Errorf("%q: %q, want %q", misspelt, got, want)
		}
	}
}
