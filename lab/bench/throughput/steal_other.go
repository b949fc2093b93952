//go:build !linux

package throughput

func machineTime() (ticks, error) { return ticks{}, errLinux }
