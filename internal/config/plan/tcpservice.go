package plan

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
)

// Pigsty's defaults of a TCP service.
const (
	tcpMaxConn = 10000
	tcpOptions = "inter 3s fastinter 1s downinter 5s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s " +
		"maxconn 3000 maxqueue 128 weight 100"
)

// tcpService is a service of haproxy_services with its positions.
type tcpService struct {
	model.TCPService
	pos, portPos diag.Position
	// positions tell where the parts are that the native engine may refuse.
	positions tcpPositions
}

// tcpPositions are a service's texts in the inventory, at the indices that they have in its TCPService.
type tcpPositions struct {
	protocol     place
	lines        []place
	words        place
	serverWords  []place
	serverLabels []string
}

// place is where a text begins in the inventory: at an offset of a value.
type place struct {
	value  inventory.Value
	offset int
	// unquoted says that messages may not quote what is there, though they may quote the value.
	unquoted bool
}

func (at place) position(offset int) diag.Position { return at.value.At(at.offset + offset) }

// tcpKeys are the keys of an entry of haproxy_services, with how each is read. The first three are required.
var tcpKeys = []entryKey[tcpReader]{
	{name: "name", read: (*tcpReader).readName},
	{name: "port", read: (*tcpReader).readPort},
	{name: "servers", read: (*tcpReader).readServers},
	{name: "ip", read: (*tcpReader).readIP},
	{name: "protocol", read: (*tcpReader).readProtocol},
	{name: "maxconn", read: (*tcpReader).readMaxConn},
	{name: "balance", read: (*tcpReader).readBalance},
	{name: "options", read: (*tcpReader).readOptions},
	{name: "default", read: (*tcpReader).readDefault},
	{name: "allow", read: (*tcpReader).readAllow},
}

// tcpServerKeys are those of one of its servers. The first three are required.
var tcpServerKeys = []entryKey[tcpServerReader]{
	{name: "name", read: (*tcpServerReader).readName},
	{name: "ip", read: (*tcpServerReader).readHost},
	{name: "port", read: (*tcpServerReader).readPort},
	{name: "backup", read: (*tcpServerReader).readBackup, emptiable: true},
	{name: "weight", read: (*tcpServerReader).readWeight, emptiable: true},
	{name: "options", read: (*tcpServerReader).readOptions, emptiable: true},
}

// tcpServices gives the services that a node's HAProxy has beside its clusters', in order. Entries that aren't sound are left
// out; of two with one name the later replaces the earlier, as its file would in Pigsty.
func (p *planner) tcpServices(h *inventory.Host) []tcpService {
	if enabled, set := p.variable(h, "haproxy_enabled"); set {
		switch on, ok := enabled.Truth(); {
		case !ok:
			p.problems.Errorf(diag.NotBoolean, enabled.Pos(), "true or false", "haproxy_enabled is %s", enabled.Describe())
			return nil
		case !on:
			return nil
		}
	}
	v, set := p.templates.Own(h, "haproxy_services")
	if !set || v.Kind() != inventory.List && !p.readable(v, "haproxy_services") {
		return nil
	}
	if v.Kind() != inventory.List {
		p.problems.Errorf(diag.WrongType, v.Pos(), "a list of services; [] for none", "haproxy_services is %s", v.Describe())
		return nil
	}
	if !p.fewServices(v, "haproxy_services") {
		return nil
	}
	var all []tcpService
	index := map[string]int{}
	for i, item := range v.Items() {
		g, sound := p.tcpService(i, item)
		if !sound {
			continue
		}
		if earlier, again := index[g.Name]; again {
			p.problems.Warnf(diag.ServiceReplaced, g.pos, "another name", "service %q of haproxy_services takes the place of the one at %s", g.Name, all[earlier].pos)
			all[earlier] = g
			continue
		}
		index[g.Name] = len(all)
		all = append(all, g)
	}
	return all
}

