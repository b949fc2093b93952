//go:build !linux

package speed

func machineTime() (ticks, error) { return ticks{}, errLinux }
