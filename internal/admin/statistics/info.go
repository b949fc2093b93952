package statistics

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Info is a line of what is told of the process.
type Info struct {
	Name string
	// Position is HAProxy's number of it: what pgporter has nothing of leaves a gap.
	Position int
	About    string
	// Tags are HAProxy's three letters for what it is.
	Tags  string
	Value Value
	// Exact is the value with its fraction, where it has one.
	Exact *float64
}

// noTLS is said of what HAProxy has where it ends TLS.
const noTLS = "TLS is passed through, so there is none"

// Process is what is told of the process, in HAProxy's order.
func Process(s *api.Status) []Info {
	p := &s.Process
	up := max(0, s.Now.Sub(s.Started))
	var all []Info
	position := 0
	add := func(name, tags, about string, v Value) {
		all = append(all, Info{Name: name, Position: position, Tags: tags, About: about, Value: v})
		position++
	}
	exactly := func(f float64) { all[len(all)-1].Exact = &f }
	// rate is a number that is whole, which `float` shows as one that needn't be.
	rate := func(name, tags, about string, n int) {
		add(name, tags, about, u32(n))
		exactly(float64(n))
	}
	none := func(names ...string) {
		for _, name := range names {
			add(name, "MCP", noTLS, u32(0))
		}
	}
	add("Name", "POS", "program", text("pgporter"))
	add("Version", "POS", "the HAProxy whose words are spoken, and pgporter's version", text(Version(s)))
	add("Release_date", "POS", "when that HAProxy came out", text("2022/05/31"))
	add("Nbthread", "CGS", "processors that may be used at once", u32(p.Threads))
	add("Nbproc", "CGS", "always 1", u32(1))
	add("Process_num", "KGP", "always 1", u32(1))
	add("Pid", "SGP", "the process's number", u32(s.PID))
	add("Uptime", "MDP", "how long ago it started", text(duration(up)))
	add("Uptime_sec", "MDP", "how long ago it started, in seconds", u32(int64(up/time.Second)))
	exactly(up.Seconds())
	add("Memmax_MB", "CLP", "limit of memory: it has none of its own", u32(0))
	add("PoolAlloc_MB", "MGP", "memory that the runtime has of the system, in MB", u32(int64(p.MemoryBytes>>20)))
	add("PoolUsed_MB", "MGP", "memory of it in use, in MB", u32(int64(p.HeapBytes>>20)))
	add("PoolFailed", "MCP", "memory that wasn't to be had", u32(0))
	add("Ulimit-n", "CLP", "limit of open files", u32(clamp(p.Files)))
	add("Maxsock", "CLP", "limit of sockets: that of files", u32(clamp(p.Files)))
	add("Maxconn", "CLP", "how many clients there may be", u32(p.ConnectionLimit))
	add("Hard_maxconn", "CLP", "the same", u32(p.ConnectionLimit))
	add("CurrConns", "MGP", "clients that are connected", u32(p.Connections))
	add("CumConns", "MCP", "connections accepted so far", u32(clamp(p.Accepted)))
	add("CumReq", "MCP", "the same", u32(clamp(p.Accepted)))
	add("MaxSslConns", "MMP", noTLS, u32(0))
	add("CurrSslConns", "MGP", noTLS, u32(0))
	none("CumSslConns")
	add("Maxpipes", "CLP", "limit of pipes: that of files", u32(0))
	add("PipesUsed", "MGP", "pipes in use, for bytes that the kernel moves", u32(p.PipesUsed))
	add("PipesFree", "MGP", "pipes kept for use", u32(p.PipesFree))
	rate("ConnRate", "MRP", "connections accepted in the last second", p.AcceptRate)
	add("ConnRateLimit", "CLP", "limit of that: none", u32(0))
	add("MaxConnRate", "MMP", "most of a second", u32(p.AcceptRateMax))
	rate("SessRate", "MRP", "sessions begun in the last second", p.SessionRate)
	add("SessRateLimit", "CLP", "limit of that: none", u32(0))
	add("MaxSessRate", "MRP", "most of a second", u32(p.SessionRateMax))
	rate("SslRate", "MRP", noTLS, 0)
	add("SslRateLimit", "CLP", noTLS, u32(0))
	add("MaxSslRate", "MMP", noTLS, u32(0))
	rate("SslFrontendKeyRate", "MGP", noTLS, 0)
	add("SslFrontendMaxKeyRate", "MMP", noTLS, u32(0))
	rate("SslFrontendSessionReuse_pct", "MGP", noTLS, 0)
	rate("SslBackendKeyRate", "MRP", noTLS, 0)
	add("SslBackendMaxKeyRate", "MMP", noTLS, u32(0))
	none("SslCacheLookups", "SslCacheMisses")
	rate("CompressBpsIn", "MRP", "nothing is compressed", 0)
	rate("CompressBpsOut", "MRP", "nothing is compressed", 0)
	add("CompressBpsRateLim", "CLP", "nothing is compressed", u32(0))
	// HAProxy has its use of zlib here.
	position += 2
	add("Tasks", "MGP", "goroutines", u32(s.Goroutines))
	add("Run_queue", "MGP", "goroutines that wait for a processor", u32(p.Runnable))
	add("Idle_pct", "MaP", "share of the last second in which nothing was done, in percent", u32(int64(math.Round(p.Idle))))
	add("node", "COS", "the node's name in the inventory; - without one", text(cmp.Or(s.Node, "-")))
	// HAProxy has its description here.
	position++
	add("Stopping", "MGP", "1 while it stops", bit(p.Stopping))
	add("Jobs", "MGP", "listeners and clients", u32(p.Listeners+p.Connections))
	add("Unstoppable Jobs", "MGP", "those that a stop doesn't wait for", u32(0))
	add("Listeners", "MGP", "addresses at which clients are accepted", u32(p.Listeners))
	add("ActivePeers", "MGP", "there are no peers", u32(0))
	add("ConnectedPeers", "MGP", "there are no peers", u32(0))
	add("DroppedLogs", "MGP", "lines of the log that nobody read in time", u32(clamp(s.LogDropped)))
	add("BusyPolling", "MGP", "always 0", u32(0))
	add("FailedResolutions", "MGP", "always 0", u32(0))
	add("TotalBytesOut", "MGP", "bytes to clients", u64(p.ToClients))
	add("TotalSplicdedBytesOut", "MGP", "bytes that the kernel moved without a copy", u64(p.Spliced))
	add("BytesOutRate", "MRP", "bytes to clients in the last second", u64(p.ToClientsRate))
	add("DebugCommandsIssued", "MGP", "always 0", u32(0))
	add("CumRecvLogs", "MCP", "always 0", u32(0))
	add("Build info", "POS", "as Version", text(Version(s)))
	add("Memmax_bytes", "CLP", "limit of memory: it has none of its own", u32(0))
	add("PoolAlloc_bytes", "MGP", "memory that the runtime has of the system", u64(p.MemoryBytes))
	add("PoolUsed_bytes", "MGP", "memory of it in use", u64(p.HeapBytes))
	add("Start_time_sec", "MDP", "when it started, in seconds since 1970", u32(s.Started.Unix()))
	exactly(float64(s.Started.UnixMilli()) / 1000)
	add("Tainted", "SGP", "always 0", text("0"))
	return all
}

// clamp keeps a number in what HAProxy's u32 can have.
func clamp(n uint64) int64 { return int64(min(n, math.MaxUint32)) }

// duration is a time as HAProxy says it: 1d 2h03m04s.
func duration(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%dd %dh%02dm%02ds", s/86400, s%86400/3600, s%3600/60, s%60)
}

// Number is the value of a line as the exporter has it.
func (i Info) Number() float64 {
	if i.Value.Type == "str" {
		return math.NaN()
	}
	return cmp.Or(float64(i.Value.Number), 0)
}

func (i Info) shown(exact bool) (typ, value string) {
	if exact && i.Exact != nil {
		return "flt", strconv.FormatFloat(*i.Exact, 'f', 6, 64)
	}
	return i.Value.Type, i.Value.String()
}