// tcpService reads an entry, all of it even if a part is wrong.
func (p *planner) tcpService(i int, v inventory.Value) (tcpService, bool) {
	label := fmt.Sprintf("service %d of haproxy_services", i+1)
	if name, ok := called(v); ok {
		label = fmt.Sprintf("service %q of haproxy_services", name)
	}
	r := &tcpReader{entryReader: entryReader{p: p, kind: "service", label: label, sound: true}}
	r.g.TCPService = model.TCPService{
		IP: "*", Protocol: "tcp", MaxConn: tcpMaxConn, Balance: string(model.RoundRobin), Default: tcpOptions, Servers: []model.TCPServer{},
	}
	// What may be said of an algorithm depends on the protocol, wherever that stands.
	if protocol, _ := v.Get("protocol"); protocol.Kind() == inventory.Text && protocol.Tainted() == "" {
		r.g.Protocol, _ = protocol.Text()
	}
	r.g.positions.protocol, r.g.positions.words = place{value: v}, place{value: v}
	readEntry(r, &r.entryReader, tcpKeys, v)
	if !p.haproxy && v.Kind() == inventory.Map {
		r.native()
	}
	r.askPatroni()
	return r.g, r.sound
}

// askPatroni tells of paths of Patroni's that a service checks, and that it reads in another way than they look.
func (r *tcpReader) askPatroni() {
	patronis := fmt.Sprintf(" port %d ", defaultPatroniPort)
	if !slices.ContainsFunc(r.g.Servers, func(s model.TCPServer) bool {
		return s.Port == defaultPatroniPort || strings.Contains(" "+s.Options+" ", patronis)
	}) {
		return
	}
	for i, line := range r.g.Options {
		offset := 0
		for w := range strings.FieldsSeq(line) {
			offset += strings.Index(line[offset:], w)
			path, _, _ := strings.Cut(w, "?")
			if strings.HasPrefix(line, "option") || strings.HasPrefix(line, "http-check send") {
				if model.IsCheckPath(w) && (path == "/" || known(path)) {
					at := r.g.positions.lines[i]
					at.offset += offset
					r.p.warnOfQuery(at, r.label, w)
				}
			}
			offset += len(w)
		}
	}
}

// native refuses what the native engine can't carry.
func (r *tcpReader) native() {
	// The words of all servers are read for each.
	if !r.p.spend(r.g.positions.protocol.value.Pos(), len(r.g.Servers)*(1+len(r.g.Default)/textWork)) {
		r.sound = false
		return
	}
	_, problems := tcpservice.Parse(r.g.TCPService)
	positions := r.g.positions
	for _, n := range problems {
		at, prefix := positions.protocol, ""
		switch n.Part {
		case tcpservice.InBalance:
			// Reading it has said so.
			continue
		case tcpservice.InLine:
			at, prefix = positions.lines[n.Index], "options: "
		case tcpservice.InDefault:
			at, prefix = positions.words, "default: "
		case tcpservice.InServer:
			at, prefix = positions.serverWords[n.Index], "options: "
			if label, is := strings.CutPrefix(positions.serverLabels[n.Index], r.label+": "); is {
				prefix = label + ": " + prefix
			}
		}
		pos := at.position(n.Offset)
		if at.unquoted || !at.value.Quotable() {
			n.What = "a line or word that a template makes can't be used by the native engine as it is"
		}
		if n.Minor {
			r.p.problems.Warnf(n.Code, pos, n.Want, "%s: %s%s", r.label, prefix, n.What)
			continue
		}
		r.fail(n.Code, pos, n.Want, "%s%s", prefix, n.What)
	}
}

type tcpReader struct {
	entryReader
	g tcpService
}

func (r *tcpReader) readName(v inventory.Value) { r.g.Name, r.g.pos = r.name(v), v.Pos() }

func (r *tcpReader) readPort(v inventory.Value) {
	r.g.Port, r.g.portPos = r.number(v, "port", 1, 65535), v.Pos()
}

func (r *tcpReader) readIP(v inventory.Value) { r.g.IP = r.address(v) }

func (r *tcpReader) readMaxConn(v inventory.Value) {
	r.g.MaxConn = r.number(v, "maxconn", 1, 1<<31-1)
}

func (r *tcpReader) readAllow(v inventory.Value) { r.g.Allow = r.networks(v) }

func (r *tcpReader) readProtocol(v inventory.Value) {
	r.g.positions.protocol = place{value: v}
	if text, _ := v.Text(); text != "tcp" && text != "http" {
		r.fail(diag.WordUnknown, v.Pos(), "tcp or http", "protocol is %s", v.Describe())
	}
}

