package throughput

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestProcessorTime: the clock of a process, asked for by its id, agrees with what the process itself reads.
func TestProcessorTime(t *testing.T) {
	own := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	for begin := own(); own() < begin+20*time.Millisecond; { // something to count
	}
	before := own()
	got, err := processorTime(os.Getpid())
	after := own()
	// getrusage(2) counts in microseconds, and scales what it took samples of.
	const off = time.Millisecond
	if err != nil || got < before-off || got > after+off {
		t.Errorf("%s, %v, want %s to %s", got, err, before, after)
	}
	// One more than the highest id that there can be: proc(5), pid_max.
	if _, err := processorTime(1 << 22); err == nil {
		t.Error("there is no such process")
	}
}

func TestResident(t *testing.T) {
	before, err := resident(os.Getpid())
	if err != nil || before < 1<<20 {
		t.Fatal(before, err)
	}
	const size = 64 << 20
	room, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(room) //nolint:errcheck // the process ends
	for i := 0; i < size; i += 4096 {
		room[i] = 1
	}
	after, err := resident(os.Getpid())
	if grown := after - before; err != nil || grown < size/2 {
		t.Errorf("grown by %d bytes, not about %d: %v", grown, size, err)
	}
	if _, err := resident(1 << 22); err == nil {
		t.Error("there is no such process")
	}
}

func TestParseTicks(t *testing.T) {
	got, err := parseTicks("cpu  10 20 30 40 50 60 70 80 900 1000\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if err != nil || got != (ticks{all: 360, stolen: 80}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"", "cpu 1 2 3\n", "cpu0 1 2 3 4 5 6 7 8 9 10\n", "cpu 1 2 3 x 5 6 7 8 9 10\n"} {
		if _, err := parseTicks(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	before, err := machineTime()
	if err != nil || before.all == 0 || before.stolen > before.all {
		t.Errorf("this machine's: %+v, %v", before, err)
	}
}

// TestTreeCost: what a child spends counts while it runs, and still does when it has ended; what is shared counts once.
func TestTreeCost(t *testing.T) {
	// The shell itself does nothing; the first child burns and ends, the second burns and stays.
	command := exec.Command("sh", "-c", "burn='i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; sh -c \"$burn\"; sh -c \"$burn; echo done; read -r _\"; :")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		command.Wait()
	}()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	own, err := processorTime(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := endedChildren(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	all, err := treeCost(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	running := all.processor - own - ended
	if ended < 3*tick || running < ended/3 {
		t.Errorf("%s by a child that has ended, %s by one that runs, %s by the shell itself", ended, running, own)
	}
	alone, shared, err := memory(command.Process.Pid)
	if err != nil || all.resident() <= alone || all.resident() >= 2*alone {
		t.Errorf("%d bytes of two shells, %d of one, of which %d shared: %v", all.resident(), alone, shared, err)
	}
	if _, err := treeCost(1 << 22); err == nil {
		t.Error("there is no such process")
	}
}
