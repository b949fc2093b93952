package cluster

import (
	"reflect"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
)

// TestAViewHasWhatIsResolved: services on a View have the servers that resolve gives them, whatever their options say. Engines
// are offered the one and follow the other.
func TestAViewHasWhatIsResolved(t *testing.T) {
	for _, name := range []string{"trio", "trio-static", "trio-back", "trio-backups", "dedicated"} {
		c, _ := declared(name)
		set, err := resolve.Set(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		loop, err := New(c, Config{})
		if err != nil {
			t.Fatal(err)
		}
		var shown []model.Service
		for _, s := range loop.Board().View().Services {
			shown = append(shown, s.Service)
		}
		if !reflect.DeepEqual(shown, set.Services) {
			t.Errorf("%s: the View has\n%+v, resolved are\n%+v", name, shown, set.Services)
		}
	}
}
