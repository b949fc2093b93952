package daemon

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// usage is how much of its processors the process uses: of the seconds that whoever looks whether loops go round lets pass.
type usage struct {
	mu sync.Mutex
	// at and used are of the latest sample: when, and how much time of processors the process had used. idle is the percentage of
	// before.
	at   time.Time
	used time.Duration
	idle float64
}

// sample ends a window that is a second long or longer.
func (u *usage) sample(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at.IsZero() {
		u.at, u.used, u.idle = now, processorTime(), 100
	}
	window := now.Sub(u.at)
	if window < lookGap*9/10 { // timers are early and late
		return
	}
	used := processorTime()
	whole := window * time.Duration(runtime.GOMAXPROCS(0))
	u.idle = 100 * (1 - min(1, float64(used-u.used)/float64(whole)))
	u.at, u.used = now, used
}

func (u *usage) read() float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.idle
}

// processStatus is what is known of the process as a whole, which carries this.
func (d *Daemon) processStatus(carried []engine.Traffic, now time.Time) api.Process {
	d.usage.sample(now)
	memory := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines/runnable:goroutines"}}
	metrics.Read(memory)
	p := api.Process{Files: proxy.OpenFiles(), OpenFiles: openFiles(), Idle: d.usage.read(), Threads: runtime.GOMAXPROCS(0),
		MemoryBytes: memory[0].Value.Uint64(), HeapBytes: memory[1].Value.Uint64(), Runnable: int(memory[2].Value.Uint64()), Stopping: d.stopping.Load(), HandOvers: d.handOvers}
	for i := range carried {
		t := &carried[i]
		p.Connections += t.Clients
		p.Accepted += t.Accepted
		p.ToClients += t.ToClient
		p.AcceptRate += t.AcceptRate
		p.SessionRate += t.SessionRate
		if !t.Closed {
			p.Listeners++
		}
	}
	if n, is := d.native(); is {
		all := n.Process()
		p.ConnectionLimit, p.Listeners, p.PipesFree = all.Limit, all.Listeners, all.Pipes
		p.AcceptRate, p.AcceptRateMax, p.SessionRate, p.SessionRateMax = all.AcceptRate, all.AcceptRateMax, all.SessionRate, all.SessionRateMax
	}
	return p
}

// engineName is what an engine is called.
func (d *Daemon) engineName() string {
	if _, is := d.native(); is {
		return api.EngineNative
	}
	return api.EngineHAProxy
}
