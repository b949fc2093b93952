package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/intake"
)

// Steering is what the routes show and change. A nil function is what this pgporter can't: its route answers 501.
//
// by and api.Order.By say who asks. The context of what changes something isn't the connection's: what arrived whole is carried out
// though its sender hangs up.
type Steering struct {
	// Node says who this node is now.
	Node   func() api.Node
	Status func() api.Status
	// Events are those after the one with an ID, the oldest first.
	Events   func(after uint64) []api.Event
	Sessions func(api.SessionFilter) (api.Sessions, error)
	// Order has servers do what an operator wants.
	Order       func(context.Context, api.Order) ([]api.OrderResult, error)
	EndSessions func(ctx context.Context, e api.EndSessions, by string) (api.SessionsEnded, error)
	// Hold keeps new clients of a cluster's leader waiting, or lets them go.
	Hold func(context.Context, api.HoldOrder) (api.Held, error)
	// Goroutines are the stacks of all goroutines as text, those with the same one together.
	Goroutines func() (string, error)
	// Reread reads the node's own configuration again; an error is why what ran goes on.
	Reread func(ctx context.Context, by string) (api.Reread, error)
	// Take makes a plan the running configuration, or says why not; with dryRun it only says what would change. from is the
	// sender's address.
	Take func(ctx context.Context, o intake.Order, from string, dryRun bool) (api.Taken, error)
}

// Paths of the routes.
const (
	nodePath        = "/node"
	statusPath      = "/status"
	eventsPath      = "/events"
	sessionsPath    = "/sessions"
	goroutinesPath  = "/debug/goroutines"
	serversPath     = "/servers"
	endSessionsPath = "/sessions/end"
	holdPath        = "/hold"
	rereadPath      = "/reload"
	takePath        = "/plan"
	dryRunPath      = "/plan/dry-run"
)

// maxOrder bounds what is read of an order about servers or sessions.
const maxOrder = 16 << 10

// Route is something that can be asked at the control address.
type Route struct {
	Method, Path string
	// Parameters are those that its query may have.
	Parameters []string
	// answer gives what is answered; what it sets off belongs to ctx.
	answer func(ctx context.Context, r request) (any, error)
}

// request is one that a Route answers.
type request struct {
	*http.Request
	query url.Values
	by    string
}

// refused is an error with the status that it is answered with; others are the node's own refusals.
type refused struct {
	code int
	error
}

func wrong(format string, args ...any) error {
	return refused{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

var errCannot = refused{http.StatusNotImplemented, errors.New("this pgporter can't do that")}

// Routes are what can be asked, in the order in which they are documented.
func (s Steering) Routes() []Route {
	return []Route{
		{http.MethodGet, nodePath, nil, func(_ context.Context, _ request) (any, error) {
			if s.Node == nil {
				return nil, errCannot
			}
			return s.Node(), nil
		}},
		{http.MethodGet, statusPath, nil, func(_ context.Context, _ request) (any, error) {
			if s.Status == nil {
				return nil, errCannot
			}
			return s.Status(), nil
		}},
		{http.MethodGet, eventsPath, []string{"after"}, s.events},
		{http.MethodGet, sessionsPath, slices.Sorted(maps.Keys(filterFields)), s.sessions},
		{http.MethodGet, goroutinesPath, nil, func(_ context.Context, _ request) (any, error) {
			if s.Goroutines == nil {
				return nil, errCannot
			}
			text, err := s.Goroutines()
			return api.Goroutines{Lines: strings.Split(text, "\n")}, err
		}},
		{http.MethodPost, serversPath, nil, s.order},
		{http.MethodPost, endSessionsPath, nil, s.endSessions},
		{http.MethodPost, holdPath, nil, s.hold},
		{http.MethodPost, rereadPath, nil, s.reread},
		{http.MethodPost, takePath, nil, func(ctx context.Context, r request) (any, error) { return s.take(ctx, r, false) }},
		{http.MethodPost, dryRunPath, nil, func(ctx context.Context, r request) (any, error) { return s.take(ctx, r, true) }},
	}
}

// handler answers requests of whoever may; what they set off belongs to ctx.
func (s Steering) handler(ctx context.Context, log *slog.Logger) http.Handler {
	routes := s.Routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, methods := routeOf(routes, r)
		if route == nil {
			w.Header().Set("Connection", "close")
			if len(methods) > 0 {
				w.Header().Set("Allow", strings.Join(methods, ", "))
				refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s %s: it takes %s", cut(r.Method), r.URL.Path, strings.Join(methods, ", ")))
				return
			}
			var paths []string
			for _, one := range routes {
				paths = append(paths, one.Path)
			}
			refuse(w, http.StatusNotFound, fmt.Sprintf("there is no %s%s", shown(r.URL.Path), instead(r.URL.Path, slices.Compact(paths))))
			return
		}
		by, _ := r.Context().Value(whoKey{}).(string)
		query, err := route.parameters(r.URL.RawQuery)
		var answered any
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, intake.MaxBytes)
			answered, err = route.answer(ctx, request{r, query, by})
		}
		if err != nil {
			code := http.StatusUnprocessableEntity
			var known refused
			if errors.As(err, &known) {
				code = known.code
			}
			if code == http.StatusBadRequest && r.Method == http.MethodPost {
				log.Warn("what came isn't an order that can be read", "path", route.Path, "by", by, "problems", err.Error())
			}
			refuse(w, code, err.Error())
			return
		}
		answer(w, http.StatusOK, answered)
	})
}

