package e2e

import "testing"

// TestTraffic are the tests that move much. They run beside each other, and beside no other test: a machine that they keep busy
// has Patroni fall silent for so long now and then that servers count as down, which others would take for a fault.
func TestTraffic(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		allBytes(t)
	})
	t.Run("upgrade", func(t *testing.T) {
		t.Parallel()
		upgradesUnderLoad(t)
	})
}
