package contender

import (
	"os"
	"testing"

	"github.com/pgporter/pgporter/internal/guard"
)

// Programs that the tests start end with them, however that is.
func TestMain(m *testing.M) { os.Exit(guard.Run(m.Run)) }
