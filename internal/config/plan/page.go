package plan

import (
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// page reads where a host's pgporter answers in the place of its HAProxy; nil for nowhere. Whatever is wrong with it is no reason not to
// serve clients: it is a warning, and there is no page.
func (p *planner) page(h *inventory.Host, carried model.Plan) *model.Page {
	before := len(p.problems)
	found := p.readPage(h, carried)
	wrong := p.problems[before:].Err() != nil
	for i := range p.problems[before:] {
		p.problems[before+i].Severity = diag.Warning
	}
	if wrong {
		return nil
	}
	return found
}

func (p *planner) readPage(h *inventory.Host, carried model.Plan) *model.Page {
	if !p.flag(h, "haproxy_enabled", true) {
		return nil
	}
	page := model.Page{Node: p.nodeName(h), IP: "*", Port: p.number(h, "haproxy_exporter_port", 9101, 1, 65535),
		MetricsPath: p.text(h, "exporter_metrics_path", "/metrics", "a path, as in /metrics", urlForm.MatchString),
		Actions:     p.flag(h, "pgporter_page_actions", false)}
	if page.Actions {
		page.User = p.text(h, "haproxy_admin_username", "admin", "a name without blanks, commas and colons", isUser)
		if p.inv.Own() {
			// Who writes a pgporter.yml may not know of Pigsty's default.
			page.PasswordFile = model.PagePasswordFile
		} else {
			page.Password = p.secret(h, "haproxy_admin_password", defaultPassword)
			p.passwordDefault(h, page.Password)
		}
	}
	p.statsPort(h, model.Base{StatsPort: page.Port}, carried)
	return &page
}
