package web

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// A page of another site may have its own name lead to the admin address, and would then read all of the status as its own.
func TestAttackDNSRebinding(t *testing.T) {
	handler := Handler(Config{Status: sampled, Problems: none, Names: func() []string { return []string{"pgporter.pigsty", "node-1.example.org"} }})
	for host, ours := range map[string]bool{
		"10.10.10.11:8432": true, "10.10.10.11": true, "127.0.0.1:8432": true, "[::1]:8432": true, "::1": true, "localhost:8432": true, "localhost": true,
		"pg-test-1:8432": true, "pgporter.pigsty": true, "PGPorter.Pigsty:443": true, "node-1.example.org.": true, "": true, "app.localhost:1": true,
		"attacker.example": false, "attacker.example:8432": false, "127.0.0.1.attacker.example": false, "10.10.10.11.nip.io:8432": false,
		"localhost.attacker.example": false, "pgporter.pigsty.attacker.example": false, "x.pgporter.pigsty": false, "attacker.example.": false,
		"[attacker.example]:8432": false, "0x7f000001.attacker.example": false, "notlocalhost.example": false, "a.b:c:d": false,
	} {
		for _, path := range []string{"/", "/status", "/services", "/health", "/page.js", "/nothing"} {
			r := asked("GET", path)
			r.Host = host
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, r)
			if got := answer.Code != 421; got != ours {
				t.Errorf("%s asked for as %q: %d", path, host, answer.Code)
			}
			if !ours && strings.Contains(answer.Body.String(), "pg-test") {
				t.Errorf("%s asked for as %q tells %q", path, host, answer.Body)
			}
		}
	}
}

// Whatever text a server's or a sender's gets onto the page, no browser runs it, and nobody shows the page as a part of another.
func TestAttackPageRunsItsOwnFilesOnly(t *testing.T) {
	handler := shown(sampled)
	for _, path := range []string{"/", "/page.js", "/views.js", "/page.css", "/plain", "/session", "/status", "/services", "/services/pg-test-primary", "/services/none", "/health", "/nothing"} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, asked("GET", path))
		policy := answer.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy %q lacks %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || answer.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, answer.Header())
		}
	}
	text, err := page.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	if inline := regexp.MustCompile(`(?i)<style|<script>|<script [^>]*>[^<]|\son\w+=|\sstyle=|javascript:`).Find(text); inline != nil {
		t.Errorf("the page has %q in itself, which its policy forbids", inline)
	}
	for _, name := range scripts {
		code, err := page.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if unsafe := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\.style\b`).Find(code); unsafe != nil {
			t.Errorf("%s uses %q", name, unsafe)
		}
	}
}
