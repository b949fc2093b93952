package connstr

import (
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// as completes an endpoint with who comes: the user asked for, or else the one given.
func (l *lister) as(w Endpoint, user string) Endpoint {
	if l.choice.User != "" {
		user = l.choice.User
	}
	w.User = user
	if account, ok := l.account(func(a model.Account) bool { return a.Name == user }); ok {
		w.Password = account.Password
	}
	return w
}

func (l *lister) account(fits func(model.Account) bool) (model.Account, bool) {
	i := slices.IndexFunc(l.a.Accounts, fits)
	if i < 0 {
		return model.Account{}, false
	}
	return l.a.Accounts[i], true
}

// chooseDatabase takes the one that is called as the cluster is without its pg-, or else the first, those in the pool before
// others.
func (l *lister) chooseDatabase() string {
	if l.choice.Database != "" {
		return l.choice.Database
	}
	named := strings.TrimPrefix(l.a.Cluster, "pg-")
	chosen := model.Database{Name: "postgres"}
	for i, d := range l.a.Databases {
		if i == 0 || d.Name == named || d.Pooled && !chosen.Pooled && chosen.Name != named {
			chosen = d
		}
	}
	return chosen.Name
}

// application is the database's owner or the user that is called as it is, as long as PgBouncer knows them; or else the first
// whom it knows.
func (l *lister) application() string {
	owner := ""
	for _, d := range l.a.Databases {
		if d.Name == l.database {
			owner = d.Owner
		}
	}
	for _, fits := range []func(model.Account) bool{
		func(a model.Account) bool { return a.Pooled && a.Name == owner },
		func(a model.Account) bool { return a.Pooled && a.Name == l.database },
		func(a model.Account) bool { return a.Pooled && a.Name != l.a.Admin },
		func(a model.Account) bool { return a.Name != l.a.Admin },
	} {
		if a, ok := l.account(fits); ok {
			return a.Name
		}
	}
	return l.a.Admin
}

// guest is who comes to a service: the administrator to the primary past its pool, statistics to the offline instance.
func (l *lister) guest(o model.Offer) string {
	direct := o.Dest.Kind == model.ToPostgres
	pool := func(other model.Offer) bool {
		return other.Dest.Kind == model.ToPgBouncer && wanted(other.Check) == Primary
	}
	switch {
	case direct && strings.Contains(o.Selector.String(), "offline"):
		return l.statistics()
	case direct && wanted(o.Check) == Primary && slices.ContainsFunc(l.a.Offers, pool):
		return l.a.Admin
	}
	return l.application()
}

// statistics is who comes for what takes long: a user with Pigsty's role for that.
func (l *lister) statistics() string {
	if a, ok := l.account(func(a model.Account) bool { return slices.Contains(a.Roles, "dbrole_offline") }); ok {
		return a.Name
	}
	return l.application()
}
