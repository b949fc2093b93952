package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestEvents(t *testing.T) {
	c := Config{Status: func() api.Status { return api.Status{} }, Problems: func() []string { return nil }, Names: func() []string { return nil }}
	c.Events = func(after uint64) []api.Event {
		if after >= 2 {
			return nil
		}
		return []api.Event{{ID: 2, Text: "something"}}
	}
	none := c
	none.Events = nil
	for _, test := range []struct {
		config     Config
		path, want string
		code       int
	}{
		{c, "/events", `{"events":[{"id":2,`, 200},
		{c, "/haproxy/node/events?after=1", `{"events":[{"id":2,`, 200},
		{c, "/events?after=2", `{"events":[]}`, 200},
		{none, "/events", `{"events":[]}`, 200},
		{c, "/events?after=-1", "the one parameter is after", 400},
		{c, "/events?after=1&after=2", "the one parameter is after", 400},
		{c, "/events?before=1", "the one parameter is after", 400},
		{c, "/openapi.json", "{", 200},
	} {
		w := httptest.NewRecorder()
		Handler(test.config).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8432"+test.path, nil))
		if w.Code != test.code || !strings.HasPrefix(w.Body.String(), test.want) {
			t.Errorf("%s: %d %.80s", test.path, w.Code, w.Body)
		}
		if test.code == 200 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s isn't JSON", test.path)
		}
	}
}
