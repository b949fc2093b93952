package patroni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// What a hostile Patroni says takes no room and shows as what it is, in an answer or in an error.
func TestAttackHostilePatroni(t *testing.T) {
	long := "\x1b[2J\u202e\u200b\n" + strings.Repeat("A", 60_000)
	tags := map[string]string{}
	for i := range 10_000 {
		tags[fmt.Sprint(i, long[:100])] = long[:100]
	}
	body, err := json.Marshal(map[string]any{"role": long, "state": long, "patroni": map[string]string{"name": long, "scope": long, "version": long}, "database_system_identifier": long, "tags": tags})
	if err != nil {
		t.Fatal(err)
	}
	a := ParseAnswer(http.StatusOK, body)
	texts := []string{a.Role, a.State, a.Name, a.Scope, a.Version, a.SystemID, a.Words()}
	size := 0
	for name, value := range a.Tags {
		texts = append(texts, name, value)
		size += len(name) + len(value)
	}
	if len(a.Tags) > mostTags || size > 50_000 {
		t.Errorf("%d tags of %d bytes are kept", len(a.Tags), size)
	}
	for _, text := range texts {
		if len(text) > 1500 || !safetext.Is(text) {
			t.Errorf("%d bytes, %.100q", len(text), text)
		}
	}
	if c, err := ParseCluster([]byte(`{"members":[` + strings.Repeat(`{"name":"a"},`, 50_000) + `{"name":"a"}]}`)); err == nil {
		t.Errorf("%d members are taken", len(c.Members))
	}
	for name, answer := range map[string]string{
		"no HTTP":         long,
		"a reason":        "HTTP/1.0 200 " + strings.Repeat("A", 60_000) + "\r\nbad",
		"a header":        "HTTP/1.0 200 OK\r\n" + strings.Repeat("\x1b", 60_000) + "\r\n\r\n",
		"a length":        "HTTP/1.0 200 OK\r\nContent-Length: " + strings.Repeat("9", 60_000) + "\r\n\r\n",
		"a status":        "HTTP/1.0 " + strings.Repeat("2", 60_000) + " OK\r\n\r\n",
		"a coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x1b" + strings.Repeat("x", 60_000) + "\r\n\r\n",
		"an endless head": "HTTP/1.0 200 OK\r\n" + strings.Repeat("A: b\r\n", 300_000),
	} {
		base := scripted(t, answer, nil)
		for what, ask := range map[string]func() error{
			"a check": func() error { _, err := NewClient(Options{}).Get(context.Background(), base, "/primary"); return err },
			"members": func() error { _, err := NewClient(Options{}).Cluster(context.Background(), base); return err },
		} {
			err := ask()
			if err != nil && (len(err.Error()) > 1500 || !safetext.Is(err.Error())) {
				t.Errorf("%s, %s: %d bytes, %.100q", name, what, len(err.Error()), err)
			}
		}
	}
}

// A text that is cut doesn't keep the whole in memory.
func TestAttackCutTextsAreLetGo(t *testing.T) {
	body, err := json.Marshal(map[string]any{"state": strings.Repeat("A", 900_000)})
	if err != nil {
		t.Fatal(err)
	}
	answers := make([]Answer, 200)
	for i := range answers {
		answers[i] = ParseAnswer(http.StatusOK, body)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 64<<20 {
		t.Errorf("%d answers hold %d MiB", len(answers), m.HeapAlloc>>20)
	}
	runtime.KeepAlive(answers)
}
