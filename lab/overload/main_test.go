package overload

import (
	"os"
	"testing"

	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// Programs that the tests start end with them, however that is.
func TestMain(m *testing.M) { os.Exit(guard.Run(m.Run)) }
