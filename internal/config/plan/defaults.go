package plan

import "github.com/pgporter/pgporter/internal/config/inventory/jinja"

// roleDefaults are the parameters that Pigsty's roles bring along, which templates of a host's own variables may use where
// the inventory doesn't set them (and which other hosts don't see). Secrets and what services have nothing to do with are
// left out: to a template that asks for them they are undefined.
func roleDefaults() map[string]any {
	services := []any{}
	for _, d := range defaultServices {
		one := jinja.NewDict()
		one.Set("name", d.Name)
		one.Set("port", int64(d.Port))
		dest := "default"
		if d.Dest.Kind != "" {
			dest = string(d.Dest.Kind)
		}
		one.Set("dest", dest)
		one.Set("check", d.Check)
		one.Set("selector", d.Selector.String())
		if !d.Backup.None() {
			one.Set("backup", d.Backup.String())
		}
		services = append(services, one)
	}
	return map[string]any{
		"pg_offline_query": false, "pg_weight": int64(100), "pg_group": int64(0), "pg_mode": "pgsql",
		"pg_port": int64(defaultPostgresPort), "pgbouncer_port": int64(defaultPgBouncerPort), "patroni_port": int64(defaultPatroniPort),
		"patroni_ssl_enabled": false, "patroni_username": "postgres", "pg_namespace": "/pg",
		"pg_default_service_dest": "pgbouncer", "pg_default_services": services, "pg_services": []any{}, "pg_service_provider": "",
		"pg_rto": defaultRTO, "pg_rto_plan": rtoRows(),
		"pg_vip_enabled": false, "pg_vip_address": "127.0.0.1/24", "pg_vip_interface": "auto", "pg_dns_suffix": "", "pg_dns_target": "auto",
		"haproxy_enabled": true, "haproxy_services": []any{}, "haproxy_exporter_port": int64(9101), "haproxy_admin_username": "admin",
		"haproxy_auth_enabled": true, "haproxy_client_timeout": "24h", "haproxy_server_timeout": "24h", "exporter_metrics_path": "/metrics",
		"etcd_port": int64(2379), "pg_admin_username": "dbuser_dba", "pg_users": []any{}, "pg_databases": []any{}, "pgbouncer_poolmode": "transaction",
	}
}

// rtoRows are Pigsty's own rows of pg_rto_plan, as its templates see them.
func rtoRows() any {
	rows := jinja.NewDict()
	rows.Set("fast", []any{int64(20), int64(5), int64(5), int64(15), int64(5), "1s", "0.5s", "1s", int64(3), int64(3)})
	rows.Set("norm", []any{int64(30), int64(5), int64(10), int64(25), int64(5), "2s", "1s", "2s", int64(3), int64(3)})
	rows.Set("safe", []any{int64(60), int64(10), int64(20), int64(45), int64(10), "3s", "1.5s", "3s", int64(3), int64(3)})
	rows.Set("wide", []any{int64(120), int64(20), int64(30), int64(95), int64(15), "4s", "2s", "4s", int64(3), int64(3)})
	return rows
}
