//go:build race

package plan

// slower is how many times as long everything takes.
const slower = 10
