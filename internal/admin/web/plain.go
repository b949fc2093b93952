package web

import (
	"bytes"
	"html/template"
	"net/http"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// plainRows is how many servers the plain table has at most; the rest is in the status.
const plainRows = 2000

// plainPage is the page for those who run no scripts. It comes anew by itself, in a time in which nobody has lost his place.
var plainPage = template.Must(template.New("plain").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="15">
<title>{{.Node}} · pgporter</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
<body class="plain">
<h1>{{.Node}}</h1>
<p>pgporter {{.Version}}, {{.Now.Format "2006-01-02 15:04:05 MST"}}. <a href="./">The page with scripts</a> · <a href="status">all as JSON</a></p>
{{range .Words}}<p class="bad">{{.}}</p>
{{end}}{{range .Clusters}}<h2>{{.Name}}: {{.Is}}</h2>
{{range .Words}}<p>{{.}}</p>
{{end}}<table>
<tr><th>Service<th>Listens on<th>Server<th>Role<th>State<th>Sessions<th>Waiting<th>Why
{{range .Rows}}<tr><td>{{.Service}}<td>{{.Listen}}<td>{{.Server}}<td>{{.Role}}<td>{{.State}}<td>{{.Sessions}}<td>{{.Queued}}<td>{{.Why}}
{{end}}</table>
{{end}}{{if .Cut}}<p>There are more: <a href="services">a line for each service</a>.</p>{{end}}
</html>
`))

type plainCluster struct {
	Name  string
	Is    Judgement
	Words []string
	Rows  []plainRow
}

type plainRow struct {
	Service, Listen, Server, Role, State, Why string
	Sessions, Queued                          int
}

// table answers with the plain page.
func table(w http.ResponseWriter, s api.Status) {
	shown := struct {
		Node, Version string
		Now           time.Time
		Words         []string
		Clusters      []plainCluster
		Cut           bool
	}{Node: nodeName(&s), Version: s.Version, Now: s.Now, Words: nodeWords(&s)}
	left := plainRows
	i := 0
	each(&s, func(name string, services []api.Service) {
		c := plainCluster{Name: name}
		if i < len(s.Clusters) {
			c.Is, c.Words = judge(&s.Clusters[i], s.Now)
		} else {
			c.Is, c.Words = judgeTCP(services, s.Now)
		}
		i++
		for k := range services {
			c.Rows = append(c.Rows, plainRowsOf(&services[k])...)
		}
		if left -= len(c.Rows); left < 0 {
			shown.Cut = true
			return
		}
		shown.Clusters = append(shown.Clusters, c)
	})
	var body bytes.Buffer
	if err := plainPage.Execute(&body, shown); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(body.Bytes())
}

func plainRowsOf(s *api.Service) []plainRow {
	listen := s.Listen
	if s.Shadow {
		listen = "(shadow)"
	}
	if len(s.Servers) == 0 {
		return []plainRow{{Service: s.FullName, Listen: listen, Server: "none is selected", Queued: s.Queued}}
	}
	var rows []plainRow
	for i := range s.Servers {
		server := &s.Servers[i]
		r := plainRow{Server: server.Member, Role: server.Role, State: stateOf(server), Why: server.Reason, Sessions: server.Sessions, Queued: server.Queued}
		if i == 0 {
			r.Service, r.Listen, r.Queued = s.FullName, listen, s.Queued
		}
		if o := server.Order; o != nil && o.State != api.Ready {
			r.Why = "ordered by " + o.By + "; " + r.Why
		}
		rows = append(rows, r)
	}
	return rows
}

// stateOf is a server's state in a word.
func stateOf(s *api.Server) string {
	switch {
	case s.Order != nil && s.Order.State == api.Maintenance:
		return "maintenance"
	case s.Order != nil && s.Order.State == api.Drain:
		return "drained"
	case s.Serving:
		return "serving"
	case s.Up && s.Backup:
		return "backup, ready"
	case s.Up:
		return "ready"
	}
	return "down"
}

// nodeName is what a node is called.
func nodeName(s *api.Status) string {
	switch {
	case s.Page != nil && s.Page.Node != "":
		return s.Page.Node
	case s.Node != "":
		return s.Node
	}
	return "pgporter"
}

// nodeWords is what is wrong with the node itself.
func nodeWords(s *api.Status) []string {
	var words []string
	if s.Shadow != nil {
		words = append(words, "a shadow beside HAProxy: it shows what it would do, and serves nobody but what was taken")
	}
	for _, l := range s.Stalled {
		words = append(words, l.Loop+" stands still")
	}
	if s.Config.Refused != "" {
		words = append(words, "the last configuration was refused: "+s.Config.Refused)
	}
	if p := s.Page; p != nil {
		if p.Problem != "" {
			words = append(words, "nothing answers at "+p.Listen+": "+p.Problem)
		}
		if p.Warning != "" {
			words = append(words, p.Warning)
		}
	}
	return words
}
