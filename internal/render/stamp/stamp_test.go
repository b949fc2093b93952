package stamp

import "testing"

func TestRoundTrip(t *testing.T) {
	for _, s := range []Stamp{
		{HAProxy, "pg-test", "pg-test-primary.cfg"},
		{HAProxy, "", "minio.cfg"},
		{HAProxy, "", "haproxy.cfg"},
		{DNSMasq, "pg-test", "pg-test"},
		{DNSMasq, "pg-a.b", "pg-a.b-1"},
		{VIPManager, "pg-test", "vip-manager.yml"},
		{PGService, "", "pg_service.conf"},
	} {
		got, ours := Of(s.File, s.Line()+"listen x\n")
		if !ours || got != s {
			t.Errorf("%q is read as %+v, %v; want %+v", s.Line(), got, ours, s)
		}
	}
}

func TestNotOurs(t *testing.T) {
	ours := Stamp{HAProxy, "pg-test", "pg-test-primary.cfg"}.Line()
	for name, file := range map[string]struct{ name, text string }{
		"empty":               {"pg-test-primary.cfg", ""},
		"Ansible's":           {"pg-test-primary.cfg", "# Ansible managed\nlisten pg-test-primary\n"},
		"a copy":              {"mine.cfg", ours},
		"not the first line":  {"pg-test-primary.cfg", "# mine now\n" + ours},
		"somebody's own text": {"pg-test-primary.cfg", "# pgporter made this for me, but I changed it\n"},
	} {
		if got, is := Of(file.name, file.text); is {
			t.Errorf("%s: taken for ours: %+v", name, got)
		}
	}
}
