package proxy

import "testing"

// BenchmarkSlot is a client's slot, taken and given back: what counting costs each client, of a service that has slots of its own and of
// one that has used them up.
func BenchmarkSlot(b *testing.B) {
	for name, own := range map[string]int{"its own": 4, "common": 0} {
		b.Run(name, func(b *testing.B) {
			common := slots{limit: 1000}
			of := slots{of: &common, limit: 5000}
			of.setOwn(own)
			b.ReportAllocs()
			for b.Loop() {
				if !of.reserve() {
					b.Fatal("no slot")
				}
				of.free()
			}
		})
	}
}
