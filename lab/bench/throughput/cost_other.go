//go:build !linux

package throughput

import (
	"errors"
	"time"
)

var errLinux = errors.New("what a process costs is known on Linux only")

func processorTime(int) (time.Duration, error) { return 0, errLinux }

func resident(int) (int64, error) { return 0, errLinux }

func treeCost(int) (cost, error) { return cost{}, errLinux }
