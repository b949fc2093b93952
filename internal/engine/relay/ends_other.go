//go:build !linux || portable

package relay

// Ends gives the flow's addresses. It is false once its sockets are closed.
func (f *Flow) Ends() (Ends, bool) {
	client, server := descriptorOf(f.client.conn), descriptorOf(f.server.conn)
	if client < 0 || server < 0 {
		return Ends{}, false
	}
	return EndsOf(client, server), true
}