// routeOf is the route of a request; where there is none, the methods that its path takes.
func routeOf(routes []Route, r *http.Request) (found *Route, methods []string) {
	for i := range routes {
		if routes[i].Path != r.URL.Path {
			continue
		}
		if routes[i].Method == r.Method {
			return &routes[i], nil
		}
		methods = append(methods, routes[i].Method)
	}
	return nil, methods
}

// parameters reads a query, which may say nothing that the route doesn't know, and nothing twice.
func (r Route) parameters(raw string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, wrong("the query can't be read: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(r.Parameters, name) && len(r.Parameters) == 0:
			return nil, wrong("%s takes no parameters, and there is %s", r.Path, shown(name))
		case !slices.Contains(r.Parameters, name):
			return nil, wrong("%s has no parameter %s%s", r.Path, shown(name), instead(name, r.Parameters))
		case len(query[name]) > 1:
			return nil, wrong("the parameter %s is there twice", name)
		}
	}
	return query, nil
}

func (s Steering) events(_ context.Context, r request) (any, error) {
	if s.Events == nil {
		return nil, errCannot
	}
	after, err := EventsAfter(r.query.Get("after"))
	if err != nil {
		return nil, refused{http.StatusBadRequest, err}
	}
	return api.Events{Events: orEmpty(s.Events(after))}, nil
}

// EventsAfter reads the parameter after of a request for events; nothing is all of them.
func EventsAfter(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("after=%s: the id of an event, a whole number", shown(text))
	}
	return after, nil
}

func (s Steering) sessions(_ context.Context, r request) (any, error) {
	if s.Sessions == nil {
		return nil, errCannot
	}
	f, err := filterOf(r.query)
	if err != nil {
		return nil, err
	}
	found, err := s.Sessions(f)
	found.Sessions = orEmpty(found.Sessions)
	return found, err
}

// filterFields read the fields of a filter from a query, by the names that they have in JSON.
var filterFields = map[string]func(*api.SessionFilter, string) error{
	"cluster": func(f *api.SessionFilter, text string) error { f.Cluster = text; return nil },
	"service": func(f *api.SessionFilter, text string) error { f.Service = text; return nil },
	"member":  func(f *api.SessionFilter, text string) error { f.Member = text; return nil },
	"client":  func(f *api.SessionFilter, text string) error { f.Client = text; return nil },
	"id": func(f *api.SessionFilter, text string) (err error) {
		if f.ID, err = strconv.ParseUint(text, 10, 64); err != nil || f.ID == 0 {
			return errors.New("the id of a session, a whole number from 1 on")
		}
		return nil
	},
	"idle_seconds": func(f *api.SessionFilter, text string) error {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return errors.New("a number of seconds")
		}
		f.Idle = api.Seconds(seconds)
		return nil
	},
	"limit": func(f *api.SessionFilter, text string) (err error) {
		if f.Limit, err = strconv.Atoi(text); err != nil {
			return errors.New("how many are told at most, a whole number")
		}
		return nil
	},
}

// maxSessions is how many sessions are told at most.
const maxSessions = 10000

func filterOf(query url.Values) (api.SessionFilter, error) {
	var f api.SessionFilter
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if err := filterFields[name](&f, query.Get(name)); err != nil {
			return f, wrong("%s=%s: %w", name, shown(query.Get(name)), err)
		}
	}
	return f, sound(f)
}

