package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// events answers with what happened after an event.
func (c Config) events(w http.ResponseWriter, r *http.Request) {
	var after uint64
	query := r.URL.Query()
	for name, values := range query {
		var err error
		if name == "after" && len(values) == 1 {
			after, err = strconv.ParseUint(values[0], 10, 64)
		}
		if name != "after" || len(values) != 1 || err != nil {
			plain(w, http.StatusBadRequest)
			fmt.Fprintln(w, "the one parameter is after, the id of an event")
			return
		}
	}
	answer := api.Events{Events: []api.Event{}}
	if c.Events != nil {
		answer.Events = append(answer.Events, c.Events(after)...)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(body, '\n'))
}
