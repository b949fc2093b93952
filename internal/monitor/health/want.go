package health

// Ours says that a check failed for a want of this node's own: descriptors, memory, local ports. It says nothing of whoever was to be
// asked.
func Ours(err error) bool { return ours(err) }
