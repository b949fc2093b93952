package model

import "testing"

func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"*", "10.0.0.1", true}, {"*", "*", true}, {"10.0.0.1", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.2", false}, {"0.0.0.0", "10.0.0.1", true},
		{"0.0.0.0", "::1", false}, {"::", "10.0.0.1", true}, {"::", "0.0.0.0", true}, {"::1", "0:0::1", true}, {"10.0.0.1", "a-name", true},
	} {
		if Overlap(tc.a, tc.b) != tc.want || Overlap(tc.b, tc.a) != tc.want {
			t.Errorf("Overlap(%s, %s) isn't %v both ways", tc.a, tc.b, tc.want)
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