// sound says what is wrong with a filter as such.
func sound(f api.SessionFilter) error {
	if _, err := netip.ParseAddr(f.Client); f.Client != "" && err != nil {
		if _, err := netip.ParsePrefix(f.Client); err != nil {
			return wrong("client %s: an address or a network (CIDR)", shown(f.Client))
		}
	}
	if f.Limit < 0 || f.Limit > maxSessions {
		return wrong("limit %d: up to %d", f.Limit, maxSessions)
	}
	return nil
}

func (s Steering) order(ctx context.Context, r request) (any, error) {
	if s.Order == nil {
		return nil, errCannot
	}
	var o api.Order
	if err := r.read(&o); err != nil {
		return nil, err
	}
	o.By = r.by
	results, err := s.Order(ctx, o)
	return orEmpty(results), err
}

func (s Steering) endSessions(ctx context.Context, r request) (any, error) {
	if s.EndSessions == nil {
		return nil, errCannot
	}
	var e api.EndSessions
	if err := r.read(&e); err != nil {
		return nil, err
	}
	if err := sound(e.Filter); err != nil {
		return nil, err
	}
	every := e.Filter
	every.Limit = 0
	if every == (api.SessionFilter{}) && !e.All {
		return nil, errors.New("the filter chooses every session of the node: all says that it is meant")
	}
	return s.EndSessions(ctx, e, r.by)
}

func (s Steering) hold(ctx context.Context, r request) (any, error) {
	if s.Hold == nil {
		return nil, errCannot
	}
	var o api.HoldOrder
	if err := r.read(&o); err != nil {
		return nil, err
	}
	o.By = r.by
	held, err := s.Hold(ctx, o)
	held.Pools = orEmpty(held.Pools)
	return held, err
}

func (s Steering) reread(ctx context.Context, r request) (any, error) {
	if s.Reread == nil {
		return nil, errCannot
	}
	return s.Reread(ctx, r.by)
}

func (s Steering) take(ctx context.Context, r request, dryRun bool) (any, error) {
	if s.Take == nil {
		return nil, errCannot
	}
	text, err := r.body(intake.MaxBytes)
	if err != nil {
		return nil, err
	}
	o, err := intake.Decode(text)
	if err != nil {
		return nil, refused{http.StatusBadRequest, err}
	}
	return s.Take(ctx, o, r.RemoteAddr, dryRun)
}

// body is what came with a request.
func (r request) body(most int64) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, most))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, refused{http.StatusRequestEntityTooLarge, fmt.Errorf("the order is too long: %d bytes at most", most)}
	case err != nil:
		return nil, wrong("the order didn't arrive whole")
	}
	return text, nil
}

// read reads an order's JSON, every field of which has to be known: one that is passed over would be an order for more than is meant.
func (r request) read(into any) error {
	text, err := r.body(maxOrder)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var mistyped *json.UnmarshalTypeError
	switch err := decoder.Decode(into); {
	case errors.Is(err, io.EOF):
		return wrong("the order is empty")
	case errors.As(err, &mistyped):
		return wrong("%s is a %s", mistyped.Field, mistyped.Value)
	case err != nil:
		if name, is := strings.CutPrefix(err.Error(), "json: unknown field "); is {
			name, _ = strconv.Unquote(name)
			return wrong("there is no field %s%s", shown(name), instead(name, fieldsOf(reflect.TypeOf(into))))
		}
		return wrong("the order isn't JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return wrong("something follows the order at byte %d", decoder.InputOffset())
	}
	return nil
}

// fieldsOf are the fields that JSON has of a type, those of what it holds included.
func fieldsOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var names []string
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		names = append(names, fieldsOf(f.Type)...)
	}
	return names
}

// instead says which words there are in place of one that isn't known.
func instead(word string, known []string) string {
	if near := diag.Nearest(word, known); near != "" {
		return "; did you mean " + near
	}
	return "; there are: " + strings.Join(known, ", ")
}

// shown is a word of a stranger's, cut to what is worth being repeated.
func shown(word string) string { return fmt.Sprintf("%.60q", word) }

// cut is the beginning of a word that is a token of HTTP's, and so has nothing in it that doesn't show.
func cut(word string) string { return word[:min(len(word), 60)] }

// orEmpty makes a list that is there of one that may be nil.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func refuse(w http.ResponseWriter, code int, why string) { answer(w, code, api.Refusal{Error: why}) }

func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(text, '\n'))
}