func (r *tcpReader) readBalance(v inventory.Value) {
	text, ok := r.p.balance(v, r.label, r.g.Protocol)
	r.g.Balance = text
	r.sound = r.sound && ok
}

func (r *tcpReader) readDefault(v inventory.Value) {
	r.g.Default, r.g.positions.words = r.serverWords(v, "default"), place{value: v}
}

// readOptions reads the lines: a list of texts, or one text with a line for each.
func (r *tcpReader) readOptions(v inventory.Value) {
	const want = "a list of lines for HAProxy's listen section"
	lines := v.Items()
	switch v.Kind() {
	case inventory.Text:
		lines = []inventory.Value{v}
	case inventory.List:
	default:
		r.fail(diag.WrongType, v.Pos(), want, "options is %s", v.Describe())
	}
	for _, line := range lines {
		text, isText := line.Text()
		if !isText {
			r.fail(diag.WrongType, line.Pos(), want, "a line of options is %s", line.Describe())
			continue
		}
		offset := 0
		for one := range strings.Lines(text) {
			r.listenLine(line, offset+len(one)-len(strings.TrimLeftFunc(one, unicode.IsSpace)), strings.TrimSpace(one))
			offset += len(one)
		}
	}
}

// listenLine takes one line if it begins as a line of a listen section may.
func (r *tcpReader) listenLine(v inventory.Value, offset int, line string) {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasPrefix(line, "#") || !r.shows(v, "options", line) {
		return
	}
	switch known := slices.Contains(listenWords, words[0]); {
	case !known && !v.Quotable():
		r.fail(diag.ListenLine, v.Pos(), "a line of HAProxy's listen section", "options: a line that a template makes begins as none of a listen section")
	case !known:
		r.fail(diag.ListenLine, v.At(offset), near(words[0], listenWords, "a line of HAProxy's listen section"), "options: %s begins no line of a listen section", words[0])
	case len(words) == 1 && !slices.Contains(listenWordsAlone, words[0]):
		r.fail(diag.ListenLine, v.At(offset), "what it is to do", "options: nothing follows %s", words[0])
	default:
		r.g.Options = append(r.g.Options, line)
		r.g.positions.lines = append(r.g.positions.lines, place{value: v, offset: offset})
	}
}

func (r *tcpReader) readServers(v inventory.Value) {
	if v.Kind() != inventory.List {
		r.fail(diag.WrongType, v.Pos(), "a list of servers; [] for none", "servers is %s", v.Describe())
		return
	}
	taken := map[string]diag.Position{}
	for i, item := range v.Items() {
		label := fmt.Sprintf("%s: server %d", r.label, i+1)
		if name, ok := called(item); ok {
			label = fmt.Sprintf("%s: server %q", r.label, name)
		}
		s := &tcpServerReader{entryReader: entryReader{p: r.p, kind: "server", label: label, sound: true}}
		readEntry(s, &s.entryReader, tcpServerKeys, item)
		if first, again := taken[s.s.Name]; again && s.sound {
			s.fail(diag.NameTwice, item.Pos(), "names of their own", "the name is taken by the server at %s", first)
		}
		taken[s.s.Name] = item.Pos()
		r.sound = r.sound && s.sound
		text := s.weightWord + " " + s.s.Options
		s.s.Options = strings.TrimSpace(text)
		before := len(s.weightWord) + 1 - (len(text) - len(strings.TrimLeftFunc(text, unicode.IsSpace)))
		r.g.Servers = append(r.g.Servers, s.s)
		r.g.positions.serverLabels = append(r.g.positions.serverLabels, label)
		at := place{value: s.words, offset: -before}
		if s.words.Kind() != inventory.Text {
			at = place{value: item}
		}
		at.unquoted = s.weightUnquoted
		r.g.positions.serverWords = append(r.g.positions.serverWords, at)
	}
}

type tcpServerReader struct {
	entryReader
	s model.TCPServer
	// weightWord is a weight that is no number, in the words of the server line.
	weightWord string
	// weightUnquoted says that messages may not quote it.
	weightUnquoted bool
	// words is the value of options, if it has one.
	words inventory.Value
}

func (r *tcpServerReader) readName(v inventory.Value) { r.s.Name = r.name(v) }

func (r *tcpServerReader) readPort(v inventory.Value) {
	r.s.Port = r.number(v, "port", 1, 65535)
}

func (r *tcpServerReader) readHost(v inventory.Value) {
	text, isText := v.Text()
	if !isText || !model.IsHost(text) {
		r.fail(diag.AddressInvalid, v.Pos(), "an address or a host's name", "ip is %s", v.Describe())
	} else if why, want := unaddressable(text); why != "" && v.Quotable() {
		r.fail(diag.HostNoAddress, v.Pos(), want, "ip is %s: %s", v.Describe(), why)
	}
	r.s.Host = text
}

// readBackup goes by Ansible's `bool`, for which whatever isn't a word for true is false.
func (r *tcpServerReader) readBackup(v inventory.Value) {
	truth, ok := v.Truth()
	if !ok && v.Kind() != inventory.Null {
		r.p.problems.Warnf(diag.NotBoolean, v.Pos(), "true or false", "%s: backup is %s, which is no word for true: the server is a regular one", r.label, v.Describe())
	}
	r.s.Backup = truth
}

// readWeight leaves a number out that HAProxy can't have for a weight, as Pigsty does. What is no whole number Pigsty hands
// on as it is, and HAProxy takes what digits it begins with.
func (r *tcpServerReader) readWeight(v inventory.Value) {
	const want = "a whole number from 0 to 255"
	n, isNumber := v.WholeNumber()
	switch {
	case isNumber && n >= 0 && n <= 255:
		weight := int(n)
		r.s.Weight = &weight
	case isNumber:
		r.p.problems.Warnf(diag.NumberOutOfRange, v.Pos(), want, "%s: weight is %s and left out, as in Pigsty", r.label, v.Describe())
	default:
		text := pythonWord(v)
		if strings.ContainsAny(text, " \t\r\n\"'\\#") || v.Kind() == inventory.List || v.Kind() == inventory.Map {
			r.fail(diag.NumberOutOfRange, v.Pos(), want, "weight is %s", v.Describe())
			return
		}
		made := ""
		if v.Quotable() {
			made = fmt.Sprintf(", of which HAProxy makes %d", leadingDigits(text))
		}
		r.p.problems.Warnf(diag.NumberOutOfRange, v.Pos(), want, "%s: weight is %s%s", r.label, v.Describe(), made)
		r.weightWord, r.weightUnquoted = strings.TrimSpace("weight "+text), !v.Quotable()
	}
}

func (r *tcpServerReader) readOptions(v inventory.Value) {
	if v.Kind() != inventory.Null {
		r.s.Options, r.words = r.serverWords(v, "options"), v
	}
}

// pythonWord is what a template makes of a scalar.
func pythonWord(v inventory.Value) string {
	switch text, _ := v.Name(); v.Kind() {
	case inventory.Bool:
		if on, _ := v.Truth(); on {
			return "True"
		}
		return "False"
	default:
		return text
	}
}

// leadingDigits is the number that a text begins with, as C's atoi reads it.
func leadingDigits(text string) int {
	n := 0
	for _, c := range strings.TrimLeft(text, " ") {
		if c < '0' || c > '9' || n > 1<<20 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// listenWords are those that a line of a listen section may begin with (HAProxy's configuration manual 2.6, section 4.1).
var listenWords = strings.Fields(`acl backlog balance bind capture clitcpka-cnt clitcpka-idle clitcpka-intvl compression cookie declare
	default-server default_backend description disabled dispatch email-alert enabled error-log-format errorfile errorfiles errorloc
	errorloc302 errorloc303 external-check filter force-persist fullconn hash-balance-factor hash-type http-after-response http-check
	http-error http-request http-response http-reuse http-send-name-header id ignore-persist load-server-state-from-file log log-format
	log-format-sd log-tag max-keep-alive-queue max-session-srv-conns maxconn mode monitor-uri no option persist rate-limit redirect
	retries retry-on server server-state-file-name server-template source srvtcpka-cnt srvtcpka-idle srvtcpka-intvl stats stick
	stick-table tcp-check tcp-request tcp-response timeout transparent unique-id-format unique-id-header use-fcgi-app use-server
	use_backend`)

// listenWordsAlone are those of listenWords that need nothing after them.
var listenWordsAlone = []string{"balance", "disabled", "enabled", "transparent"}
